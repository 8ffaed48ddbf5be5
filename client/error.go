package client

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"berth/fault"
)

// Error is an answer of the daemon that refuses a request.
type Error struct {
	Status  int    // of HTTP
	Message string // the daemon's own words
}

func (e *Error) Error() string { return "Error response from daemon: " + e.Message }

// kinds maps the API's status codes to what a caller can act on.
var kinds = map[int]fault.Kind{
	304: fault.NotModified,
	400: fault.Invalid,
	401: fault.Unauthorized,
	403: fault.Denied,
	404: fault.NotFound,
	409: fault.Conflict,
	501: fault.Unsupported,
	503: fault.Unavailable,
}

// Unwrap gives the fault's kind; nil when the status has none.
func (e *Error) Unwrap() error {
	if k, ok := kinds[e.Status]; ok {
		return k
	}
	return nil
}

// failure reads the daemon's message and closes the response.
func (r *Response) failure() error {
	defer r.Close()
	e := &Error{Status: r.Status}
	body, err := io.ReadAll(io.LimitReader(r, 1<<20))
	if err != nil {
		return fmt.Errorf("read the daemon's refusal (status %d): %w", r.Status, err)
	}
	var said struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &said) == nil && said.Message != "" {
		e.Message = strings.TrimSpace(said.Message)
	} else if e.Message = strings.TrimSpace(string(body)); e.Message == "" {
		e.Message = fmt.Sprintf("status %d without a message", r.Status)
	}
	return e
}
