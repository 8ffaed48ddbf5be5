package daemon

import (
	"errors"
	"net/http"

	"berth/engine"
	"berth/fault"
	"github.com/moby/moby/api/types/container"
)

// execs serves /exec, and its beginning below /containers.
type execs struct{ engine *engine.Containers }

func (s execs) routes() []route {
	return []route{
		{"POST", "/containers/{id}/exec", s.create},
		{"POST", "/exec/{id}/start", s.start},
		{"POST", "/exec/{id}/resize", s.resize},
		{"GET", "/exec/{id}/json", s.inspect},
	}
}

func (s execs) create(w http.ResponseWriter, r *http.Request) error {
	var body container.ExecCreateRequest
	if err := readJSON(r, &body, false); err != nil {
		return err
	}
	if len(body.Cmd) == 0 {
		return fault.New(fault.Invalid, "No exec command specified")
	}
	id, err := s.engine.ExecCreate(r.Context(), r.PathValue("id"), body)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, container.ExecCreateResponse{ID: id})
}

// start runs a prepared exec: detached with an answer of its own, or with the connection handed over.
func (s execs) start(w http.ResponseWriter, r *http.Request) error {
	var body container.ExecStartRequest
	if err := readJSON(r, &body, true); err != nil {
		return err
	}
	id := r.PathValue("id")
	if err := s.engine.CheckExec(id); err != nil {
		return err
	}
	start := engine.ExecStartRequest{Tty: body.Tty, ConsoleSize: body.ConsoleSize}
	if body.Detach {
		if err := s.engine.ExecStart(r.Context(), id, start); err != nil {
			return err
		}
		w.WriteHeader(http.StatusOK)
		return nil
	}
	// The form of the stream is what this request says, not what the exec is: clients read it so.
	h, err := hijack(w, r, body.Tty)
	if err != nil {
		return err
	}
	start.Attach = &engine.AttachRequest{
		Conn: h.conn, Greeting: h.answer, Buffered: h.buffered, Stdin: true, Stdout: true, Stderr: true, Stream: true, Frames: !body.Tty,
	}
	defer h.own.Close()
	err = s.engine.ExecStart(r.Context(), id, start)
	if err != nil { // the header is out, so the reason goes where the output would have gone
		l := lineWriter{out: h.own, frames: !body.Tty}
		l.message(frameStdout, err.Error()+"\r\n")
		err = errors.Join(err, l.flush())
	}
	return err
}

func (s execs) resize(w http.ResponseWriter, r *http.Request) error {
	height, width, err := size(r.URL.Query())
	if err != nil {
		return err
	}
	if err := s.engine.ExecResize(r.Context(), r.PathValue("id"), height, width); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (s execs) inspect(w http.ResponseWriter, r *http.Request) error {
	e, err := s.engine.ExecInspect(r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, e)
}
