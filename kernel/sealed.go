package kernel

import (
	"errors"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Sealed returns a copy of the executable file at path in memory that nobody can write
// or truncate any more (memfd_create(2), F_ADD_SEALS), so that a container whose process runs it can't change it, and a new version
// on disk doesn't touch the processes of the old one. Execute it by ProcFD.
func Sealed(path string) (f *os.File, err error) {
	from, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer from.Close()
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	n, err := unix.MemfdCreate(path, flags|unix.MFD_EXEC) // the flag, Linux 6.3, is the default on older ones
	if errors.Is(err, unix.EINVAL) {
		n, err = unix.MemfdCreate(path, flags)
	}
	if err != nil {
		return nil, callError("memfd_create", err)
	}
	w := os.NewFile(uintptr(n), path)
	defer w.Close()
	if _, err = io.Copy(w, from); err != nil {
		return nil, err
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err = unix.FcntlInt(uintptr(n), unix.F_ADD_SEALS, seals); err != nil {
		return nil, pathError("seal", path, err)
	}
	return Reopen(w, unix.O_RDONLY) // a file that is open for writing can't be executed (ETXTBSY)
}

// SealedSelf is the program that runs here, as Sealed gives it: itself when it was started from such a copy.
func SealedSelf() (*os.File, error) {
	const self = "/proc/self/exe"
	f, err := os.Open(self)
	if err != nil {
		return nil, err
	}
	const need = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if seals, err := unix.FcntlInt(uintptr(fd(f)), unix.F_GET_SEALS, 0); err == nil && seals&need == need {
		return f, nil
	}
	f.Close()
	return Sealed(self)
}

// Setsid makes this process the leader of a session of its own, without a
// terminal: none can hang it up or interrupt it. A process that leads one already stays as it is.
func Setsid() error {
	if _, err := unix.Setsid(); err != nil && err != unix.EPERM {
		return callError("setsid", err)
	}
	return nil
}

// CloseInherited closes the descriptors from number first on that this process got from the one
// before it: those that are not close-on-exec, as all are that Go opens.
func CloseInherited(first int) error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err != nil || n < first {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			unix.Close(n)
		}
	}
	return nil
}
