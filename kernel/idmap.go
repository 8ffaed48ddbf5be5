package kernel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// MapIDs makes the detached mount m show the owners of files through the user namespace ns: what belongs to 0 on
// disk belongs to the namespace's root (mount_setattr(2), MOUNT_ATTR_IDMAP, Linux 5.12). A file system that
// can't do that is fault-free only for errors.Is(err, ErrNoIDMap).
func MapIDs(m, ns *os.File, recursive bool) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(fd(ns))}
	err := retry(func() error { return unix.MountSetattr(fd(m), "", flags, &attr) })
	keep(m, ns)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) {
		err = errors.Join(ErrNoIDMap, err)
	}
	return pathError("map the ids of", m.Name(), err)
}

// ErrNoIDMap says that a kernel or a file system has no id-mapped mounts.
var ErrNoIDMap = errors.New("no id-mapped mounts here")

// ActAs makes the files that the calling, locked thread makes from now on belong to uid and gid. It keeps its
// capabilities, which a change of fsuid takes from the effective set (capabilities(7)); the thread is not used for anything else afterwards.
func ActAs(uid, gid uint32) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return callError("capget", err)
	}
	// Neither call tells of a failure: the next one gives what is set.
	unix.SetfsgidRetGid(int(gid))
	unix.SetfsuidRetUid(int(uid))
	if now, _ := unix.SetfsgidRetGid(-1); now != int(gid) {
		return callError("setfsgid", unix.EPERM)
	}
	if now, _ := unix.SetfsuidRetUid(-1); now != int(uid) {
		return callError("setfsuid", unix.EPERM)
	}
	return callError("capset", unix.Capset(&hdr, &data[0]))
}

// mapPlace is where the id-mapped layers of an overlay lie while it is mounted, in a mount namespace of its own:
// an empty directory of every procfs.
const mapPlace = "/proc/driver"

// NewMappedOverlay is NewMount for an overlay whose layers, the writable one included, show the owners of files through the
// user namespace ns (Linux 5.19). uid and gid are the namespace's root outside of it: overlay makes its own
// files as whoever mounts it, and those must have an id on disk.
func NewMappedOverlay(options []string, attrs int, ns *os.File, uid, gid uint32) (m *os.File, err error) {
	err = PrivateMounts(func() error {
		s, err := newStaging()
		if err != nil {
			return err
		}
		defer s.dir.Close()
		mapped, err := s.layers(options, ns)
		if err != nil {
			return err
		}
		if err := ActAs(uid, gid); err != nil {
			return err
		}
		m, err = NewMount("overlay", "overlay", mapped, attrs)
		return err
	})
	return m, err
}

// staging is a tmpfs in a private mount namespace that layers are attached to: an overlay takes no detached ones before Linux 6.15.
type staging struct {
	dir   *os.File
	count int
}

func newStaging() (*staging, error) {
	m, err := NewMount("tmpfs", "tmpfs", []string{"mode=0755"}, 0)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	at, err := OpenIn(nil, mapPlace, OPath|ODirectory, 0, 0)
	if err != nil {
		return nil, err
	}
	defer at.Close()
	if err := AttachMount(m, at); err != nil {
		return nil, err
	}
	dir, err := OpenIn(m, ".", ODirectory, 0, 0)
	return &staging{dir: dir}, err
}

// layers attaches what the options name and returns options that name the places.
func (s *staging) layers(options []string, ns *os.File) ([]string, error) {
	var upper, work string
	var mapped []string
	for _, o := range options {
		key, value, _ := strings.Cut(o, "=")
		switch key {
		case "lowerdir+":
			place, err := s.attach(value, ns)
			if err != nil {
				return nil, err
			}
			mapped = append(mapped, "lowerdir+="+place)
		case "upperdir":
			upper = value
		case "workdir":
			work = value
		default:
			mapped = append(mapped, o)
		}
	}
	if upper == "" {
		return mapped, nil
	}
	// Both must lie on the same mount.
	top := common([]string{upper, work})
	if top == "" || filepath.Dir(upper) != top || filepath.Dir(work) != top {
		return nil, fmt.Errorf("mount overlay: %s and %s are not side by side", upper, work)
	}
	place, err := s.attach(top, ns)
	return append(mapped, "upperdir="+place+"/"+filepath.Base(upper), "workdir="+place+"/"+filepath.Base(work)), err
}

func (s *staging) attach(path string, ns *os.File) (place string, err error) {
	m, err := CloneMount(nil, path, false)
	if err != nil {
		return "", err
	}
	defer m.Close()
	if err := MapIDs(m, ns, false); err != nil {
		return "", err
	}
	name := fmt.Sprint(s.count)
	s.count++
	if err := MkdirIn(s.dir, name, 0o755); err != nil {
		return "", err
	}
	at, err := OpenIn(s.dir, name, OPath|ODirectory, 0, NoSymlinks)
	if err != nil {
		return "", err
	}
	defer at.Close()
	return mapPlace + "/" + name, AttachMount(m, at)
}
