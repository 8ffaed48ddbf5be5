package daemon

import (
	"net/http"

	"berth/engine"
)

// insight serves what looks into a container from outside: tools at its side.
type insight struct{ engine *engine.Insight }

func (s insight) routes() []route {
	return []route{
		{"POST", "/containers/{id}/debug", s.debug},
	}
}

// debug prepares a process with tools. What it answers is started by the API's own routes for execs and containers.
func (s insight) debug(w http.ResponseWriter, r *http.Request) error {
	var body engine.DebugRequest
	if err := readJSON(r, &body, true); err != nil {
		return err
	}
	answer, err := s.engine.Debug(r.Context(), r.PathValue("id"), body)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, answer)
}
