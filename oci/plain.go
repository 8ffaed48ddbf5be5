package oci

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/fault"
	"berth/kernel"
	"berth/kernel/namespace"
)

// Foreign is another OCI runtime that is to make a container instead of us.
type Foreign struct {
	Name string   `json:"name"`           // as the user calls it
	Path string   `json:"path"`           // of its program
	Args []string `json:"args,omitempty"` // before the verb
}

// Plain mounts the bundle's root at dir/rootfs and makes a spec of it that any runtime takes: the user in numbers,
// rights within our own, no field of ours. It runs on a thread of its own that is thrown away with the mounts, and calls use there:
// what use starts sees them.
func (b *Bundle) Plain(dir string, use func(spec *specs.Spec, warnings []string) error) error {
	if err := b.check(); err != nil {
		return err
	}
	if b.Spec.Root == nil {
		return fault.New(fault.Invalid, "the bundle has no root file system")
	}
	spec, process, root := *b.Spec, *b.Spec.Process, *b.Spec.Root
	spec.Process, spec.Root = &process, &root
	spec.Version = "1.0.2" // what every runtime takes; some refuse a newer version than their own, none an unknown field
	if len(b.Rootfs) > 0 {
		root.Path = filepath.Join(dir, "rootfs")
		if err := os.MkdirAll(root.Path, 0o711); err != nil {
			return err
		}
	}
	return kernel.Thread(func() error {
		t := &tree{bundle: b, spec: &spec}
		defer t.close()
		if err := errors.Join(kernel.UnshareFS(), namespace.Unshare(namespace.Mount)); err != nil {
			return err
		}
		if err := kernel.Propagation("/", kernel.PropSlave, true); err != nil {
			return err
		}
		if err := t.mountRoot(); err != nil {
			return err
		}
		if err := prepareAll(t, &spec, dir); err != nil {
			return err
		}
		warnings, err := b.plainProcess(&process, t.root, b.User, b.GroupAdd, b.UserFromSpec)
		if err != nil {
			return err
		}
		return use(&spec, warnings)
	})
}

// prepareAll puts below dir what no other runtime can reach or make: what lies in other containers, parts of a source, and what has options of ours.
func prepareAll(t *tree, spec *specs.Spec, dir string) error {
	spec.Mounts = slices.Clone(spec.Mounts)
	for k, m := range spec.Mounts {
		o := parseOptions(m.Options)
		if _, _, ok := borrowed(m.Source); !ok && o.subpath == "" && !o.outside && !o.idmapOwner && m.Type != fileType {
			continue
		}
		if o.idmapOwner && len(spec.Linux.UIDMappings) > 0 {
			return fault.New(fault.Unsupported, "mount %s: idmap in a user namespace needs a runtime of ours", m.Destination)
		}
		place := filepath.Join(dir, fmt.Sprintf("shared-%d", k))
		if err := prepare(t, m, o, place); err != nil {
			return err
		}
		kept := []string{"rbind"}
		for _, name := range m.Options {
			if !slices.Contains(o.data, name) && !strings.HasPrefix(name, Subpath) && !slices.Contains([]string{Outside, OwnerIsRoot, "bind", "rbind"}, name) {
				kept = append(kept, name)
			}
		}
		spec.Mounts[k] = specs.Mount{Destination: m.Destination, Type: "bind", Source: place, Options: kept}
	}
	return nil
}

// prepare makes a mount and puts it at place.
func prepare(t *tree, m specs.Mount, o mountOptions, place string) error {
	f, err := t.newMount(m, o, nil)
	if err != nil {
		return err
	}
	defer f.Close()
	if dir, err := kernel.IsDir(f); err != nil {
		return err
	} else if dir {
		err = os.MkdirAll(place, 0o711)
		if err != nil {
			return err
		}
	} else if err := os.WriteFile(place, nil, 0o600); err != nil {
		return err
	}
	target, err := kernel.OpenIn(nil, place, kernel.OPath, 0, 0)
	if err != nil {
		return err
	}
	defer target.Close()
	return kernel.AttachMount(f, target)
}

// PlainProcess is Plain for one more process of the running container whose first process is pid.
func (b *Bundle) PlainProcess(e ExecSpec, pid int) (*specs.Process, []string, error) {
	root, err := kernel.OpenIn(nil, fmt.Sprintf("/proc/%d/root", pid), kernel.OPath|kernel.ODirectory, 0, 0)
	if err != nil {
		return nil, nil, err
	}
	defer root.Close()
	process := e.Process
	warnings, err := b.plainProcess(&process, root, e.User, e.GroupAdd, e.UserFromSpec)
	return &process, warnings, err
}

// plainProcess puts numbers for names, by the tables of root, and cuts the process's rights down to ours.
func (b *Bundle) plainProcess(p *specs.Process, root *os.File, name string, add []string, fromSpec bool) ([]string, error) {
	var given *specs.User
	if fromSpec {
		given = &p.User
	}
	u, err := findUserIn(root, name, given, add)
	if err != nil {
		return nil, err
	}
	p.User.UID, p.User.GID, p.User.AdditionalGids, p.User.Username = u.uid, u.gid, u.groups, ""
	p.Env = withHome(p.Env, u)
	if p.Cwd == "" {
		p.Cwd = "/"
	}
	r, warnings, err := planRights(p, kernel.BoundingSet())
	if err != nil {
		return nil, err
	}
	if p.Capabilities != nil {
		p.Capabilities = &specs.LinuxCapabilities{
			Bounding: r.bounding.Names(), Effective: r.effective.Names(), Permitted: r.permitted.Names(),
			Inheritable: r.inheritable.Names(), Ambient: r.ambient.Names(),
		}
	}
	limits := slices.Clone(p.Rlimits)
	for k := range limits {
		for _, l := range r.limits {
			if l.Name == limits[k].Type {
				limits[k].Soft, limits[k].Hard = l.Soft, l.Hard
			}
		}
	}
	p.Rlimits = limits
	if p.OOMScoreAdj != nil {
		score, _ := kernel.ClampOOMScore(*p.OOMScoreAdj)
		p.OOMScoreAdj = &score
	}
	return warnings, nil
}
