package engine

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
	"github.com/moby/moby/api/types/events"
)

// Top lists its processes as the host's ps prints them; args "" is -ef.
func (c *views) Top(ctx context.Context, ref, args string) (api.TopResponse, error) {
	i, err := c.index.Get(ref)
	if err != nil {
		return api.TopResponse{}, err
	}
	live, err := i.current()
	if err != nil {
		return api.TopResponse{}, err
	}
	pids, err := live.shim.Pids(ctx)
	if err != nil {
		return api.TopResponse{}, err
	}
	words := strings.Fields(args)
	if len(words) == 0 {
		words = []string{"-ef"}
	}
	out, err := runPS(ctx, words, pids)
	if err != nil {
		return api.TopResponse{}, err
	}
	top, err := parsePS(out, pids)
	if err == nil {
		c.announce(i.record(), events.ActionTop)
	}
	return top, err
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
	if bad := (*exec.ExitError)(nil); errors.As(err, &bad) {
		return nil, invalid("error running ps %s: %s", strings.Join(args, " "), strings.TrimSpace(string(bad.Stderr)))
	}
	if err != nil {
		return nil, fmt.Errorf("error running ps: %w (the host needs the program ps)", err)
	}
	return out, nil
}

// parsePS keeps the lines of the given processes. Only the last column may hold spaces.
func parsePS(out []byte, pids []int) (api.TopResponse, error) {
	lines := bytes.Split(bytes.TrimRight(out, "\n"), []byte("\n"))
	titles := strings.Fields(string(lines[0]))
	column := slices.Index(titles, "PID")
	if column < 0 {
		return api.TopResponse{}, fault.New(fault.Invalid, "Couldn't find PID field in ps output")
	}
	top := api.TopResponse{Titles: titles, Processes: [][]string{}}
	for _, line := range lines[1:] {
		fields := strings.Fields(string(line))
		if len(fields) <= column {
			continue
		}
		pid, err := strconv.Atoi(fields[column])
		if err != nil || !slices.Contains(pids, pid) {
			continue
		}
		if last := len(titles) - 1; len(fields) > len(titles) {
			fields = append(fields[:last:last], strings.Join(fields[last:], " "))
		}
		top.Processes = append(top.Processes, fields)
	}
	return top, nil
}
