package kernel

import (
	"errors"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// Supervise runs path as a child in the foreground, passes every signal on to it, reaps all children, orphans
// included, and returns the child's exit code (128+n after signal n). It releases a held status as soon as no signal is lost any more.
func Supervise(path string, args []string) (int, error) {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	releaseStatus() // what comes from now on waits in the channel for the child
	pid, err := syscall.ForkExec(path, args, &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2},
		Sys: &syscall.SysProcAttr{Setpgid: true, Foreground: isTerminal(0), Ctty: 0},
	})
	if err != nil {
		return 0, err
	}
	go func() {
		for s := range signals {
			if s != unix.SIGCHLD && s != unix.SIGURG && s != unix.SIGTTIN && s != unix.SIGTTOU { // SIGURG is the Go runtime's own
				unix.Kill(pid, s.(syscall.Signal))
			}
		}
	}()
	for {
		var st syscall.WaitStatus
		got, err := syscall.Wait4(-1, &st, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, err
		}
		if got == pid && st.Signaled() {
			return 128 + int(st.Signal()), nil
		}
		if got == pid {
			return st.ExitStatus(), nil
		}
	}
}

// releaseStatus closes what Script.HoldStatus left open. The filter of system calls may be older than close_range(2).
func releaseStatus() {
	if unix.CloseRange(lowest, ^uint(0), 0) == nil {
		return
	}
	for n := lowest; n < 16*lowest; n++ {
		unix.Close(n)
	}
}

func isTerminal(n int) bool {
	_, err := unix.IoctlGetTermios(n, unix.TCGETS)
	return err == nil
}
