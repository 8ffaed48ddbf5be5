package bundle

import (
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"berth/container"
	"berth/oci"
	"berth/union"

	"github.com/moby/moby/api/types/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Mount is a container's mount with the place on this host that it shows.
type Mount struct {
	container.Mount
	Path    string      // on the host; "" for a tmpfs and an image
	Tree    union.Mount // of an image, or of a build
	File    *File       // that lies in memory only
	Shifted bool        // the image's layers were copied for the container's ids
}

// File is a file of a build's step that no disk gets to see.
type File struct {
	Content        []byte
	Mode, UID, GID uint32
}

// DefaultShmSize is /dev/shm's size in bytes.
const DefaultShmSize = 64 << 20

// defaultMounts are what every container finds besides its root.
func defaultMounts() []specs.Mount {
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777"}},
		// Last, as the cgroup is being made while the others are mounted.
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
	}
}

// mountRule lists the default mounts, as the container's isolation changes them, and then the user's, parents first.
func mountRule(f *Facts, b *oci.Bundle) error {
	h := f.host()
	s, err := ParseSecurity(h.SecurityOpt)
	if err != nil {
		return err
	}
	user, err := userMounts(f)
	if err != nil {
		return err
	}
	for _, m := range defaultMounts() {
		if slices.ContainsFunc(user, func(u specs.Mount) bool { return u.Destination == m.Destination }) {
			continue
		}
		switch m.Destination {
		case "/sys":
			if h.Privileged {
				m.Options = without(m.Options, "ro")
			}
		case "/sys/fs/cgroup":
			if h.Privileged || s.WritableCgroups {
				m.Options = without(m.Options, "ro")
			}
		case "/dev/shm":
			if h.IpcMode.IsNone() {
				continue
			}
			size := h.ShmSize
			if size <= 0 {
				size = DefaultShmSize
			}
			m.Options = append(m.Options, "size="+strconv.FormatInt(size, 10))
			if shm := f.Shm; h.IpcMode.IsHost() || shm != "" {
				if shm == "" {
					shm = m.Destination
				}
				m = specs.Mount{Destination: m.Destination, Type: "bind", Source: shm, Options: []string{"rbind", "rprivate", "nosuid", "noexec", "nodev"}}
			}
		}
		b.Spec.Mounts = append(b.Spec.Mounts, m)
	}
	slices.SortStableFunc(user, func(a, b specs.Mount) int { return depth(a.Destination) - depth(b.Destination) })
	b.Spec.Mounts = append(b.Spec.Mounts, user...)
	b.Spec.Linux.RootfsPropagation = rootPropagation(f.Mounts)
	return nil
}

func depth(p string) int { return strings.Count(path.Clean(p), "/") }

func without(options []string, drop string) []string {
	return slices.DeleteFunc(slices.Clone(options), func(o string) bool { return o == drop })
}

// userMounts turns volumes, binds and tmpfs into mounts of the runtime-spec.
func userMounts(f *Facts) ([]specs.Mount, error) {
	var all []specs.Mount
	for _, m := range f.Mounts {
		if m.Type == mount.TypeImage {
			all = append(all, imageMount(m, f.Record.IDs))
			continue
		}
		if m.File != nil {
			all = append(all, oci.FileMount(m.Destination, m.File.Content, m.File.Mode, m.File.UID, m.File.GID, "ro", "nosuid", "nodev"))
			continue
		}
		one := UserMount(m)
		switch {
		case m.IDMap:
			one.Options = append(one.Options, oci.OwnerIsRoot)
		case !f.Record.IDs.IsZero() && m.Type == mount.TypeVolume && f.Root.IDs.Empty():
			one.Options = append(one.Options, "idmap") // so that root's files in a volume are root's on disk, whoever has it next
		}
		all = append(all, one)
	}
	for _, dst := range slices.Sorted(maps.Keys(f.host().Tmpfs)) {
		var given []string
		if o := f.host().Tmpfs[dst]; o != "" {
			given = strings.Split(o, ",")
		}
		all = append(all, specs.Mount{Destination: path.Clean(dst), Type: "tmpfs", Source: "tmpfs", Options: tmpfsOptions(given, false)})
	}
	return all, nil
}

// UserMount is one volume, bind or tmpfs as the container format has it.
func UserMount(m Mount) specs.Mount {
	if m.Type == mount.TypeTmpfs {
		return specs.Mount{Destination: m.Destination, Type: "tmpfs", Source: "tmpfs", Options: tmpfsOptions(m.Options, m.ReadOnly)}
	}
	options := []string{"rbind"}
	if !m.Recursive && m.Type == mount.TypeBind {
		options[0] = "bind"
	}
	switch {
	case m.ReadOnly && m.Recursive && !m.ReadOnlyTop:
		options = append(options, "rro") // runtime-spec 1.1: with all that is mounted below
	case m.ReadOnly:
		options = append(options, "ro")
	default:
		options = append(options, "rw")
	}
	propagation := m.Propagation
	if propagation == "" {
		propagation = mount.PropagationRPrivate
	}
	options = append(options, string(propagation))
	if m.Subpath != "" {
		options = append(options, oci.Subpath+m.Subpath)
	}
	return specs.Mount{Destination: m.Destination, Type: "bind", Source: m.Path, Options: options}
}

// imageMount shows the tree of an image. Only a build's may be written to: it has a part of its own for that.
func imageMount(m Mount, ids container.IDs) specs.Mount {
	one := specs.Mount{Destination: m.Destination, Type: m.Tree.Type, Source: m.Tree.Source, Options: slices.Clone(m.Tree.Options)}
	if one.Type == "bind" {
		one.Options = append(one.Options, "bind")
	} else {
		one.Options = append(one.Options, oci.Outside)
	}
	if m.ReadOnly {
		one.Options = append(one.Options, "ro")
	}
	one.Options = append(one.Options, string(mount.PropagationRPrivate))
	if m.Subpath != "" {
		one.Options = append(one.Options, oci.Subpath+m.Subpath)
	}
	if !m.Shifted {
		one.UIDMappings, one.GIDMappings = ids.UIDs, ids.GIDs
	}
	return one
}

// tmpfsOptions puts the user's options over noexec, nosuid and nodev, which their opposites lift.
func tmpfsOptions(given []string, readOnly bool) []string {
	options := []string{}
	for _, d := range []string{"noexec", "nosuid", "nodev"} {
		if !slices.Contains(given, strings.TrimPrefix(d, "no")) && !slices.Contains(given, d) {
			options = append(options, d)
		}
	}
	options = append(options, given...)
	if readOnly && !slices.Contains(options, "ro") {
		options = append(options, "ro")
	}
	return options
}

// rootPropagation is what the container's whole tree must be, for its binds to hear from the host's mounts.
func rootPropagation(mounts []Mount) string {
	propagation := ""
	for _, m := range mounts {
		switch m.Propagation {
		case mount.PropagationShared, mount.PropagationRShared:
			return "shared"
		case mount.PropagationSlave, mount.PropagationRSlave:
			propagation = "rslave"
		}
	}
	return propagation
}

// fileRule binds the container's own hosts, hostname and resolv.conf, where the user puts nothing else.
func fileRule(f *Facts, b *oci.Bundle) error {
	if f.Files == "" {
		return nil
	}
	for _, name := range []string{"resolv.conf", "hostname", "hosts"} {
		dst := "/etc/" + name
		if slices.ContainsFunc(b.Spec.Mounts, func(m specs.Mount) bool { return m.Destination == dst }) {
			continue
		}
		access := "rw"
		if f.host().ReadonlyRootfs {
			access = "ro"
		}
		b.Spec.Mounts = append(b.Spec.Mounts, specs.Mount{
			Destination: dst, Type: "bind", Source: f.Files + "/" + name, Options: []string{"bind", access, "rprivate"},
		})
	}
	return nil
}
