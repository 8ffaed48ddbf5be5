package kernel

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Subreaper makes this process the parent of its descendants whose own parents end (prctl(2), PR_SET_CHILD_SUBREAPER).
func Subreaper() error {
	return callError("prctl", unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
}

// Zombie is a child of this process that has ended and is not reaped; 0 when there is none. It stays one (waitid(2), WNOWAIT).
func Zombie() (pid int, err error) {
	var info childInfo
	err = retry(func() error {
		_, _, errno := syscall.Syscall6(unix.SYS_WAITID, unix.P_ALL, 0, uintptr(unsafe.Pointer(&info)), unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, 0, 0)
		if errno != 0 {
			return errno
		}
		return nil
	})
	if err == unix.ECHILD {
		return 0, nil
	}
	return int(info.pid), callError("waitid", err)
}

// ReapPid takes the status of an ended child away; nobody is to wait for it.
func ReapPid(pid int) error {
	return callError("wait4", retry(func() error {
		_, err := unix.Wait4(pid, nil, unix.WNOHANG, nil)
		return err
	}))
}
