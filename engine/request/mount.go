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
		m, err := parseBind(s, h.VolumeDriver)
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
		delete(byDestination, path.Clean(dst)) // it goes before what another container has there
	}
	for dst := range c.Volumes {
		if err := checkDestination(dst); err != nil {
			return nil, err
		}
		dst = path.Clean(dst)
		if _, taken := byDestination[dst]; !taken && !explicit[dst] {
			byDestination[dst] = container.Mount{Type: mount.TypeVolume, Destination: dst, Anonymous: true, Recursive: true, Driver: h.VolumeDriver}
		}
	}
	return slices.SortedFunc(maps.Values(byDestination), func(a, b container.Mount) int { return strings.Compare(a.Destination, b.Destination) }), nil
}

// volumesFrom reads one --volumes-from, and gives the mounts of that container as this one has them.
func volumesFrom(spec string, others func(ref string) ([]container.Mount, error)) ([]container.Mount, error) {
	if spec == "" {
		return nil, fault.New(fault.Invalid, "volumes-from specification cannot be an empty string")
	}
	ref, words, _ := strings.Cut(spec, ":")
	if ref == "" {
		return nil, fault.New(fault.Invalid, "invalid volumes-from specification: '%s'", spec)
	}
	mode, ok := parseMode(words)
	if !ok || mode.propagation != "" || mode.noCopy || mode.idMap {
		return nil, fault.New(fault.Invalid, "invalid mode: %s", words)
	}
	mounts, err := others(ref)
	if err != nil {
		return nil, err
	}
	mounts = slices.Clone(mounts)
	for i := range mounts {
		m := &mounts[i]
		// What goes with the other container does not go with this one, and what that one has is copied no more.
		m.Anonymous, m.NoCopy, m.Mode, m.Root = false, true, "", ""
		m.ReadOnly = m.ReadOnly || mode.readOnly
	}
	return mounts, nil
}

func checkDestination(dst string) error {
	if path.Clean(dst) == "/" {
		return fault.New(fault.Invalid, "invalid specification: destination can't be '/'")
	}
	if !path.IsAbs(dst) {
		return fault.New(fault.Invalid, "invalid mount path: '%s' mount path must be absolute", dst)
	}
	return nil
}

// parseBind reads "source:destination:mode" of -v; a source that is no path names a volume, of driver.
func parseBind(s, driver string) (container.Mount, error) {
	bad := fault.New(fault.Invalid, "invalid volume specification: '%s'", s)
	parts := strings.Split(s, ":")
	if len(parts) > 3 || parts[0] == "" {
		return container.Mount{}, bad
	}
	asked := mount.Mount{Type: mount.TypeVolume, Target: parts[len(parts)-1]}
	words := ""
	if len(parts) == 3 {
		asked.Target, words = parts[1], parts[2]
	}
	if len(parts) > 1 {
		asked.Source = parts[0]
	}
	if _, isMode := parseMode(asked.Target); len(parts) == 2 && isMode { // a mode needs a source
		return container.Mount{}, bad
	}
	mode, ok := parseMode(words)
	if !ok {
		return container.Mount{}, fault.New(fault.Invalid, "invalid mode: %s", words)
	}
	if path.IsAbs(asked.Source) {
		asked.Type = mount.TypeBind
	} else if driver != "" {
		asked.VolumeOptions = &mount.VolumeOptions{DriverConfig: &mount.Driver{Name: driver}}
	}
	if mode.noCopy {
		if asked.VolumeOptions == nil {
			asked.VolumeOptions = &mount.VolumeOptions{}
		}
		asked.VolumeOptions.NoCopy = true
	}
	if mode.propagation != "" {
		asked.BindOptions = &mount.BindOptions{Propagation: mode.propagation}
	}
	asked.ReadOnly = mode.readOnly
	m, err := readMount(asked)
	if err == nil && mode.idMap && m.Type != mount.TypeBind {
		err = fault.New(fault.Invalid, "idmap is for directories and files of the host: a volume's owners need no mapping")
	}
	if err != nil {
		return m, fault.New(fault.Invalid, "%w: %w", bad, err)
	}
	if words != "" {
		m.Mode = words
	}
	m.IDMap, m.Explicit = mode.idMap, false
	return m, nil
}

// bindMode is what the words behind a bind's second colon say.
type bindMode struct {
	readOnly, noCopy, idMap bool
	propagation             mount.Propagation
}

// parseMode reads them; of each kind there may be one.
func parseMode(words string) (m bindMode, ok bool) {
	if words == "" {
		return m, true
	}
	seen := map[string]bool{}
	for _, word := range strings.Split(words, ",") {
		kind := word
		switch p := mount.Propagation(word); {
		case word == "ro" || word == "rw":
			kind, m.readOnly = "access", word == "ro"
		case word == "z" || word == "Z":
			kind = "label" // of SELinux, which takes no part
		case word == "nocopy":
			m.noCopy = true
		case word == "idmap":
			m.idMap = true
		case slices.Contains(mount.Propagations, p):
			kind, m.propagation = "propagation", p
		case word == "cached" || word == "delegated" || word == "consistent":
			kind = "consistency" // of a virtual machine's shared files, which takes no part
		default:
			return m, false
		}
		if seen[kind] {
			return m, false
		}
		seen[kind] = true
	}
	return m, true
}

// checkFields refuses options that belong to another type of mount.
func checkFields(a mount.Mount) error {
	for _, o := range []struct {
		name  string
		given bool
		of    mount.Type
	}{
		{"BindOptions", a.BindOptions != nil, mount.TypeBind}, {"VolumeOptions", a.VolumeOptions != nil, mount.TypeVolume},
		{"ImageOptions", a.ImageOptions != nil, mount.TypeImage}, {"TmpfsOptions", a.TmpfsOptions != nil, mount.TypeTmpfs},
	} {
		if o.given && a.Type != o.of {
			return fault.New(fault.Invalid, "field %s must not be specified", o.name)
		}
	}
	switch hasSource := a.Source != ""; {
	case hasSource && a.Type == mount.TypeTmpfs:
		return fault.New(fault.Invalid, "field Source must not be specified")
	case !hasSource && (a.Type == mount.TypeBind || a.Type == mount.TypeImage):
		return fault.New(fault.Invalid, "field Source must not be empty")
	}
	return nil
}

// readMount reads one of --mount.
func readMount(a mount.Mount) (container.Mount, error) {
	m := container.Mount{Type: a.Type, Destination: path.Clean(a.Target), ReadOnly: a.ReadOnly, Recursive: true, Explicit: true}
	err := fault.New(fault.Invalid, "field Target must not be empty")
	if a.Target != "" {
		err = checkDestination(a.Target)
	}
	if err == nil {
		err = readTyped(a, &m)
	}
	if err != nil {
		return m, fault.New(fault.Invalid, "invalid mount config for type %q: %w", a.Type, err)
	}
	return m, nil
}

func readTyped(a mount.Mount, m *container.Mount) (err error) {
	if !slices.Contains([]mount.Type{mount.TypeBind, mount.TypeVolume, mount.TypeTmpfs, mount.TypeImage}, a.Type) {
		return fault.New(fault.Invalid, "mount type unknown")
	}
	if err := checkFields(a); err != nil {
		return err
	}
	switch a.Type {
	case mount.TypeBind:
		return readBind(a, m)
	case mount.TypeVolume:
		return readVolume(a, m)
	case mount.TypeTmpfs:
		m.Options, err = tmpfsMountOptions(a)
		return err
	}
	m.Source, m.ReadOnly, m.Propagation = a.Source, true, mount.PropagationRPrivate
	if a.ImageOptions != nil {
		m.Subpath = a.ImageOptions.Subpath
	}
	return checkSubpath(m.Subpath)
}

func readBind(a mount.Mount, m *container.Mount) error {
	m.Propagation = mount.PropagationRPrivate
	o := a.BindOptions
	if o != nil {
		m.Recursive = !o.NonRecursive
		m.Explicit = !o.CreateMountpoint
		m.ReadOnlyTop = o.ReadOnlyNonRecursive
		if o.Propagation != "" {
			m.Propagation = o.Propagation
		}
	}
	switch {
	case !slices.Contains(mount.Propagations, m.Propagation):
		return fault.New(fault.Invalid, "invalid propagation mode: %s", m.Propagation)
	case !path.IsAbs(a.Source):
		return fault.New(fault.Invalid, "invalid mount path: '%s' mount path must be absolute", a.Source)
	case o != nil && o.ReadOnlyForceRecursive && !a.ReadOnly:
		return fault.New(fault.Invalid, "ReadOnlyForceRecursive needs ReadOnly")
	case o != nil && o.ReadOnlyForceRecursive && (o.NonRecursive || o.ReadOnlyNonRecursive):
		return fault.New(fault.Invalid, "ReadOnlyForceRecursive contradicts NonRecursive and ReadOnlyNonRecursive")
	}
	m.Source = path.Clean(a.Source)
	return nil
}

func readVolume(a mount.Mount, m *container.Mount) error {
	m.Name, m.Anonymous = a.Source, a.Source == ""
	o := a.VolumeOptions
	if o == nil {
		o = &mount.VolumeOptions{}
	}
	m.NoCopy, m.Subpath, m.Labels = o.NoCopy, o.Subpath, o.Labels
	if d := o.DriverConfig; d != nil {
		m.Driver, m.DriverOptions = d.Name, d.Options
	}
	if m.Driver == "" || m.Driver == "local" {
		m.Mode = "z" // as clients are used to see, who asked for nothing
	}
	if m.Subpath != "" && m.Anonymous {
		return fault.New(fault.Invalid, "must not set Subpath when using anonymous volumes")
	}
	return checkSubpath(m.Subpath)
}

func checkSubpath(sub string) error {
	if sub != "" && !filepath.IsLocal(sub) {
		return fault.New(fault.Invalid, "subpath must be a relative path within the volume")
	}
	return nil
}

// tmpfsMountOptions reads the options of --mount type=tmpfs.
func tmpfsMountOptions(a mount.Mount) ([]string, error) {
	var options []string
	o := a.TmpfsOptions
	if o == nil {
		return nil, nil
	}
	if o.SizeBytes > 0 {
		options = append(options, "size="+strconv.FormatInt(o.SizeBytes, 10))
	}
	if o.Mode != 0 {
		options = append(options, fmt.Sprintf("mode=%o", o.Mode))
	}
	for _, pair := range o.Options {
		if len(pair) < 1 || len(pair) > 2 {
			return nil, fault.New(fault.Invalid, "invalid option array length")
		}
		if !slices.Contains(tmpfsWords(), pair[0]) {
			return nil, fault.New(fault.Invalid, "invalid option: %s", pair[0])
		}
		options = append(options, strings.Join(pair, "="))
	}
	return options, nil
}

// tmpfsWords are the options of a tmpfs (tmpfs(5)) beside size and mode, and those of any mount.
func tmpfsWords() []string {
	return []string{"exec", "noexec", "suid", "nosuid", "dev", "nodev", "noatime", "relatime", "uid", "gid", "nr_inodes", "nr_blocks", "huge", "mpol"}
}
