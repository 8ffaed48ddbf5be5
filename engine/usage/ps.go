package usage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"berth/fault"

	api "github.com/moby/moby/api/types/container"
)

// Processes lists those of pids as the host's ps prints them; no args are -ef. fault.Invalid: ps does not take
// the arguments, or prints no PID column with them.
func Processes(ctx context.Context, args []string, pids []int) (api.TopResponse, error) {
	if len(args) == 0 {
		args = []string{"-ef"}
	}
	for _, a := range args {
		// A column that only calls itself PID would choose processes of others.
		for column := range strings.SplitSeq(a, ",") {
			if name, title, _ := strings.Cut(column, "="); strings.HasPrefix(title, "PID") && strings.TrimPrefix(name, "-o") != "pid" {
				return api.TopResponse{}, fault.New(fault.Invalid, "specifying %q is not allowed", column)
			}
		}
	}
	out, err := runPS(ctx, args, pids)
	if err != nil {
		return api.TopResponse{}, err
	}
	return parsePS(out, pids)
}

// runPS asks only for the container's processes where the host's ps can do that with these
// arguments (procps), else for all.
func runPS(ctx context.Context, args []string, pids []int) ([]byte, error) {
	list := make([]string, len(pids))
	for k, p := range pids {
		list[k] = strconv.Itoa(p)
	}
	if out, err := exec.CommandContext(ctx, "ps", append(slices.Clone(args), "-q"+strings.Join(list, ","))...).Output(); err == nil {
		return out, nil
	}
	out, err := exec.CommandContext(ctx, "ps", args...).Output()
	bad := (*exec.ExitError)(nil)
	switch {
	case errors.As(err, &bad):
		why, _, _ := strings.Cut(strings.TrimSpace(string(bad.Stderr)), "\n") // a page of usage follows
		return nil, fault.New(fault.Invalid, "error running ps %s: %s", strings.Join(args, " "), why)
	case errors.Is(err, exec.ErrNotFound):
		return nil, fault.New(fault.Unavailable, "error running ps: the engine's host has no such program, which lists the processes; install it (Debian: procps), or run ps inside the container by exec")
	case err != nil:
		return nil, fmt.Errorf("error running ps: %w", err)
	}
	return out, nil
}

// parsePS keeps the lines of the given processes. Only the last column may hold spaces.
func parsePS(out []byte, pids []int) (api.TopResponse, error) {
	lines := bytes.Split(bytes.TrimRight(out, "\n"), []byte("\n"))
	titles := fields(string(lines[0]))
	column := slices.Index(titles, "PID")
	if column < 0 {
		return api.TopResponse{}, fault.New(fault.Invalid, "Couldn't find PID field in ps output")
	}
	top := api.TopResponse{Titles: titles, Processes: [][]string{}}
	for _, line := range lines[1:] {
		row := fields(string(line))
		if len(row) <= column {
			continue
		}
		pid, err := strconv.Atoi(row[column])
		if err != nil || !slices.Contains(pids, pid) {
			continue
		}
		if last := len(titles) - 1; len(row) > len(titles) {
			row = append(row[:last:last], strings.Join(row[last:], " "))
		}
		top.Processes = append(top.Processes, row)
	}
	return top, nil
}

// fields splits at ASCII's white space alone: other kinds are part of a program's name.
func fields(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r >= '\t' && r <= '\r' })
}
