package namespace

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/kernel"
)

// NewUser makes a user namespace in which ids are mapped as given, alive as long as the file is open or
// something in it is. The caller closes it.
func NewUser(uids, gids []specs.LinuxIDMapping) (*os.File, error) {
	return owned(unix.CLONE_NEWUSER, "user", uids, gids)
}

// NewOwnedNet is NewNet for a container in a user namespace: the network namespace belongs to a fresh one, with ids
// mapped as given, so that root in there may change it. Owner gives that one.
func NewOwnedNet(uids, gids []specs.LinuxIDMapping) (*os.File, error) {
	return owned(unix.CLONE_NEWUSER|unix.CLONE_NEWNET, "net", uids, gids)
}

// owned has a process that only waits make the namespaces, as a program of many threads can't enter a user namespace.
func owned(kinds uintptr, which string, uids, gids []specs.LinuxIDMapping) (ns *os.File, err error) {
	in, out, err := kernel.Pipe()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	defer out.Close()
	err = kernel.Thread(func() error { // which lives as long as the process is needed, and no longer than this program
		var s kernel.Script
		s.For("make a user namespace")
		s.EndWithThread()
		s.CloseFile(out)
		s.Await(in)
		child, err := s.Fork(kinds)
		if err != nil {
			return err
		}
		dir := fmt.Sprintf("/proc/%d", child.Pid)
		if err = WriteMaps(dir, uids, gids); err == nil {
			ns, err = os.Open(path.Join(dir, "ns", which))
		}
		// The end of the pipe may be open in others that were forked meanwhile, so it doesn't end by itself.
		err = errors.Join(err, kernel.SignalPid(child.PidFD, kill))
		_, reapErr := kernel.Reap(child.PidFD)
		child.Close()
		return errors.Join(err, reapErr, child.PidFD.Close())
	})
	if err != nil && ns != nil {
		ns.Close()
		ns = nil
	}
	return ns, err
}

const kill = 9 // SIGKILL

// WriteMaps maps the ids of the user namespace that the process behind dir, its directory in a procfs, was born in (user_namespaces(7)).
func WriteMaps(dir string, uids, gids []specs.LinuxIDMapping) error {
	return errors.Join(writeMap(path.Join(dir, "gid_map"), gids), writeMap(path.Join(dir, "uid_map"), uids))
}

func writeMap(name string, list []specs.LinuxIDMapping) error {
	var text []byte
	for _, m := range list {
		text = fmt.Appendf(text, "%d %d %d\n", m.ContainerID, m.HostID, m.Size)
	}
	// Opened alone, without creation, as the write must be a single one.
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}

// ReadMaps reads the maps of the user namespace of the process behind dir, its directory in a procfs.
func ReadMaps(dir string) (uids, gids []specs.LinuxIDMapping, err error) {
	uids, uerr := readMap(path.Join(dir, "uid_map"))
	gids, gerr := readMap(path.Join(dir, "gid_map"))
	return uids, gids, errors.Join(uerr, gerr)
}

func readMap(name string) (list []specs.LinuxIDMapping, err error) {
	data, err := os.ReadFile(name)
	for line := range strings.Lines(string(data)) {
		var m specs.LinuxIDMapping
		if _, err := fmt.Sscan(line, &m.ContainerID, &m.HostID, &m.Size); err != nil {
			return nil, &os.PathError{Op: "parse", Path: name, Err: err}
		}
		list = append(list, m)
	}
	return list, err
}

// Owner gives the user namespace that ns belongs to (ioctl_nsfs(2), NS_GET_USERNS). The caller closes it.
func Owner(ns *os.File) (*os.File, error) {
	n, err := unix.IoctlRetInt(kernel.FD(ns), unix.NS_GET_USERNS)
	if err != nil {
		return nil, &os.PathError{Op: "owner of namespace", Path: ns.Name(), Err: err}
	}
	return kernel.Inherited(n, "user namespace"), nil
}

// Same tells whether two files are the same namespace.
func Same(a, b *os.File) (bool, error) {
	one, err := a.Stat()
	if err != nil {
		return false, err
	}
	other, err := b.Stat()
	return err == nil && os.SameFile(one, other), err
}
