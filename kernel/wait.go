package kernel

import (
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// OpenPid returns a descriptor of the process pid, which stays its own when the number is used again
// (pidfd_open(2)). It polls readable when the process has ended.
func OpenPid(pid int) (*os.File, error) {
	n, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, callError("pidfd_open", err)
	}
	return os.NewFile(uintptr(n), "pidfd"), nil
}

// SignalPid sends signal n to the process behind pidfd.
func SignalPid(pidfd *os.File, n int) error {
	err := unix.PidfdSendSignal(fd(pidfd), syscall.Signal(n), nil, 0)
	keep(pidfd)
	return callError("pidfd_send_signal", err)
}

// Ended is how a process ended: Signal is 0 when it exited by itself with Code.
type Ended struct{ Code, Signal int }

// Reap waits until the child behind pidfd has ended and takes its status
// (waitid(2), P_PIDFD). With a pollable pidfd no thread waits.
func Reap(pidfd *os.File) (Ended, error) {
	c, err := pidfd.SyscallConn()
	if err != nil {
		return Ended{}, err
	}
	var e Ended
	var done bool
	var werr error
	err = c.Read(func(n uintptr) bool {
		e, done, werr = tryReap(int(n), unix.WNOHANG)
		return done || werr != nil
	})
	if werr != nil {
		return Ended{}, callError("waitid", werr)
	}
	return e, err
}

// childInfo is the part of siginfo_t that waitid fills in.
type childInfo struct {
	signo, errno, code int32
	_                  int32
	pid                int32
	uid                uint32
	status             int32
	_                  [100]byte
}

func tryReap(pidfd, flags int) (e Ended, done bool, err error) {
	var info childInfo
	err = retry(func() error {
		_, _, errno := syscall.Syscall6(unix.SYS_WAITID, unix.P_PIDFD, uintptr(pidfd), uintptr(unsafe.Pointer(&info)), uintptr(unix.WEXITED|flags), 0, 0)
		if errno != 0 {
			return errno
		}
		return nil
	})
	if err == unix.EAGAIN {
		return e, false, nil
	}
	if err != nil || info.pid == 0 {
		return e, false, err
	}
	const exited = 1 // CLD_EXITED
	if info.code == exited {
		return Ended{Code: int(info.status)}, true, nil
	}
	return Ended{Code: 128 + int(info.status), Signal: int(info.status)}, true, nil
}

// AwaitEnd waits until the process behind a pollable pidfd has ended, child or not, for at most the time given
// (0: without a bound). os.ErrDeadlineExceeded says that it goes on.
func AwaitEnd(pidfd *os.File, limit time.Duration) error {
	if limit > 0 {
		if err := pidfd.SetReadDeadline(time.Now().Add(limit)); err != nil {
			return err
		}
		defer pidfd.SetReadDeadline(time.Time{})
	}
	c, err := pidfd.SyscallConn()
	if err != nil {
		return err
	}
	return c.Read(func(n uintptr) bool {
		p := []unix.PollFd{{Fd: int32(n), Events: unix.POLLIN}}
		ready, err := unix.Poll(p, 0)
		return err == nil && ready == 1
	})
}
