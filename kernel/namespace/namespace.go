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

// The kinds of namespaces, as bits of a set (namespaces(7)).
const (
	Mount  = unix.CLONE_NEWNS
	PID    = unix.CLONE_NEWPID
	Net    = unix.CLONE_NEWNET
	IPC    = unix.CLONE_NEWIPC
	UTS    = unix.CLONE_NEWUTS
	User   = unix.CLONE_NEWUSER
	Cgroup = unix.CLONE_NEWCGROUP
	Time   = unix.CLONE_NEWTIME
)

// Unshare gives the calling, locked thread new namespaces of the kinds given. With PID only its
// later children are in the new one.
func Unshare(kinds int) error {
	if kinds == 0 {
		return nil
	}
	return os.NewSyscallError("unshare", unix.Unshare(kinds))
}

// Is checks that f is a namespace of that kind (ioctl_nsfs(2)).
func Is(f *os.File, kind int) error {
	got, err := unix.IoctlRetInt(kernel.FD(f), unix.NS_GET_NSTYPE)
	if err != nil {
		return &os.PathError{Op: "namespace", Path: f.Name(), Err: err}
	}
	if got != kind {
		return &os.PathError{Op: "namespace", Path: f.Name(), Err: unix.EINVAL}
	}
	return nil
}

// Dup returns a second descriptor of a namespace.
func Dup(f *os.File) (*os.File, error) { return kernel.Dup(f) }
