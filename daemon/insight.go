package daemon

import (
	"net/http"

	"berth/engine"
	"berth/engine/explain"
)

// insight serves what looks into a container from outside: tools at its side, and what the kernel says of it.
type insight struct {
	engine     *engine.Insight
	containers *engine.Containers
}

func (s insight) routes() []route {
	return []route{
		{"POST", "/containers/{id}/debug", s.debug},
		{"GET", "/containers/{id}/explain", s.explain},
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

func (s insight) explain(w http.ResponseWriter, r *http.Request) error {
	c, err := s.containers.Inspect(r.Context(), r.PathValue("id"), false)
	if err != nil {
		return err
	}
	report, err := explain.Container(&c.InspectResponse)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, report)
}
