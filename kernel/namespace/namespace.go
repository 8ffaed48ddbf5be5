// Package namespace makes and enters namespaces.
//
// It is not a container: it knows one namespace at a time. Invariant: the caller's own threads
// never change their namespaces; a thread that did is thrown away.
package namespace

import (
	"os"

	"golang.org/x/sys/unix"

	"berth/kernel"
)

// NewNet makes a network namespace with nothing but a downed lo, alive as long as the file is
// open or bound somewhere. The caller closes it.
func NewNet() (*os.File, error) {
	var ns *os.File
	err := kernel.Thread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		ns, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	return ns, err
}

// Do runs fn on a thread inside the namespace ns (network, ipc, uts or cgroup kind); the
// thread ends afterwards. Goroutines started by fn run outside.
func Do(ns *os.File, fn func() error) error {
	return kernel.Thread(func() error {
		if err := Enter(ns, 0); err != nil {
			return err
		}
		return fn()
	})
}

// Enter moves the calling, locked thread into ns (setns(2)); kind 0 takes any. It can't be undone:
// the caller never unlocks the thread.
func Enter(ns *os.File, kind int) error {
	c, err := ns.SyscallConn()
	if err != nil {
		return err
	}
	c.Control(func(fd uintptr) {
		for {
			if err = unix.Setns(int(fd), kind); err != unix.EINTR {
				return
			}
		}
	})
	if err != nil {
		return &os.PathError{Op: "setns", Path: ns.Name(), Err: err}
	}
	return nil
}
