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

// detachParent keeps the mount that a root was put on from being shared, with which pivot_root(2) refuses. What is
// mounted inside the root stays as it is.
func detachParent(proc, root *os.File) error {
	info, err := readProc(proc, fmt.Sprintf("thread-self/fdinfo/%d", kernel.FD(root)))
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(info, "mnt_id:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return fault.New(fault.Corrupt, "the kernel names no mount of the root")
	}
	table, err := readProc(proc, "thread-self/mountinfo")
	if err != nil {
		return err
	}
	if at := parentMount(table, fields[0]); at != "" {
		return kernel.Propagation(at, kernel.PropPrivate, false)
	}
	return nil
}

// parentMount finds where the mount lies that the mount called id lies on (proc_pid_mountinfo(5)); "" when it is not in the table.
func parentMount(table, id string) string {
	parent, at := "", map[string]string{}
	for _, line := range strings.Split(table, "\n") {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		if at[f[0]] = f[4]; f[0] == id {
			parent = f[1]
		}
	}
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(at[parent])
}

func readProc(proc *os.File, name string) (string, error) {
	f, err := kernel.OpenIn(proc, name, os.O_RDONLY, 0, kernel.Beneath)
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(f)
	return string(text), errors.Join(err, f.Close())
}
