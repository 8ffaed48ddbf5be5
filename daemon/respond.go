package daemon

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"

	"berth/fault"
	"github.com/moby/moby/api/types/common"
)

// statusOf is the one table from kinds of failure to HTTP status codes.
func statusOf(err error) int {
	switch fault.Of(err) {
	case fault.Invalid:
		return http.StatusBadRequest
	case fault.Unauthorized:
		return http.StatusUnauthorized
	case fault.Denied:
		return http.StatusForbidden
	case fault.NotFound:
		return http.StatusNotFound
	case fault.Exists, fault.Conflict:
		return http.StatusConflict
	case fault.NotModified:
		return http.StatusNotModified
	case fault.Unsupported:
		return http.StatusNotImplemented
	case fault.Unavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// writeError answers with err. Without a kind it is our own failure: 500.
func writeError(w http.ResponseWriter, err error) {
	status := statusOf(err)
	if status == http.StatusNotModified {
		w.WriteHeader(status)
		return
	}
	writeMessage(w, status, err.Error())
}

func writeMessage(w http.ResponseWriter, status int, message string) {
	writeJSON(w, status, common.ErrorResponse{Message: message})
}

// writeJSON answers with v. Angle brackets and ampersands stay as they are, as in every engine before.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// readJSON reads the request's body into v. An empty body leaves v alone when that is allowed.
func readJSON(r *http.Request, v any, mayBeEmpty bool) error {
	if ct := r.Header.Get("Content-Type"); ct != "" && r.ContentLength != 0 &&
		!strings.HasPrefix(strings.ToLower(ct), "application/json") {
		return fault.New(fault.Invalid, "unsupported Content-Type header (%s): must be 'application/json'", ct)
	}
	dec := json.NewDecoder(r.Body)
	err := dec.Decode(v)
	if errors.Is(err, io.EOF) {
		if mayBeEmpty {
			return nil
		}
		return fault.New(fault.Invalid, "invalid JSON: got EOF while reading request body")
	}
	if err != nil {
		return fault.New(fault.Invalid, "invalid JSON: %w", err)
	}
	if dec.More() {
		return fault.New(fault.Invalid, "unexpected content after JSON")
	}
	return nil
}
