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

// Interrupt is the signal that ended what the user was doing.
type Interrupt struct {
	Signal os.Signal
	Note   string // what becomes of it; "" is nothing to say
}

// Error is the note.
func (i *Interrupt) Error() string { return i.Note }

// Code is the exit code of a program that a signal ended (sh(1)).
func (i *Interrupt) Code() int {
	if n, ok := i.Signal.(syscall.Signal); ok {
		return 128 + int(n)
	}
	return 1
}

// ReadSecret reads one line from the terminal that in is, which doesn't show it. However it ends, the terminal
// is as it was; a signal that asks the program to end comes back as *Interrupt.
func ReadSecret(in any) (string, error) {
	f := File(in)
	if f == nil {
		return "", os.ErrInvalid
	}
	fd := int(f.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", err
	}
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(caught)
	type line struct {
		text []byte
		err  error
	}
	read := make(chan line, 1)
	go func() {
		text, err := term.ReadPassword(fd)
		read <- line{text, err}
	}()
	select {
	case l := <-read:
		return string(l.text), l.err
	case sig := <-caught:
		term.Restore(fd, before) // the read goes on until the process ends
		return "", &Interrupt{Signal: sig}
	}
}
