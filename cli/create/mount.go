package create

import (
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"berth/cli/format"

	"github.com/moby/moby/api/types/mount"
)

// parseVolume reads one -v: [source:]path[:options]. A bind or a named volume comes
// back as the API takes it, with a relative source made absolute; a path alone is an anonymous volume.
func parseVolume(v string) (bind, anonymous string, err error) {
	parts := strings.Split(v, ":")
	if v == "" {
		return "", "", errors.New("invalid empty volume spec")
	}
	if len(parts) > 1 && len(parts[0]) == 1 && strings.HasPrefix(parts[1], `\`) {
		return "", "", fmt.Errorf("invalid volume specification: '%s': a path of Windows: name one of this machine, /path", v)
	}
	for _, p := range parts {
		if p == "" {
			return "", "", fmt.Errorf("invalid volume specification: '%s': empty section between colons", v)
		}
	}
	switch {
	case len(parts) > 3:
		return "", "", fmt.Errorf("invalid volume specification: '%s': too many colons; use [source:]path[:options]", v)
	case len(parts) == 1:
		return "", v, nil
	}
	if strings.HasPrefix(v, ".") {
		abs, err := filepath.Abs(parts[0])
		if err != nil {
			return "", "", err
		}
		v = abs + ":" + strings.Join(parts[1:], ":")
	}
	return v, "", nil
}

// parseMount reads one --mount: comma-separated key=value fields.
func parseMount(v string) (mount.Mount, error) {
	m := mount.Mount{Type: mount.TypeVolume}
	fields, err := csv.NewReader(strings.NewReader(strings.TrimSpace(v))).Read()
	if err != nil {
		if v == "" {
			err = errors.New("value is empty")
		}
		return m, err
	}
	for _, f := range fields {
		key, value, hasValue := strings.Cut(f, "=")
		key = strings.ToLower(strings.TrimSpace(key))
		if !hasValue && !boolKey(key) {
			return m, fmt.Errorf("invalid field '%s' must be a key=value pair", f)
		}
		if strings.TrimSpace(value) != value {
			return m, fmt.Errorf("invalid option '%s' in '%s': option should not have whitespace", f, v)
		}
		if err := mountField(&m, key, value, hasValue, f); err != nil {
			return m, err
		}
	}
	return m, checkMount(&m, v)
}

func boolKey(key string) bool {
	return key == "readonly" || key == "ro" || key == "volume-nocopy" || key == "bind-nonrecursive" || key == "bind-create-src"
}

// flagValue reads a field that may stand without a value, then meaning true.
func flagValue(key, value string, hasValue bool) (bool, error) {
	if !hasValue {
		return true, nil
	}
	switch value {
	case "true", "1":
		return true, nil
	case "false", "0":
		return false, nil
	}
	return false, fmt.Errorf("invalid value for %s: %s", key, value)
}

func mountField(m *mount.Mount, key, value string, hasValue bool, field string) (err error) {
	switch key {
	case "type":
		m.Type = mount.Type(strings.ToLower(value))
	case "source", "src":
		m.Source = value
		if strings.HasPrefix(value, "."+string(filepath.Separator)) || value == "." || value == ".." || strings.HasPrefix(value, "../") {
			m.Source, err = filepath.Abs(value)
		}
	case "target", "dst", "destination":
		m.Target = value
	case "readonly", "ro":
		m.ReadOnly, err = flagValue(key, value, hasValue)
	case "consistency":
		m.Consistency = mount.Consistency(strings.ToLower(value))
	default:
		group, _, _ := strings.Cut(key, "-")
		switch group {
		case "bind":
			return bindField(m, key, value, hasValue, field)
		case "volume":
			return volumeField(m, key, value, hasValue, field)
		case "tmpfs":
			return tmpfsField(m, key, value, field)
		case "image":
			if key == "image-subpath" {
				m.ImageOptions = &mount.ImageOptions{Subpath: value}
				return nil
			}
		}
		return fmt.Errorf("unexpected key '%s' in '%s'", key, field)
	}
	return err
}

func bindField(m *mount.Mount, key, value string, hasValue bool, field string) (err error) {
	if m.BindOptions == nil {
		m.BindOptions = &mount.BindOptions{}
	}
	b := m.BindOptions
	switch key {
	case "bind-propagation":
		b.Propagation = mount.Propagation(strings.ToLower(value))
	case "bind-create-src":
		b.CreateMountpoint, err = flagValue(key, value, hasValue)
	case "bind-nonrecursive":
		return errors.New("bind-nonrecursive is no longer supported, use bind-recursive=disabled instead")
	case "bind-recursive":
		switch value {
		case "enabled":
		case "disabled":
			b.NonRecursive = true
		case "writable":
			b.ReadOnlyNonRecursive = true
		case "readonly":
			b.ReadOnlyForceRecursive = true
		default:
			return fmt.Errorf(`invalid value for %s: %s (must be "enabled", "disabled", "writable", or "readonly")`, key, value)
		}
	default:
		return fmt.Errorf("unexpected key '%s' in '%s'", key, field)
	}
	return err
}

func volumeField(m *mount.Mount, key, value string, hasValue bool, field string) (err error) {
	if m.VolumeOptions == nil {
		m.VolumeOptions = &mount.VolumeOptions{}
	}
	o := m.VolumeOptions
	driver := func() *mount.Driver {
		if o.DriverConfig == nil {
			o.DriverConfig = &mount.Driver{}
		}
		return o.DriverConfig
	}
	set := func(to *map[string]string) {
		if *to == nil {
			*to = map[string]string{}
		}
		k, v, _ := strings.Cut(value, "=")
		(*to)[k] = v
	}
	switch key {
	case "volume-subpath":
		o.Subpath = value
	case "volume-nocopy":
		o.NoCopy, err = flagValue(key, value, hasValue)
	case "volume-label":
		set(&o.Labels)
	case "volume-driver":
		driver().Name = value
	case "volume-opt":
		set(&driver().Options)
	default:
		return fmt.Errorf("unexpected key '%s' in '%s'", key, field)
	}
	return err
}

func tmpfsField(m *mount.Mount, key, value, field string) error {
	if m.TmpfsOptions == nil {
		m.TmpfsOptions = &mount.TmpfsOptions{}
	}
	switch key {
	case "tmpfs-size":
		n, err := format.ParseSize(value)
		if err != nil {
			return fmt.Errorf("invalid value for %s: %s", key, value)
		}
		m.TmpfsOptions.SizeBytes = n
	case "tmpfs-mode":
		n, err := strconv.ParseUint(value, 8, 32)
		if err != nil {
			return fmt.Errorf("invalid value for %s: %s", key, value)
		}
		m.TmpfsOptions.Mode = os.FileMode(n)
	case "tmpfs-options":
		for _, o := range strings.Split(value, ",") {
			pair := strings.SplitN(o, "=", 2)
			m.TmpfsOptions.Options = append(m.TmpfsOptions.Options, pair)
		}
	default:
		return fmt.Errorf("unexpected key '%s' in '%s'", key, field)
	}
	return nil
}

// checkMount looks for what no field can tell alone.
func checkMount(m *mount.Mount, v string) error {
	if m.Type == "" {
		return errors.New("type is required")
	}
	if m.Target == "" {
		return errors.New("target is required")
	}
	for _, o := range []struct {
		given bool
		kind  mount.Type
	}{
		{m.VolumeOptions != nil, mount.TypeVolume}, {m.BindOptions != nil, mount.TypeBind},
		{m.TmpfsOptions != nil, mount.TypeTmpfs}, {m.ImageOptions != nil, mount.TypeImage},
	} {
		if o.given && m.Type != o.kind {
			return fmt.Errorf("cannot mix '%s-*' options with mount type '%s'", o.kind, m.Type)
		}
	}
	if b := m.BindOptions; b != nil {
		if b.ReadOnlyNonRecursive && !m.ReadOnly {
			return errors.New("option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction")
		}
		if b.ReadOnlyForceRecursive {
			if !m.ReadOnly {
				return errors.New("option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction")
			}
			if b.Propagation != mount.PropagationRPrivate {
				return errors.New("option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction")
			}
		}
	}
	return nil
}
