package kernel

import (
	"errors"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// Supervise runs path as a child in the foreground, passes every signal on to it, reaps all children, orphans
// included, and returns the child's exit code (128+n after signal n).
func Supervise(path string, args []string) (int, error) {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
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

func isTerminal(n int) bool {
	_, err := unix.IoctlGetTermios(n, unix.TCGETS)
	return err == nil
}
