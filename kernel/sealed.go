package kernel

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

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
	// The name shows in process lists, inside containers too, which a path of the host need not.
	name := filepath.Base(path)
	if target, err := os.Readlink(path); err == nil {
		name = filepath.Base(target)
	}
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	n, err := unix.MemfdCreate(name, flags|unix.MFD_EXEC) // the flag, Linux 6.3, is the default on older ones
	if errors.Is(err, unix.EINVAL) {
		n, err = unix.MemfdCreate(name, flags)
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

// ExecKeeping executes the program at path in this process's place; files stay open in it under their
// numbers. It returns only when that failed, and nothing has changed then.
func ExecKeeping(path string, argv, env []string, files []*os.File) error {
	defer keep(files...)
	set := func(flags int) error {
		for _, f := range files {
			if _, err := unix.FcntlInt(uintptr(fd(f)), unix.F_SETFD, flags); err != nil {
				return pathError("fcntl", f.Name(), err)
			}
		}
		return nil
	}
	defer set(unix.FD_CLOEXEC)
	if err := set(0); err != nil {
		return err
	}
	return pathError("exec", path, syscall.Exec(path, argv, env))
}

// Inherit makes a file of a descriptor that the program before kept for this one; it is close-on-exec again.
func Inherit(number int, name string) (*os.File, error) {
	if _, err := unix.FcntlInt(uintptr(number), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
		return nil, pathError("fcntl", name, err)
	}
	return os.NewFile(uintptr(number), name), nil
}

// Memory returns a file in memory with data in it, to be read from its start.
func Memory(name string, data []byte) (*os.File, error) {
	n, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, callError("memfd_create", err)
	}
	f := os.NewFile(uintptr(n), name)
	if _, err := f.WriteAt(data, 0); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
