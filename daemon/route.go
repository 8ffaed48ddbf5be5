package daemon

import (
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"

	"berth/fault"
)

// handler answers one request. An error that it returns becomes the answer,
// unless something was written before.
type handler func(w http.ResponseWriter, r *http.Request) error

// route is one row of the API: a method, a path pattern of net/http without the version prefix, and what serves it.
type route struct {
	method  string
	pattern string
	handle  handler
}

// adapt turns a handler into net/http's form.
func (s *Server) adapt(h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		t := &tracked{ResponseWriter: w}
		defer s.caught(t, r)
		if err := h(t, r); err != nil {
			s.log.Debug("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
			if !t.started {
				writeError(w, err)
			}
		}
	}
}

// caught tells of a handler that panicked, by name and with its stack, whatever is logged: the client sees only that its answer broke off.
func (s *Server) caught(t *tracked, r *http.Request) {
	cause := recover()
	if cause == nil {
		return
	}
	if cause != http.ErrAbortHandler { // how a handler cuts an answer short
		s.log.Error("request panicked", "method", r.Method, "path", r.URL.Path, "cause", cause, "stack", string(debug.Stack()))
		if !t.started {
			writeMessage(t, http.StatusInternalServerError, "the daemon failed at this request: its log tells where")
			return
		}
	}
	panic(http.ErrAbortHandler)
}

// tracked remembers whether an answer has begun.
type tracked struct {
	http.ResponseWriter
	started bool
}

func (t *tracked) WriteHeader(code int)        { t.started = true; t.ResponseWriter.WriteHeader(code) }
func (t *tracked) Write(p []byte) (int, error) { t.started = true; return t.ResponseWriter.Write(p) }

// Unwrap lets http.ResponseController reach Flush and Hijack.
func (t *tracked) Unwrap() http.ResponseWriter { return t.ResponseWriter }

// flag reads a boolean query value as the API always has: anything but "", "0", "no", "false" and "none" is true.
func flag(q url.Values, name string) bool {
	switch strings.ToLower(strings.TrimSpace(q.Get(name))) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

// number reads an integer query value; an absent one is missing.
func number(q url.Values, name string, missing int) (int, error) {
	v := q.Get(name)
	if v == "" {
		return missing, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		return 0, fault.New(fault.Invalid, "query value %s=%q is not a number", name, v)
	}
	return n, nil
}
