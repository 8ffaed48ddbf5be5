package oci

import (
	"strings"
	"testing"

	"berth/internal/kerneltest"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// A file that comes with the bundle has the content, mode and owner that it was given, also below a mount that every container has.
func TestFileMount(t *testing.T) {
	eachBuilder(t, func(t *testing.T, r runner) {
		b := newBundle(t, newRoot(t), sh("stat -c '%a %u %g' /new/f /dev/pipes/s; cat /new/f; wc -c < /empty; (echo x > /new/f) 2>&1 | grep -o Read-only; /dev/pipes/s; ls /proc/self/fd | wc -l")...)
		b.Spec.Mounts = append(b.Spec.Mounts,
			FileMount("/new/f", []byte("con\x00tent\n"), 0o4440, 7, 8, "ro", "nosuid"), FileMount("/empty", nil, 0o400, 0, 0, "ro"),
			FileMount("/dev/pipes/s", []byte("#!/bin/sh\necho ran\n"), 0o755, 0, 0, "ro"))
		want := "4440 7 8\n755 0 0\ncon\x00tent\n0\nRead-only\nran\n4\n"
		if res := r.run(t, b); res.out != want {
			t.Errorf("%q %q, want %q", res.out, res.err, want)
		}
		for _, bad := range []specs.Mount{{Destination: "/f", Type: fileType, Source: "not in base64"}, {Destination: "/f", Type: fileType, Options: []string{"mode=x"}}} {
			b := newBundle(t, newRoot(t), "/bin/true")
			b.Spec.Mounts = append(b.Spec.Mounts, bad)
			if res, err := r.try(t, b); err == nil || strings.Contains(err.Error(), "not in base64:") {
				t.Errorf("%+v: %+v, %v", bad, res, err)
			}
		}
	})
}

// In a user namespace its owner is as the container counts.
func TestFileMountInAUserNamespace(t *testing.T) {
	kerneltest.Root(t)
	b, _ := mapped(t, newRoot(t), 300000, sh("stat -c '%a %u %g' /f; cat /f")...)
	b.Spec.Mounts = append(b.Spec.Mounts, FileMount("/f", []byte("content"), 0o640, 7, 8, "ro"))
	if res := (runner{}).run(t, b); res.out != "640 7 8\ncontent" {
		t.Errorf("%q %q", res.out, res.err)
	}
}
