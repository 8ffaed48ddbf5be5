package oci

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"berth/fault"
	"berth/kernel"
	"berth/kernel/namespace"
)

// borrowed takes a bind's source apart that lies in another container: /proc/PID/root/PATH.
func borrowed(source string) (pid int, path string, ok bool) {
	rest, ok := strings.CutPrefix(source, "/proc/")
	if !ok {
		return 0, "", false
	}
	number, rest, ok := strings.Cut(rest, "/root/")
	if !ok {
		return 0, "", false
	}
	pid, err := strconv.Atoi(number)
	return pid, "/" + rest, err == nil && pid > 0
}

// borrow copies a mount of another container's, which only a member of its mount namespace can (open_tree(2)). What lies
// there is the other container's to decide, so links are not followed and the place must be a mount of its own. sub is what lies beneath; "": all.
func borrow(pid int, path, sub string) (m *os.File, err error) {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	if err != nil {
		return nil, fault.New(fault.Conflict, "the container of process %d has ended: %w", pid, err)
	}
	defer ns.Close()
	err = kernel.Thread(func() error {
		if err := errors.Join(kernel.UnshareFS(), namespace.Enter(ns, namespace.Mount)); err != nil {
			return err
		}
		f, err := kernel.OpenIn(nil, path, kernel.OPath|kernel.ODirectory, 0, kernel.NoSymlinks|kernel.NoMagicLinks)
		if err != nil {
			return err
		}
		defer f.Close()
		if sub != "" {
			at, err := openPart(f, sub)
			if err != nil {
				return err
			}
			defer at.Close()
			f = at
		}
		m, err = kernel.CloneMount(f, "", false)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("share %s of process %d: %w", path, pid, err)
	}
	return m, nil
}
