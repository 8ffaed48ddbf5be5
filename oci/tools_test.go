package oci

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/internal/kerneltest"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestToolsAreForTheProcessAlone: a process gets a directory of the host at its side, and the container sees nothing of it.
func TestToolsAreForTheProcessAlone(t *testing.T) {
	kerneltest.Root(t)
	root := newRoot(t)
	one, two := t.TempDir(), t.TempDir()
	for dir, name := range map[string]string{one: "first", two: "second"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\necho from "+name+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	bind := specs.Mount{Destination: "/proc/fs", Type: "bind", Source: one, Options: []string{"bind", "ro", "nosuid", "nodev", "private"}}
	overlay := specs.Mount{Destination: "/proc/fs", Type: "overlay", Source: "overlay", Options: []string{"lowerdir+=" + one, "lowerdir+=" + two, "ro", "nosuid", "nodev"}}
	for _, c := range []struct {
		name     string
		tools    specs.Mount
		readOnly bool
		want     string
	}{
		{"a directory", bind, false, "from first\n"},
		{"layers", overlay, false, "from first\nfrom second\n"},
		{"a read-only root", overlay, true, "from first\nfrom second\n"},
	} {
		b := newBundle(t, root, "sh", "-c", "while :; do ls /proc/fs/first && exit 3; sleep 0.01; done")
		b.Spec.Root.Readonly = c.readOnly
		b.Spec.Linux.ReadonlyPaths = []string{"/proc/fs"}
		p := sleeper(t, b)
		e := execSpec(b, "sh", "-c", "for f in /proc/fs/first /proc/fs/second; do ! [ -e $f ] || $f; done; echo x >/proc/fs/first; ls /proc/1/root/proc/fs/first; grep -c ' /proc/fs ' /proc/1/mountinfo; grep -c ' /proc/fs ' /proc/self/mountinfo")
		e.Tools = []specs.Mount{c.tools}
		r, err := execIn(t, p, b, e)
		if err != nil {
			t.Fatal(err)
		}
		if r.out != c.want+"1\n2\n" || !strings.Contains(r.err, "Read-only file system") || !strings.Contains(r.err, "/proc/1/root/proc/fs/first: No such file") {
			t.Errorf("%s: got %+v", c.name, r)
		}
		// The next process has none.
		if r, err := execIn(t, p, b, execSpec(b, "ls", "/proc/fs/first")); err != nil || r.exit.Code == 0 {
			t.Errorf("%s: an ordinary process sees tools: %+v, %v", c.name, r, err)
		}
		// Nothing to put them at: the process isn't started.
		e.Tools[0].Destination = "/nowhere"
		if _, err := execIn(t, p, b, e); err == nil || !strings.Contains(err.Error(), "no directory /nowhere") {
			t.Errorf("%s: got %v", c.name, err)
		}
	}
}

// TestToolsAsRoot: programs that need their own root get it, with the container's at a directory, and the container doesn't notice.
func TestToolsAsRoot(t *testing.T) {
	kerneltest.Root(t)
	tools, hostile := newRoot(t), newRoot(t)
	for _, dir := range []string{"mnt", "only-tools"} {
		if err := os.Mkdir(filepath.Join(tools, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"mnt": "/", "srv": "../../.."} {
		if err := os.Symlink(to, filepath.Join(hostile, link)); err != nil {
			t.Fatal(err)
		}
	}
	root := newRoot(t)
	b := newBundle(t, root, "sleep", "1000")
	p := sleeper(t, b)
	e := execSpec(b, "sh", "-c", "ls -d /only-tools /mnt/only-tools; echo mine >/mnt/tmp/file; echo x >/only-tools/file; pwd; ls /proc/1/root/only-tools; head -c 0 /dev/null && ps | grep -c '[s]leep 1000$'; grep -c overlay /proc/1/mountinfo")
	e.Tools = []specs.Mount{{Destination: "/proc/fs", Type: "bind", Source: tools, Options: []string{"bind", "ro", "nosuid", "nodev", "private"}}}
	e.ToolsRoot, e.Process.Cwd = "mnt", "/mnt/tmp"
	r, err := execIn(t, p, b, e)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(r.out, "/only-tools\n/mnt/tmp\n") || !strings.Contains(r.err, "/mnt/only-tools: No such file") || !strings.Contains(r.err, "Read-only file system") ||
		!strings.Contains(r.err, "/proc/1/root/only-tools: No such file") || !strings.Contains(r.out, "\n1\n") {
		t.Errorf("got %+v", r)
	}
	if data, err := os.ReadFile(filepath.Join(root, "tmp/file")); err != nil || string(data) != "mine\n" {
		t.Errorf("the container's file: %q, %v", data, err)
	}
	// Links of the tools' tree lead nowhere.
	e.Tools[0].Source = hostile
	for _, at := range []string{"mnt", "srv", "nothere", "../../tmp"} {
		e.ToolsRoot = at
		if _, err := execIn(t, p, b, e); err == nil || !strings.Contains(err.Error(), "the tools have no directory "+at) {
			t.Errorf("%s: got %v", at, err)
		}
	}
}
