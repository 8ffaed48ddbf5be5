package daemon

import (
	"net/http"

	"berth/engine"
	"berth/fault"
	"github.com/moby/moby/api/types/container"
)

func (s *Server) execRoutes() []route {
	return []route{
		{"POST", "/containers/{id}/exec", s.execCreate},
		{"POST", "/exec/{id}/start", s.execStart},
		{"POST", "/exec/{id}/resize", s.execResize},
		{"GET", "/exec/{id}/json", s.execInspect},
	}
}

func (s *Server) execCreate(w http.ResponseWriter, r *http.Request) error {
	var body container.ExecCreateRequest
	if err := readJSON(r, &body, false); err != nil {
		return err
	}
	if len(body.Cmd) == 0 {
		return fault.New(fault.Invalid, "no exec command specified")
	}
	id, err := s.engine.Containers.ExecCreate(r.Context(), r.PathValue("id"), body)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, container.ExecCreateResponse{ID: id})
}

// execStart runs a prepared exec: detached with an answer of its own, or with the connection handed over.
func (s *Server) execStart(w http.ResponseWriter, r *http.Request) error {
	var body container.ExecStartRequest
	if err := readJSON(r, &body, true); err != nil {
		return err
	}
	id := r.PathValue("id")
	tty, err := s.engine.Containers.CheckExec(id)
	if err != nil {
		return err
	}
	start := engine.ExecStartRequest{Tty: body.Tty, ConsoleSize: body.ConsoleSize}
	if body.Detach {
		if err := s.engine.Containers.ExecStart(r.Context(), id, start); err != nil {
			return err
		}
		w.WriteHeader(http.StatusOK)
		return nil
	}
	h, err := hijack(w, r, tty)
	if err != nil {
		return err
	}
	start.Attach = &engine.AttachRequest{
		Conn: h.conn, Greeting: h.answer, Buffered: h.buffered, Stdin: true, Stdout: true, Stderr: true, Stream: true, Frames: !tty,
	}
	return s.engine.Containers.ExecStart(r.Context(), id, start)
}

func (s *Server) execResize(w http.ResponseWriter, r *http.Request) error {
	height, width, err := size(r.URL.Query())
	if err != nil {
		return err
	}
	if err := s.engine.Containers.ExecResize(r.Context(), r.PathValue("id"), height, width); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (s *Server) execInspect(w http.ResponseWriter, r *http.Request) error {
	e, err := s.engine.Containers.ExecInspect(r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, e)
}
