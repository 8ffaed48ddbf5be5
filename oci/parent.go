package oci

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"berth/fault"
	"berth/kernel"
)

// shared tells whether mounts that the container makes in its binds are to be seen by the host. The builders alone do that.
func shared(t *tree) bool {
	return t.proc != nil && (t.spec.Linux.RootfsPropagation == "shared" || t.spec.Linux.RootfsPropagation == "rshared")
}

// detachPlace keeps the mount that a root is going to lie on from being shared: the root would turn up in the host's table,
// for good, and pivot_root(2) would refuse it. Other mounts stay as they are.
func detachPlace(proc, place *os.File) error {
	info, err := readProc(proc, fmt.Sprintf("thread-self/fdinfo/%d", kernel.FD(place)))
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(info, "mnt_id:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return fault.New(fault.Corrupt, "the kernel names no mount of the root's place")
	}
	table, err := readProc(proc, "thread-self/mountinfo")
	if err != nil {
		return err
	}
	at, ok := mountPlace(table, fields[0])
	if !ok {
		return fault.New(fault.Corrupt, "the kernel does not list the mount of the root's place")
	}
	return kernel.Propagation(at, kernel.PropPrivate, false)
}

// mountPlace finds where the mount called id lies (proc_pid_mountinfo(5)).
func mountPlace(table, id string) (path string, ok bool) {
	for _, line := range strings.Split(table, "\n") {
		if f := strings.Fields(line); len(f) >= 5 && f[0] == id {
			return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(f[4]), true
		}
	}
	return "", false
}

func readProc(proc *os.File, name string) (string, error) {
	f, err := kernel.OpenIn(proc, name, os.O_RDONLY, 0, kernel.Beneath)
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(f)
	return string(text), errors.Join(err, f.Close())
}
