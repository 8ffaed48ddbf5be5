package fault_test

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"berth/fault"
)

func TestKindIsFoundThroughWrapping(t *testing.T) {
	base := fault.New(fault.NotFound, "no such container: %s", "x")
	err := fmt.Errorf("start x: %w", base)
	if !errors.Is(err, fault.NotFound) || errors.Is(err, fault.Conflict) {
		t.Errorf("errors.Is on %v sees the wrong kind", err)
	}
	if got, want := err.Error(), "start x: no such container: x"; got != want {
		t.Errorf("message %q, want %q", got, want)
	}
	if fault.Of(err) != fault.NotFound || fault.Of(errors.New("x")) != "" || fault.Of(nil) != "" {
		t.Error("Of gives the wrong kind")
	}
	if outer := fault.Wrap(fault.Conflict, err); fault.Of(outer) != fault.Conflict {
		t.Errorf("the outermost kind wins, got %q", fault.Of(outer))
	}
}

func TestWrapKeepsCause(t *testing.T) {
	err := fault.Wrap(fault.NotFound, fs.ErrNotExist)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Error("the cause is lost")
	}
	if fault.Wrap(fault.Invalid, nil) != nil {
		t.Error("Wrap of nil is not nil")
	}
}

type closer struct{ err error }

func (c closer) Close() error { return c.err }

func TestCloseKeepsBothErrors(t *testing.T) {
	first, second := errors.New("first"), errors.New("second")
	err := first
	fault.Close(closer{second}, &err)
	if !errors.Is(err, first) || !errors.Is(err, second) {
		t.Errorf("an error is lost: %v", err)
	}
}
