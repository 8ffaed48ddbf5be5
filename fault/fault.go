// Package fault names the few kinds of failure that callers act on.
//
// It is not an error library: messages are made with fmt.Errorf where the
// cause is known, and a kind is mixed in by Wrap or by %w. Invariant: a kind is itself
// an error, so errors.Is(err, fault.NotFound) holds through any wrapping.
// Anything without a kind is internal.
package fault

import (
	"errors"
	"fmt"
)

// Kind is one of the failures that a caller can act on.
type Kind string

// Error makes a kind usable as the target of errors.Is.
func (k Kind) Error() string { return string(k) }

// The kinds. The daemon maps them to HTTP status codes and the client to exit codes, in one table each.
const (
	Invalid      Kind = "invalid argument"
	NotFound     Kind = "not found"
	Exists       Kind = "already exists"
	Conflict     Kind = "conflict"
	Denied       Kind = "denied"
	Unsupported  Kind = "unsupported"
	Unavailable  Kind = "unavailable"
	Canceled     Kind = "canceled"
	Corrupt      Kind = "corrupt"
	NotModified  Kind = "not modified" // the object is in the wanted state already
	Unauthorized Kind = "unauthorized"
)

var kinds = []Kind{Invalid, NotFound, Exists, Conflict, Denied, Unsupported, Unavailable, Canceled, Corrupt, NotModified, Unauthorized}

// failure is a message that carries a kind without printing it.
type failure struct {
	kind Kind
	err  error
}

func (f *failure) Error() string   { return f.err.Error() }
func (f *failure) Unwrap() []error { return []error{f.kind, f.err} }

// New returns an error of kind k with a formatted message; %w works as in fmt.Errorf.
// The kind's own name does not show in the message.
func New(k Kind, format string, args ...any) error {
	return &failure{k, fmt.Errorf(format, args...)}
}

// Wrap gives err the kind k and keeps its message. Wrap(k, nil) is nil.
func Wrap(k Kind, err error) error {
	if err == nil {
		return nil
	}
	return &failure{k, err}
}

// Of returns the outermost kind in err, or "" when it has none.
func Of(err error) Kind {
	var f *failure
	if errors.As(err, &f) {
		return f.kind
	}
	for _, k := range kinds {
		if errors.Is(err, k) {
			return k
		}
	}
	return ""
}

// Close closes c and joins its error to *err; for use in defer, so that a late write error is never lost.
func Close(c interface{ Close() error }, err *error) {
	*err = errors.Join(*err, c.Close())
}
