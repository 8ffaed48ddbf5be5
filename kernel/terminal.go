package kernel

import (
	"os"

	"golang.org/x/sys/unix"
)

// SetSize gives the terminal f, either side of it, a size in characters; its foreground processes get SIGWINCH (ioctl_tty(2)).
func SetSize(f *os.File, height, width uint16) error {
	err := unix.IoctlSetWinsize(fd(f), unix.TIOCSWINSZ, &unix.Winsize{Row: height, Col: width})
	keep(f)
	return pathError("TIOCSWINSZ", f.Name(), err)
}

// TerminalPeer opens the slave side of the master f without a path, so that no
// mount can stand in its way (TIOCGPTPEER, Linux 4.13). It does not become the controlling terminal.
func TerminalPeer(f *os.File) (*os.File, error) {
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd(f)), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	keep(f)
	if errno != 0 {
		return nil, pathError("TIOCGPTPEER", f.Name(), errno)
	}
	return os.NewFile(n, f.Name()), nil
}

// UnlockTerminal lets the other side of the master f be opened (ioctl_tty(2), TIOCSPTLCK).
func UnlockTerminal(f *os.File) error {
	err := unix.IoctlSetPointerInt(fd(f), unix.TIOCSPTLCK, 0)
	keep(f)
	return pathError("TIOCSPTLCK", f.Name(), err)
}
