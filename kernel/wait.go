package kernel

import (
	"errors"
	"os"
	"strconv"
	"strings"
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

// SignalPid sends signal n to the process behind pidfd; os.ErrClosed when that was closed.
func SignalPid(pidfd *os.File, n int) error {
	c, err := pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	// Inside of Control nobody can close the descriptor and have its number mean another process.
	if c.Control(func(p uintptr) { failed = unix.PidfdSendSignal(int(p), syscall.Signal(n), nil, 0) }) != nil {
		return os.ErrClosed
	}
	return callError("pidfd_send_signal", failed)
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

// StartTime is when the process pid started, in clock ticks since boot (proc_pid_stat(5), field 22). With the number it names
// a process for good. A zombie counts as gone: os.ErrNotExist.
func StartTime(pid int) (uint64, error) {
	name := "/proc/" + strconv.Itoa(pid) + "/stat"
	data, err := os.ReadFile(name)
	if errors.Is(err, unix.ESRCH) {
		err = &os.PathError{Op: "open", Path: name, Err: os.ErrNotExist}
	}
	if err != nil {
		return 0, err
	}
	// The second field is the program's name in parentheses and may hold anything.
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	const state, start = 0, 19
	if len(fields) <= start {
		return 0, &os.PathError{Op: "parse", Path: name, Err: unix.EINVAL}
	}
	if fields[state] == "Z" || fields[state] == "X" {
		return 0, &os.PathError{Op: "open", Path: name, Err: os.ErrNotExist}
	}
	return strconv.ParseUint(fields[start], 10, 64)
}

// BootID names this boot of the machine (proc(5), random/boot_id).
func BootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(data)), err
}

// SignalNumber resolves "9", "KILL" or "SIGKILL", in any case.
func SignalNumber(name string) (int, bool) {
	if n, err := strconv.Atoi(name); err == nil {
		return n, n >= 0 && n <= 64
	}
	name = strings.TrimPrefix(strings.ToUpper(name), "SIG")
	for prefix, base := range map[string]int{"RTMIN": 34, "RTMAX": 64} {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			n, err := strconv.Atoi(rest)
			if rest != "" && err != nil {
				return 0, false
			}
			return base + n, base+n >= 34 && base+n <= 64
		}
	}
	n := unix.SignalNum("SIG" + name)
	return int(n), n != 0
}

// NewFIFO makes a named pipe and opens both of its ends in one file, out of the way of a child's first ones.
func NewFIFO(path string) (*os.File, error) {
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return nil, pathError("mkfifo", path, err)
	}
	f, err := OpenIn(nil, path, os.O_RDWR, 0, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return HighDup(f)
}
