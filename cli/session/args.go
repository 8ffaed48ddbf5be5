package session

import (
	"fmt"

	"berth/cli/format"

	"github.com/spf13/cobra"
)

// The numbers of arguments that a command takes.

// NoArgs takes none.
func NoArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return countError(cmd, "accepts no arguments")
	}
	return nil
}

// Exactly takes n of them.
func Exactly(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return countError(cmd, "requires "+format.Count(int64(n), "argument"))
		}
		return nil
	}
}

// AtLeast takes n or more.
func AtLeast(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < n {
			return countError(cmd, "requires at least "+format.Count(int64(n), "argument"))
		}
		return nil
	}
}

// Between takes low to high of them.
func Between(low, high int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < low || len(args) > high {
			if low == 0 {
				return countError(cmd, "requires at most "+format.Count(int64(high), "argument"))
			}
			return countError(cmd, fmt.Sprintf("requires at least %d and at most %s", low, format.Count(int64(high), "argument")))
		}
		return nil
	}
}

func countError(cmd *cobra.Command, why string) error {
	return &Exit{1, fmt.Sprintf("%s: '%s' %s\n\nUsage:  %s\n\nRun '%s --help' for more information", Name, cmd.CommandPath(), why, cmd.UseLine(), cmd.CommandPath())}
}
