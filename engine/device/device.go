// Package device finds the device nodes that a container gets: those that it names, and all of the machine's.
//
// It reads /dev and makes nothing; what a device is allowed for is said by the bundle's rules. Invariant: what it
// returns was a device node when it looked.
package device

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"berth/container"
	"berth/engine/bundle"
	"berth/fault"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func invalid(format string, args ...any) error { return fault.New(fault.Invalid, format, args...) }

// Stat describes a device node; ok is false for anything else.
func Stat(name string) (d specs.LinuxDevice, ok bool, err error) {
	info, err := os.Stat(name)
	if err != nil {
		return d, false, err
	}
	st, isStat := info.Sys().(*syscall.Stat_t)
	if !isStat || info.Mode()&fs.ModeDevice == 0 {
		return d, false, nil
	}
	d = specs.LinuxDevice{
		Path: name, Type: "b",
		// The encoding of dev_t in Linux (makedev(3)).
		Major: int64(st.Rdev>>8&0xfff | st.Rdev>>32&^0xfff), Minor: int64(st.Rdev&0xff | st.Rdev>>12&^0xff),
		FileMode: new(info.Mode().Perm()), UID: new(st.Uid), GID: new(st.Gid),
	}
	if info.Mode()&fs.ModeCharDevice != 0 {
		d.Type = "c"
	}
	return d, true, nil
}

// Host lists the machine's device nodes below /dev, for a privileged container; what every
// container has of its own is left out.
func Host() []specs.LinuxDevice {
	all, _ := below("/dev") // it fails for nothing
	return slices.DeleteFunc(all, func(d specs.LinuxDevice) bool {
		switch d.Path {
		case "/dev/console", "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/ptmx":
			return true
		}
		info, err := os.Lstat(d.Path)
		return err != nil || info.Mode()&fs.ModeSymlink != 0
	})
}

// Find looks --device up. A directory means all devices in it.
func Find(r *container.Record) ([]bundle.Device, error) {
	var all []bundle.Device
	for _, m := range r.HostConfig.Devices {
		access := m.CgroupPermissions
		if access == "" {
			access = "rwm"
		}
		if strings.Trim(access, "rwm") != "" {
			return nil, invalid("invalid device mode: %s", access)
		}
		target := m.PathInContainer
		if target == "" {
			target = m.PathOnHost
		}
		found, err := devicesAt(m.PathOnHost)
		if err != nil {
			if p := (*os.PathError)(nil); errors.As(err, &p) {
				err = p.Err
			}
			return nil, invalid("error gathering device information while adding custom device %q: %w", m.PathOnHost, err)
		}
		for _, d := range found {
			d.Path = path.Join(target, strings.TrimPrefix(d.Path, m.PathOnHost))
			all = append(all, bundle.Device{LinuxDevice: d, Access: access})
		}
	}
	return all, nil
}

func devicesAt(name string) ([]specs.LinuxDevice, error) {
	d, ok, err := Stat(name)
	if err != nil {
		return nil, err
	}
	if ok {
		return []specs.LinuxDevice{d}, nil
	}
	if info, err := os.Stat(name); err != nil || !info.IsDir() {
		return nil, errors.Join(err, errors.New("not a device node"))
	}
	return below(name)
}

// below lists the devices in a directory and its directories, but for what every container has of its own. What
// vanishes or can't be read meanwhile is left out.
func below(dir string) (all []specs.LinuxDevice, err error) {
	err = filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil
		case entry.IsDir():
			switch name {
			case "/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd", "/dev/.lxc", "/dev/.udev":
				return filepath.SkipDir
			}
			return nil
		case entry.Type()&(fs.ModeDevice|fs.ModeSymlink) == 0:
			return nil
		}
		if d, ok, err := Stat(name); ok && err == nil {
			all = append(all, d)
		}
		return nil
	})
	return all, err
}

// Block looks up the devices that blkio rules name.
func Block(r *container.Record) (map[string]specs.LinuxBlockIODevice, error) {
	found := map[string]specs.LinuxBlockIODevice{}
	for _, p := range bundle.BlockPaths(&r.HostConfig.Resources) {
		d, ok, err := Stat(p)
		if err != nil {
			return nil, invalid("%s is no block device: %w", p, err)
		}
		if !ok || d.Type != "b" {
			return nil, invalid("%s is no block device", p)
		}
		found[p] = specs.LinuxBlockIODevice{Major: d.Major, Minor: d.Minor}
	}
	return found, nil
}
