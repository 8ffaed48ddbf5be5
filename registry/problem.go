package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/distribution/reference"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"berth/fault"
)

// problem is a registry's answer other than success.
type problem struct {
	status int
	url    string
	code   string // of the first error in the body (distribution specification, "Error codes"); "" = none
	text   string
	after  string // Retry-After
}

// readProblem reads an error response; its body stays the caller's to close.
func readProblem(resp *http.Response) *problem {
	p := &problem{status: resp.StatusCode, after: resp.Header.Get("Retry-After")}
	if resp.Request != nil {
		p.url = resp.Request.URL.Redacted()
	}
	data, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // what can't be read tells nothing
	p.code, p.text = parseProblem(data)
	if strings.Contains(resp.Header.Get("Www-Authenticate"), "insufficient_scope") {
		p.code, p.text = errcode.ErrorCodeDenied, "requested access to the resource is denied"
	}
	return p
}

// parseProblem reads the body of an error response as far as it makes sense.
func parseProblem(data []byte) (code, text string) {
	var body struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
		Details string `json:"details"`
	}
	if json.Unmarshal(data, &body) != nil {
		return "", ""
	}
	if len(body.Errors) > 0 {
		return body.Errors[0].Code, body.Errors[0].Message
	}
	return "", body.Details
}

// Error is the cause in the words that Docker prints: "manifest unknown: manifest unknown".
func (p *problem) Error() string {
	code := strings.ToLower(strings.ReplaceAll(p.code, "_", " "))
	if p.code == "TOOMANYREQUESTS" {
		code = "toomanyrequests"
	}
	switch {
	case code != "" && p.text != "":
		return code + ": " + p.text
	case code != "" || p.text != "":
		return code + p.text
	}
	return fmt.Sprintf("the registry answers %s with status %d %s", p.url, p.status, http.StatusText(p.status))
}

// translate gives an error Docker's words and a kind. ref is what was asked for.
func (r *Repository) translate(err error, ref reference.Named) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || fault.Of(err) != "" {
		return err
	}
	var p *problem
	if errors.As(err, &p) {
		return r.refusal(p, ref)
	}
	var token *errcode.ErrorResponse
	switch {
	case errors.As(err, &token):
		return r.tokenRefusal(token, ref)
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		return fault.New(fault.Unauthorized, "failed to resolve reference %q: no basic auth credentials for %s, log in first", ref, reference.Domain(ref))
	}
	if reference.IsNameOnly(ref) {
		return fault.New(fault.Unavailable, "failed to fetch from %s: %w", ref, err)
	}
	return fault.New(fault.Unavailable, "failed to resolve reference %q: failed to do request: %w", ref, err)
}

func (r *Repository) refusal(p *problem, ref reference.Named) error {
	switch {
	case p.code == errcode.ErrorCodeNameUnknown || p.code == errcode.ErrorCodeDenied || p.status == http.StatusForbidden:
		return denied(ref, p)
	case p.status == http.StatusUnauthorized && r.auth == (Auth{}):
		return denied(ref, errors.New("denied: requested access to the resource is denied"))
	case p.status == http.StatusUnauthorized:
		return fault.New(fault.Unauthorized, "unauthorized: incorrect username or password")
	case p.status == http.StatusNotFound && p.code == errcode.ErrorCodeBlobUnknown:
		return fault.New(fault.NotFound, "%s: %w", ref, p)
	case p.status == http.StatusNotFound:
		return fault.New(fault.NotFound, "failed to resolve reference %q: %s: not found", ref, ref)
	case p.status == http.StatusTooManyRequests && p.after != "":
		return fault.New(fault.Unavailable, "%s: %w (it asks to come back after %s)", ref, p, p.after)
	case p.status == http.StatusTooManyRequests || p.status >= 500:
		return fault.New(fault.Unavailable, "%s: %w", ref, p)
	}
	return fmt.Errorf("%s: %w", ref, p)
}

// tokenRefusal is a refusal by the token server.
func (r *Repository) tokenRefusal(e *errcode.ErrorResponse, ref reference.Named) error {
	switch {
	case e.StatusCode == http.StatusUnauthorized && r.auth != (Auth{}):
		return fault.New(fault.Unauthorized, "unauthorized: incorrect username or password")
	case e.StatusCode == http.StatusUnauthorized || e.StatusCode == http.StatusForbidden:
		return denied(ref, errors.New("denied: requested access to the resource is denied"))
	}
	return fault.New(fault.Unavailable, "failed to resolve reference %q: get a token: %w", ref, e)
}

func denied(ref reference.Named, why error) error {
	return fault.New(fault.NotFound, "pull access denied for %s, repository does not exist or may require 'docker login': %w", reference.FamiliarName(ref), why)
}
