package request

import (
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"berth/container"
	"berth/fault"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
)

// Mounts reads every way in which a user can ask for a volume, bind or tmpfs. Volumes
// without a name get none here. others finds the mounts of --volumes-from.
func Mounts(c *api.Config, h *api.HostConfig, others func(ref string) ([]container.Mount, error)) ([]container.Mount, error) {
	byDestination := map[string]container.Mount{}
	explicit := map[string]bool{}
	put := func(m container.Mount) error {
		if explicit[m.Destination] {
			return fault.New(fault.Invalid, "Duplicate mount point: %s", m.Destination)
		}
		explicit[m.Destination] = true
		byDestination[m.Destination] = m
		return nil
	}
	for _, from := range h.VolumesFrom {
		inherited, err := volumesFrom(from, others)
		if err != nil {
			return nil, err
		}
		for _, m := range inherited {
			byDestination[m.Destination] = m
		}
	}
	for _, s := range h.Binds {
		m, err := parseBind(s)
		if err == nil {
			err = put(m)
		}
		if err != nil {
			return nil, err
		}
	}
	for _, asked := range h.Mounts {
		m, err := readMount(asked)
		if err == nil {
			err = put(m)
		}
		if err != nil {
			return nil, err
		}
	}
	for dst := range h.Tmpfs {
		if err := checkDestination(dst); err != nil {
			return nil, err
		}
		if explicit[path.Clean(dst)] {
			return nil, fault.New(fault.Invalid, "Duplicate mount point: %s", dst)
		}
		explicit[path.Clean(dst)] = true
	}
	for dst := range c.Volumes {
		if err := checkDestination(dst); err != nil {
			return nil, err
		}
		dst = path.Clean(dst)
		if _, taken := byDestination[dst]; !taken && !explicit[dst] {
			byDestination[dst] = container.Mount{Type: mount.TypeVolume, Destination: dst, Anonymous: true}
		}
	}
	return slices.SortedFunc(maps.Values(byDestination), func(a, b container.Mount) int { return strings.Compare(a.Destination, b.Destination) }), nil
}

func volumesFrom(spec string, others func(ref string) ([]container.Mount, error)) ([]container.Mount, error) {
	ref, mode, _ := strings.Cut(spec, ":")
	if ref == "" {
		return nil, fault.New(fault.Invalid, "invalid volumes-from specification: '%s'", spec)
	}
	for _, word := range strings.Split(mode, ",") {
		if !slices.Contains([]string{"", "ro", "rw", "z", "Z"}, word) {
			return nil, fault.New(fault.Invalid, "invalid mode: %s", mode)
		}
	}
	mounts, err := others(ref)
	if err != nil {
		return nil, err
	}
	mounts = slices.Clone(mounts)
	for i := range mounts {
		// What goes with the other container does not go with this one.
		mounts[i].Anonymous = false
		if slices.Contains(strings.Split(mode, ","), "ro") {
			mounts[i].ReadOnly = true
		}
	}
	return mounts, nil
}

func checkDestination(dst string) error {
	if !path.IsAbs(dst) {
		return fault.New(fault.Invalid, "invalid mount path: '%s' mount path must be absolute", dst)
	}
	if path.Clean(dst) == "/" {
		return fault.New(fault.Invalid, "invalid specification: destination can't be '/'")
	}
	return nil
}

// parseBind reads "source:destination:mode" of -v; a source that is no path names a volume.
func parseBind(s string) (container.Mount, error) {
	parts := strings.Split(s, ":")
	m := container.Mount{Propagation: mount.PropagationRPrivate, Recursive: true}
	var source string
	switch len(parts) {
	case 1:
		m.Destination = parts[0]
	case 2:
		source, m.Destination = parts[0], parts[1]
	case 3:
		source, m.Destination, m.Mode = parts[0], parts[1], parts[2]
	}
	if len(parts) > 3 || len(parts) > 1 && source == "" || m.Destination == "" {
		return m, fault.New(fault.Invalid, "invalid volume specification: '%s'", s)
	}
	if err := checkDestination(m.Destination); err != nil {
		return m, fault.New(fault.Invalid, "invalid volume specification: '%s': %w", s, err)
	}
	m.Destination = path.Clean(m.Destination)
	switch {
	case path.IsAbs(source):
		m.Type, m.Source = mount.TypeBind, path.Clean(source)
	case source == "":
		m.Type, m.Anonymous, m.Propagation = mount.TypeVolume, true, ""
	default:
		m.Type, m.Name, m.Propagation = mount.TypeVolume, source, ""
		if strings.ContainsRune(source, '/') {
			return m, fault.New(fault.Invalid, "create %s: %q includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path", source, source)
		}
	}
	return m, parseMode(&m)
}

// parseMode reads the words behind a bind's second colon.
func parseMode(m *container.Mount) error {
	if m.Mode == "" {
		return nil
	}
	seen := map[string]bool{}
	for _, word := range strings.Split(m.Mode, ",") {
		kind := word
		switch p := mount.Propagation(word); {
		case word == "ro" || word == "rw":
			kind, m.ReadOnly = "access", word == "ro"
		case word == "z" || word == "Z":
			kind = "label" // of SELinux, which takes no part
		case word == "nocopy" && m.Type == mount.TypeVolume:
			m.NoCopy = true
		case word == "idmap" && m.Type == mount.TypeBind:
			m.IDMap = true
		case slices.Contains(mount.Propagations, p) && m.Type == mount.TypeBind:
			kind, m.Propagation = "propagation", p
		case (word == "cached" || word == "delegated" || word == "consistent") && m.Type == mount.TypeBind:
			kind = "consistency"
		default:
			return fault.New(fault.Invalid, "invalid mode: %s", m.Mode)
		}
		if seen[kind] {
			return fault.New(fault.Invalid, "invalid mode: %s", m.Mode)
		}
		seen[kind] = true
	}
	return nil
}

// readMount reads one of --mount.
func readMount(a mount.Mount) (container.Mount, error) {
	m := container.Mount{Type: a.Type, Destination: path.Clean(a.Target), ReadOnly: a.ReadOnly, Recursive: true, Explicit: true}
	bad := func(format string, args ...any) error {
		return fault.New(fault.Invalid, "invalid mount config for type %q: %w", a.Type, fault.New(fault.Invalid, format, args...))
	}
	if a.Target == "" {
		return m, bad("field Target must not be empty")
	}
	if err := checkDestination(a.Target); err != nil {
		return m, bad("%w", err)
	}
	switch a.Type {
	case mount.TypeBind:
		if a.Source == "" {
			return m, bad("field Source must not be empty")
		}
		if !path.IsAbs(a.Source) {
			return m, bad("invalid mount path: '%s' mount path must be absolute", a.Source)
		}
		m.Source, m.Propagation = path.Clean(a.Source), mount.PropagationRPrivate
		if o := a.BindOptions; o != nil {
			m.Recursive = !o.NonRecursive
			m.Explicit = !o.CreateMountpoint
			m.ReadOnlyTop = o.ReadOnlyNonRecursive
			if o.Propagation != "" {
				m.Propagation = o.Propagation
			}
			if !slices.Contains(mount.Propagations, m.Propagation) {
				return m, bad("invalid propagation mode: %s", o.Propagation)
			}
		}
	case mount.TypeVolume:
		m.Name, m.Anonymous = a.Source, a.Source == ""
		if o := a.VolumeOptions; o != nil {
			m.NoCopy, m.Subpath, m.Labels = o.NoCopy, o.Subpath, o.Labels
			if o.Subpath != "" && !filepath.IsLocal(o.Subpath) {
				return m, bad("subpath must be a relative path within the volume")
			}
			if d := o.DriverConfig; d != nil && d.Name != "" && d.Name != "local" {
				return m, bad("error looking up volume plugin %s: plugin %q not found", d.Name, d.Name)
			}
			if d := o.DriverConfig; d != nil && len(d.Options) > 0 {
				return m, bad("volume-opt is not supported by this version of berth: volumes are directories; mount the file system on the host and bind it")
			}
		}
	case mount.TypeTmpfs:
		if a.Source != "" {
			return m, bad("field Source must not be specified")
		}
		m.Options = tmpfsMountOptions(a)
	case mount.TypeImage:
		return m, bad("mounting images is not supported by this version of berth; copy the files out with berth cp")
	default:
		return m, bad("mount type unknown")
	}
	return m, nil
}

// tmpfsMountOptions reads the options of --mount type=tmpfs.
func tmpfsMountOptions(a mount.Mount) []string {
	var options []string
	o := a.TmpfsOptions
	if o == nil {
		return nil
	}
	if o.SizeBytes > 0 {
		options = append(options, "size="+strconv.FormatInt(o.SizeBytes, 10))
	}
	if o.Mode != 0 {
		options = append(options, fmt.Sprintf("mode=%o", o.Mode))
	}
	for _, pair := range o.Options {
		options = append(options, strings.Join(pair, "="))
	}
	return options
}
