package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"berth/internal/kerneltest"
)

// load starts n containers by 8 clients on our own engine alone, asks for all of them, and stops them: what a
// full machine feels like. One bridge takes 1,023 of them.
func load(n int) error {
	e, err := newEngine("berth")
	if err != nil {
		return err
	}
	if err := e.start(); err != nil {
		return err
	}
	defer e.stop()
	memory := func(what string) {
		if mb, err := rss(e.daemon()); err == nil {
			fmt.Printf("%-44s %10.1f MB\n", what, mb)
		}
	}
	memory("daemon, no containers")
	step := func(what string, run func() error) error {
		begin := time.Now()
		if err := run(); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		fmt.Printf("%-44s %10.1f ms\n", what, float64(time.Since(begin).Microseconds())/1000)
		return nil
	}
	client := func(args ...string) func() error {
		return func() error { _, err := timed(e.client(args...)); return err }
	}
	all := names(n)
	if err := step(fmt.Sprintf("%d x run -d, by 8 clients", n), func() error { return runMany(e, n, 8) }); err != nil {
		return err
	}
	defer func() {
		if err := step(fmt.Sprintf("rm -f of %d", n), client(append([]string{"rm", "-f"}, all...)...)); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		fmt.Printf("%-44s %10d\n", "control groups left", leftGroups())
	}()
	memory("daemon, all running")
	if mb, err := supervisorPSS(e, n); err == nil {
		fmt.Printf("%-44s %10.2f MB\n", "supervisor of each (PSS)", mb)
	}
	for _, s := range []struct {
		what string
		args []string
	}{
		{"ps", []string{"ps", "-q"}},
		{"ps again", []string{"ps", "-q"}},
		{"ps, its table", []string{"ps"}},
		{"inspect of all", append([]string{"inspect", "--format", "{{.State.Pid}}"}, all...)},
		{"stats --no-stream (a second between samples)", []string{"stats", "--no-stream"}},
		{"exec in the last", []string{"exec", all[n-1], "true"}},
		{"one more run --rm", []string{"run", "--rm", "busybox", "true"}},
		{fmt.Sprintf("kill of %d", n), append([]string{"kill"}, all...)},
		{fmt.Sprintf("start of %d", n), append([]string{"start"}, all...)},
		{fmt.Sprintf("stop of %d", n), append([]string{"stop"}, all...)},
	} {
		if err := step(s.what, client(s.args...)); err != nil {
			return err
		}
	}
	memory("daemon, after them")
	return nil
}

// leftGroups counts the control groups below our parent, which must be none when no container is left.
func leftGroups() (n int) {
	roots, _ := filepath.Glob("/sys/fs/cgroup/*")
	for _, root := range append(roots, "/sys/fs/cgroup") {
		out, err := exec.Command("find", filepath.Join(root, kerneltest.CgroupParent(), "berth"), "-mindepth", "1", "-type", "d").Output()
		if err == nil {
			n += strings.Count(string(out), "\n")
		}
	}
	return n
}
