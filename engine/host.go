package engine

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"berth/container"
	"berth/engine/bundle"
	"berth/fault"
	"berth/volume"

	"github.com/moby/moby/api/types/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// statDevice describes a device node; ok is false for anything else.
func statDevice(name string) (d specs.LinuxDevice, ok bool, err error) {
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

// hostDevices lists the machine's device nodes below /dev, for a privileged container; what every
// container has of its own is left out.
func hostDevices() []specs.LinuxDevice {
	var all []specs.LinuxDevice
	// What vanishes or can't be read meanwhile is left out as well.
	filepath.WalkDir("/dev", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil
		case entry.IsDir():
			switch name {
			case "/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd", "/dev/.lxc", "/dev/.udev":
				return filepath.SkipDir
			}
			return nil
		case entry.Type()&fs.ModeDevice == 0:
			return nil
		}
		switch name {
		case "/dev/console", "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/ptmx":
			return nil
		}
		if d, ok, err := statDevice(name); ok && err == nil {
			all = append(all, d)
		}
		return nil
	})
	return all
}

// findDevices looks --device up. A directory means all devices in it.
func findDevices(r *container.Record) ([]bundle.Device, error) {
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
	d, ok, err := statDevice(name)
	if err != nil {
		return nil, err
	}
	if ok {
		return []specs.LinuxDevice{d}, nil
	}
	entries, err := os.ReadDir(name)
	if err != nil {
		return nil, errors.New("not a device node")
	}
	var all []specs.LinuxDevice
	for _, e := range entries {
		if d, ok, err := statDevice(path.Join(name, e.Name())); ok && err == nil {
			all = append(all, d)
		}
	}
	return all, nil
}

// findBlockDevices looks up the devices that blkio rules name.
func findBlockDevices(r *container.Record) (map[string]specs.LinuxBlockIODevice, error) {
	found := map[string]specs.LinuxBlockIODevice{}
	for _, p := range bundle.BlockPaths(&r.HostConfig.Resources) {
		d, ok, err := statDevice(p)
		if err != nil || !ok {
			return nil, invalid("%s is no block device: %w", p, errors.Join(err, fault.Invalid))
		}
		found[p] = specs.LinuxBlockIODevice{Major: d.Major, Minor: d.Minor}
	}
	return found, nil
}

// findMounts tells where on the host each volume and bind lies. A bind's missing source is made,
// unless the user said that it exists.
func (c *starter) findMounts(r *container.Record) ([]bundle.Mount, error) {
	var all []bundle.Mount
	for _, m := range r.Mounts {
		b := bundle.Mount{Mount: m}
		switch m.Type {
		case mount.TypeBind:
			if err := checkBindSource(&m); err != nil {
				return nil, err
			}
			if _, err := os.Stat(m.Source); errors.Is(err, fs.ErrNotExist) {
				if err := os.MkdirAll(m.Source, 0o755); err != nil {
					return nil, invalid("error while creating mount source path '%s': %w", m.Source, err)
				}
			}
			if err := volume.CheckPropagation(m.Source, m.Propagation); err != nil {
				return nil, err
			}
			b.Path = m.Source
		case mount.TypeVolume:
			// One that a crash or a user took away begins anew, empty.
			v, _, err := c.volumes.Create(volume.Volume{Name: m.Name, Anonymous: m.Anonymous})
			if err != nil {
				return nil, err
			}
			if b.Path, err = below(v.Path, m.Subpath); err != nil {
				return nil, err
			}
		}
		all = append(all, b)
	}
	return all, nil
}

// below is the path of sub in dir, which it may not leave.
func below(dir, sub string) (string, error) {
	if sub == "" {
		return dir, nil
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	if _, err := root.Stat(path.Clean(sub)); err != nil {
		return "", invalid("cannot access path %s of the volume: %w", sub, err)
	}
	return filepath.Join(dir, path.Clean(sub)), nil
}
