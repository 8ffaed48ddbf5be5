package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/distribution/reference"

	"berth/fault"
)

// Codes of the distribution specification ("Error codes") that change what is done or said.
const (
	codeBlobUnknown   = "BLOB_UNKNOWN"
	codeDenied        = "DENIED"
	codeNameUnknown   = "NAME_UNKNOWN"
	codeTooMany       = "TOOMANYREQUESTS"
	codeUploadUnknown = "BLOB_UPLOAD_UNKNOWN"
)

const (
	wordsDenied       = "denied: requested access to the resource is denied"
	wordsUnauthorized = "unauthorized: incorrect username or password"
)

// problem is an answer other than success.
type problem struct {
	status int
	url    string // without query
	code   string // of the first error in the body; "" = none
	text   string
	after  string // Retry-After
	quota  string // what is left of it, in words; "" = not told
	token  bool   // the token server's answer
}

// readProblem reads an error response; its body stays the caller's to close.
func readProblem(resp *http.Response) *problem {
	p := &problem{status: resp.StatusCode, after: resp.Header.Get("Retry-After"), quota: quota(resp.Header)}
	if resp.Request != nil {
		p.url = public(resp.Request.URL)
	}
	data, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // what can't be read tells nothing
	p.code, p.text = parseProblem(data)
	if wanted, ok := parseChallenges(resp.Header.Values("Www-Authenticate")); ok && wanted.refused {
		p.code, p.text = codeDenied, "requested access to the resource is denied"
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
		return readable(body.Errors[0].Code), readable(body.Errors[0].Message)
	}
	return "", readable(body.Details)
}

// readable is a registry's text as it may go to a terminal: one line of a sensible length.
func readable(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, s)
	const limit = 2000
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + "…"
	}
	return s
}

// quota reads the headers that tell of a limit: "0;w=21600" are none left in a window of so many seconds.
func quota(h http.Header) string {
	limit, window, _ := strings.Cut(h.Get("Ratelimit-Limit"), ";w=")
	left, _, _ := strings.Cut(h.Get("Ratelimit-Remaining"), ";")
	most, err1 := strconv.ParseUint(limit, 10, 32)
	some, err2 := strconv.ParseUint(left, 10, 32)
	if err1 != nil || err2 != nil {
		return ""
	}
	words := fmt.Sprintf("%d of %d left", some, most)
	if seconds, err := strconv.ParseUint(window, 10, 31); err == nil && seconds > 0 {
		span := strings.Replace((time.Duration(seconds) * time.Second).String(), "m0s", "m", 1)
		words += " in " + strings.Replace(span, "h0m", "h", 1)
	}
	return words
}

// Error is the cause in the words that Docker prints: "manifest unknown: manifest unknown".
func (p *problem) Error() string {
	code := strings.ToLower(strings.ReplaceAll(p.code, "_", " "))
	tail := ""
	if p.quota != "" && p.status == http.StatusTooManyRequests {
		tail = " (" + p.quota + ")"
	}
	switch {
	case code != "" && p.text != "":
		return code + ": " + p.text + tail
	case code != "" || p.text != "":
		return code + p.text + tail
	case p.status == http.StatusTooManyRequests:
		return "toomanyrequests: too many requests" + tail
	}
	return fmt.Sprintf("the registry answers %s with status %d %s", p.url, p.status, http.StatusText(p.status))
}

// settled tells whether an error has a kind, or is the caller's own doing.
func settled(err error) bool {
	return err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || fault.Of(err) != ""
}

// translate gives an error of a pull Docker's words and a kind. ref is what was asked for.
func (r *Repository) translate(err error, ref reference.Named) error {
	if settled(err) {
		return err
	}
	var p *problem
	if errors.As(err, &p) {
		return r.refusal(p, ref)
	}
	if errors.Is(err, errNoCredentials) {
		return fault.New(fault.Unauthorized, "failed to resolve reference %q: %w for %s, log in first", ref, err, reference.Domain(ref))
	}
	if reference.IsNameOnly(ref) {
		return fault.New(fault.Unavailable, "failed to fetch from %s: %w", ref, err)
	}
	return fault.New(fault.Unavailable, "failed to resolve reference %q: failed to do request: %w", ref, err)
}

func (r *Repository) refusal(p *problem, ref reference.Named) error {
	anonymous := r.auth == (Auth{})
	switch {
	case p.code == codeNameUnknown || p.code == codeDenied || p.status == http.StatusForbidden:
		return noPull(ref, p)
	case p.status == http.StatusUnauthorized && anonymous:
		return noPull(ref, errors.New(wordsDenied))
	case p.status == http.StatusUnauthorized:
		return wrongPassword(p)
	case p.status == http.StatusNotFound && p.code == codeBlobUnknown:
		return fault.New(fault.NotFound, "%s: %w", ref, p)
	case p.status == http.StatusNotFound && !p.token:
		return fault.New(fault.NotFound, "failed to resolve reference %q: %s: not found", ref, ref)
	}
	return p.outage(ref.String())
}

// pushError gives an error of a push Docker's words and a kind.
func (r *Repository) pushError(err error) error {
	if settled(err) {
		return err
	}
	var p *problem
	switch {
	case errors.Is(err, errNoCredentials):
		return fault.New(fault.Unauthorized, "%w for %s, log in first", err, reference.Domain(r.name))
	case !errors.As(err, &p):
		return fault.New(fault.Unavailable, "failed to push to %s: %w", r.name, err)
	case p.code == codeDenied || p.status == http.StatusForbidden && p.text == "":
		return fault.New(fault.Denied, wordsDenied)
	case p.status == http.StatusForbidden:
		return fault.Wrap(fault.Denied, p)
	case p.status == http.StatusUnauthorized && r.auth == (Auth{}) && p.token && p.text != "":
		return fault.Wrap(fault.Unauthorized, p)
	case p.status == http.StatusUnauthorized && r.auth == (Auth{}):
		return fault.New(fault.Unauthorized, "unauthorized: authentication required")
	case p.status == http.StatusUnauthorized:
		return wrongPassword(p)
	case p.status == http.StatusNotFound:
		return fault.New(fault.NotFound, "%s: %w", r.name, p)
	}
	return p.outage(r.name.String())
}

// outage is a problem that is neither the user's nor the content's.
func (p *problem) outage(what string) error {
	switch {
	case p.passing() && p.after != "":
		return fault.New(fault.Unavailable, "%s: %w (it asks to come back after %s)", what, p, p.after)
	case p.passing() || p.status >= 500:
		return fault.New(fault.Unavailable, "%s: %w", what, p)
	}
	return fmt.Errorf("%s: %w", what, p)
}

// wrongPassword is the refusal of credentials, in the token server's words if it has some.
func wrongPassword(p *problem) error {
	if p.token && p.code == "" && p.text != "" {
		return fault.New(fault.Unauthorized, "unauthorized: %s", p.text)
	}
	return fault.New(fault.Unauthorized, wordsUnauthorized)
}

func noPull(ref reference.Named, why error) error {
	return fault.New(fault.NotFound, "pull access denied for %s, repository does not exist or may require 'docker login': %w", reference.FamiliarName(ref), why)
}
