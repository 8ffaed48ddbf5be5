package oci

import (
	"errors"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/kernel"
)

// What the container mounts in a shared bind is seen by the host, and nothing else of it.
func TestSharedBind(t *testing.T) {
	eachBuilder(t, func(t *testing.T, r runner) {
		source := t.TempDir()
		for _, err := range []error{
			kernel.Propagation("/", kernel.PropShared, true), syscall.Mount("none", source, "tmpfs", 0, ""), os.Mkdir(source+"/in", 0o755),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		before := mountPoints(t)
		for range 2 { // what the first one left would be in the second one's way
			b := newBundle(t, newRoot(t), sh("mount -t tmpfs none /dst/in && echo mounted")...)
			b.Spec.Linux.RootfsPropagation = "shared"
			b.Spec.Mounts = append(b.Spec.Mounts, specs.Mount{Destination: "/dst", Type: "bind", Source: source, Options: []string{"bind", "shared"}})
			b.Spec.Process.Capabilities.Bounding = append(slices.Clone(defaultCaps), "CAP_SYS_ADMIN")
			b.Spec.Process.Capabilities.Effective, b.Spec.Process.Capabilities.Permitted = b.Spec.Process.Capabilities.Bounding, b.Spec.Process.Capabilities.Bounding
			if res := r.run(t, b); res.exit.Code != 0 || res.out != "mounted\n" {
				t.Fatalf("%+v", res)
			}
			if got, want := mountPoints(t), append(slices.Clone(before), source+"/in"); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
				t.Errorf("the host has %q, want %q", got, want)
			}
			if err := syscall.Unmount(source+"/in", syscall.MNT_DETACH); err != nil {
				t.Error(err)
			}
		}
		if err := errors.Join(syscall.Unmount(source, syscall.MNT_DETACH), kernel.Propagation("/", kernel.PropPrivate, true)); err != nil {
			t.Error(err)
		}
	})
}

// mountPoints are this process's, in order.
func mountPoints(t *testing.T) (all []string) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		all = append(all, strings.Fields(line)[4])
	}
	slices.Sort(all)
	return all
}

func TestMountPlace(t *testing.T) {
	table := "20 1 8:1 / / rw - ext4 x rw\n21 20 0:5 / /a\\040b rw shared:1 - tmpfs x rw\n\nshort\n"
	for id, want := range map[string]string{"21": "/a b", "20": "/", "1": "", "9": ""} {
		if got, ok := mountPlace(table, id); got != want || ok != (want != "") {
			t.Errorf("%s lies on %q, want %q", id, got, want)
		}
	}
}
