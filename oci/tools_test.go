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
