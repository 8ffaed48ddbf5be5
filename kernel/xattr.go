package kernel

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// SetXattr sets an extended attribute of an open file (fsetxattr(2)).
func SetXattr(f *os.File, attr, value string) error {
	err := retry(func() error { return unix.Fsetxattr(fd(f), attr, []byte(value), 0) })
	keep(f)
	return pathError("set "+attr+" of", f.Name(), err)
}

// SetXattrIn sets an extended attribute of name in dir, which is not followed.
func SetXattrIn(dir *os.File, name, attr, value string) error {
	err := retry(func() error { return unix.Lsetxattr(procPath(dir, name), attr, []byte(value), 0) })
	keep(dir)
	return pathError("set "+attr+" of", name, err)
}

// RemoveXattrIn removes an extended attribute; an absent one is no error.
func RemoveXattrIn(dir *os.File, name, attr string) error {
	err := retry(func() error { return unix.Lremovexattr(procPath(dir, name), attr) })
	keep(dir)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return pathError("remove "+attr+" of", name, err)
}

// XattrIn returns an extended attribute of name in dir, which is not followed; ok is false when there is none.
func XattrIn(dir *os.File, name, attr string) (value string, ok bool, err error) {
	path := procPath(dir, name)
	data, err := sized(func(buf []byte) (int, error) { return unix.Lgetxattr(path, attr, buf) })
	keep(dir)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EOPNOTSUPP) {
		return "", false, nil
	}
	return string(data), err == nil, pathError("get "+attr+" of", name, err)
}

// XattrsIn returns all extended attributes of name in dir, which is not
// followed; none where the file system has no such thing.
func XattrsIn(dir *os.File, name string) (map[string]string, error) {
	path := procPath(dir, name)
	list, err := sized(func(buf []byte) (int, error) { return unix.Llistxattr(path, buf) })
	keep(dir)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil || len(list) == 0 {
		return nil, pathError("list attributes of", name, err)
	}
	all := map[string]string{}
	for attr := range strings.SplitSeq(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		value, ok, err := XattrIn(dir, name, attr)
		if err != nil {
			return nil, err
		}
		if ok {
			all[attr] = value
		}
	}
	return all, nil
}

// sized calls get with a growing buffer; attributes may grow between asking for the size and reading.
func sized(get func([]byte) (int, error)) ([]byte, error) {
	buf := make([]byte, 256)
	for {
		var n int
		err := retry(func() (err error) {
			n, err = get(buf)
			return err
		})
		if err == nil {
			return buf[:n], nil
		}
		if !errors.Is(err, unix.ERANGE) || len(buf) > 1<<16 {
			return nil, err
		}
		buf = make([]byte, 4*len(buf))
	}
}
