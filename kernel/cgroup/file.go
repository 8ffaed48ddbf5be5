package cgroup

import (
	"errors"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"berth/fault"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

func utoa(n uint64) string { return strconv.FormatUint(n, 10) }

// write puts one value into a control file by one write(2); the error is a *os.PathError.
// Plain system calls: a container's start makes dozens of them, and os.File's registration with the poller would double each.
func write(dir, file, value string) error {
	name := dir + "/" + file
	fd, err := open(name, unix.O_WRONLY)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	return writeFD(fd, name, value)
}

func writeFD(fd int, name, value string) error {
	for {
		_, err := unix.Write(fd, []byte(value))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return &os.PathError{Op: "write " + strings.TrimSpace(value) + " to", Path: name, Err: err}
		}
		return nil
	}
}

func open(name string, flags int) (int, error) {
	for {
		fd, err := unix.Open(name, flags|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// read returns a control file's text without the space around it.
func read(dir, file string) (string, error) {
	name := dir + "/" + file
	fd, err := open(name, unix.O_RDONLY)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	text := make([]byte, 0, 512)
	for {
		n, err := unix.Read(fd, text[len(text):cap(text)])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return "", &os.PathError{Op: "read", Path: name, Err: err}
		}
		if n == 0 {
			return strings.TrimSpace(string(text)), nil
		}
		if text = text[:len(text)+n]; len(text) == cap(text) {
			text = slices.Grow(text, len(text))
		}
	}
}

// readUint reads a file of one number; "max" and v1's largest page count are no limit, given as 0 and false.
func readUint(dir, file string) (uint64, bool) {
	s, err := read(dir, file)
	if err != nil || s == "max" || s == "-1" {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > math.MaxInt64-1<<16 {
		return 0, false
	}
	return n, true
}

// readKeyed reads "name value" lines; missing files and keys count as zero.
func readKeyed(dir, file string) map[string]uint64 {
	s, _ := read(dir, file)
	keyed := map[string]uint64{}
	for line := range strings.Lines(s) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			if n, err := strconv.ParseUint(value, 10, 64); err == nil {
				keyed[name] = n
			}
		}
	}
	return keyed
}

func exists(name string) bool { return unix.Access(name, unix.F_OK) == nil }

// kind mixes the fault that a caller can act on into a kernel's refusal.
func kind(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ERANGE), errors.Is(err, unix.ENODEV):
		return fault.Wrap(fault.Invalid, err)
	case errors.Is(err, unix.EBUSY):
		return fault.Wrap(fault.Conflict, err)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES), errors.Is(err, unix.EROFS):
		return fault.Wrap(fault.Denied, err)
	case errors.Is(err, unix.ENOENT):
		return fault.Wrap(fault.NotFound, err)
	}
	return err
}
