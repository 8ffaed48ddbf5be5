package session

import (
	"errors"
	"fmt"
	"strings"

	"berth/cli/terminal"
	"berth/fault"

	"github.com/spf13/cobra"
)

// Exit is an error that sets the process's exit code. With an empty message nothing is printed.
type Exit struct {
	Code    int
	Message string
}

// Error is what is printed.
func (e *Exit) Error() string { return e.Message }

// Failed wraps an error of run and its like: the program's name before it, where to read on after it.
func Failed(cmd *cobra.Command, code int, err error) error {
	var i *terminal.Interrupt
	if errors.As(err, &i) {
		return i
	}
	return &Exit{code, fmt.Sprintf("%s: %s\n\nRun '%s --help' for more information", Name, strings.TrimSuffix(err.Error(), "."), cmd.CommandPath())}
}

// Tolerated is an error that is told and doesn't count.
type Tolerated struct{ Err error }

// Error is what is told.
func (t Tolerated) Error() string { return t.Err.Error() }

// Each runs do for every argument, goes on after failures, and reports them all.
func (s *Session) Each(args []string, do func(string) error) error {
	var all []string
	for _, a := range args {
		err := do(a)
		if _, ok := err.(Tolerated); ok {
			fmt.Fprintln(s.Err, err)
		} else if err != nil {
			all = append(all, err.Error())
		}
	}
	if len(all) > 0 {
		return &Exit{1, strings.Join(all, "\n")}
	}
	return nil
}

// OnlyOurs explains why another engine doesn't know a command of ours; other errors stay as they are.
func (s *Session) OnlyOurs(err error, command string) error {
	if errors.Is(err, fault.NotFound) && strings.Contains(err.Error(), "page not found") {
		return fault.New(fault.Unsupported, "%s: the engine that answers here is not berth, and has no such thing", command)
	}
	return err
}
