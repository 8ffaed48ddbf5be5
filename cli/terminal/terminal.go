// Package terminal tells what is known of the terminal behind a stream, and changes its mode.
//
// It draws nothing. Invariant: a stream that is no terminal is left alone and is no error.
package terminal

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"
)

// File gives the file behind a stream; nil when it is none.
func File(stream any) *os.File {
	f, _ := stream.(*os.File)
	return f
}

// Is tells whether a stream is a terminal.
func Is(stream any) bool {
	f := File(stream)
	return f != nil && term.IsTerminal(int(f.Fd()))
}

// Raw takes the terminal that in is into raw mode; the result gives it back. Without a terminal nothing is done.
func Raw(in any) (restore func(), err error) {
	f := File(in)
	if f == nil || !Is(f) {
		return func() {}, nil
	}
	before, err := term.MakeRaw(int(f.Fd()))
	if err != nil {
		return nil, err
	}
	return func() { term.Restore(int(f.Fd()), before) }, nil
}

// Size gives height and width of the terminal that out is; zeros when it is none.
func Size(out any) (height, width int) {
	f := File(out)
	if f == nil {
		return 0, 0
	}
	w, h, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0, 0
	}
	return h, w
}

// FollowSize tells resize the terminal's size now and whenever it changes, until stop is called.
func FollowSize(out any, resize func(height, width int) error) (stop func()) {
	if !Is(out) {
		return func() {}
	}
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	done := make(chan struct{})
	go func() {
		for {
			if h, w := Size(out); h > 0 {
				resize(h, w) // a process that has just ended has no size any more
			}
			select {
			case <-changed:
			case <-done:
				return
			}
		}
	}()
	return func() {
		signal.Stop(changed)
		close(done)
	}
}
