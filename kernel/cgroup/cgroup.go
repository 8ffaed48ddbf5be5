// Package cgroup limits, freezes, counts and kills groups of processes: cgroup v1, v2 and the
// hybrid of both behind one type.
//
// It is not a policy: what a container gets is decided above, as an OCI specs.LinuxResources.
// Nothing is assumed about where hierarchies are mounted; mountinfo says it. Invariant: a Group
// touches only directories below its own path, and no limit that was asked for is dropped silently:
// it is set, or named in a warning, or an error.
package cgroup

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/fault"
)

// Group is one group in every hierarchy that takes part. It holds no descriptors and needs no Close;
// the directories stay until Delete.
type Group struct {
	path string
	dirs []dir
}

// dir is the group's directory in one hierarchy.
type dir struct {
	h    *Hierarchy
	path string
}

// Create makes the group path, such as "/berth/0f3c", with its parents in every usable hierarchy, and sets
// the limits r (nil: none). An existing group is taken over, its limits are set anew. The strings are warnings for the user: limits
// that this kernel or this mount can't hold. On an error nothing that Create made is left, except parents.
//
// On a hybrid the v2 hierarchy takes part only when r asks for one of its controllers, as a single thread
// can't join a group there (AddThread).
func Create(path string, r *specs.LinuxResources) (*Group, []string, error) {
	return Detect().Create(path, r)
}

// Create is the package's Create in the layout l.
func (l Layout) Create(path string, r *specs.LinuxResources) (*Group, []string, error) {
	if err := checkPath(path); err != nil {
		return nil, nil, err
	}
	if r == nil {
		r = &specs.LinuxResources{}
	}
	g := l.group(path, r)
	if len(g.dirs) == 0 {
		return nil, nil, fault.New(fault.Unavailable, "create cgroup %s: no cgroup hierarchy is mounted where groups can be made; mount one below /sys/fs/cgroup", path)
	}
	made, err := g.mkdir()
	var warnings []string
	if err == nil {
		warnings, err = g.apply(r, true)
	}
	if err != nil {
		for _, d := range slices.Backward(made) {
			unix.Rmdir(d)
		}
		return nil, nil, err
	}
	return g, warnings, nil
}

// Load returns the group path as it is, without looking whether it exists.
func Load(path string) *Group { return Detect().Load(path) }

// Load is the package's Load in the layout l.
func (l Layout) Load(path string) *Group {
	return l.group(path, &specs.LinuxResources{Unified: map[string]string{"": ""}})
}

// checkPath refuses what would reach outside of a hierarchy or be its top.
func checkPath(p string) error {
	if !path.IsAbs(p) || path.Clean(p) != p || p == "/" {
		return fault.New(fault.Invalid, "cgroup path %q: must be absolute, clean and below /", p)
	}
	return nil
}

// group lists the directories of path in the hierarchies that r needs.
func (l Layout) group(path string, r *specs.LinuxResources) *Group {
	g := &Group{path: path}
	for i := range l.Hierarchies {
		h := &l.Hierarchies[i]
		if h.Base == "" || h.Version == 2 && l.Mode == Hybrid && len(r.HugepageLimits) == 0 && len(r.Unified) == 0 {
			continue
		}
		g.dirs = append(g.dirs, dir{h, h.Base + path})
	}
	return g
}

// Path is the group's name, as given to Create or Load.
func (g *Group) Path() string { return g.path }

// Paths gives the group's directory by controller; v2's own is under "".
func (g *Group) Paths() map[string]string {
	paths := map[string]string{}
	for _, d := range g.dirs {
		if d.h.Version == 2 {
			paths[""] = d.path
		}
		for _, c := range d.h.Controllers {
			paths[c] = d.path
		}
	}
	return paths
}

// in returns the directory where controller c of v1 or v2 is, or "".
func (g *Group) in(controller string, version int) string {
	for _, d := range g.dirs {
		if d.h.Version == version && slices.Contains(d.h.Controllers, controller) {
			return d.path
		}
	}
	return ""
}

// v2 returns the group's directory in the v2 hierarchy where that exists, or "".
func (g *Group) v2() string {
	for _, d := range g.dirs {
		if d.h.Version == 2 && exists(d.path) {
			return d.path
		}
	}
	return ""
}

// Add moves the process pid with all its threads into the group. Children that it makes later start there.
func (g *Group) Add(pid int) error { return g.enter("cgroup.procs", pid) }

// AddThread moves one thread (0: the calling one) into the group; processes that it makes later start there.
// v1 only: where v2 takes part the error is fault.Unsupported, and nothing was moved.
func (g *Group) AddThread(tid int) error {
	if g.v2() != "" {
		return fault.New(fault.Unsupported, "cgroup %s: a single thread can't join a v2 group", g.path)
	}
	return g.enter("tasks", tid)
}

func (g *Group) enter(file string, id int) error {
	entered := false
	for _, d := range g.dirs {
		err := write(d.path, file, itoa(int64(id)))
		if errors.Is(err, fs.ErrNotExist) && d.h.Version == 2 {
			continue // a hybrid's, not used by this group
		}
		if err != nil {
			return kind(err)
		}
		entered = true
	}
	if !entered {
		return fault.New(fault.NotFound, "cgroup %s: no such group", g.path)
	}
	return nil
}

// Dir opens the group's directory in the v2 hierarchy, for clone3's CLONE_INTO_CGROUP and for BPF; the caller closes it.
// fault.Unsupported where v2 does not take part.
func (g *Group) Dir() (*os.File, error) {
	d := g.v2()
	if d == "" {
		return nil, fault.New(fault.Unsupported, "cgroup %s: not in a v2 hierarchy", g.path)
	}
	return os.OpenFile(d, unix.O_PATH|unix.O_DIRECTORY, 0)
}

// Set changes the limits of a group in use to what r names; what r leaves out stays. The kernel's rules of order
// (memory below memory+swap, burst below quota) are solved here. The strings are warnings, as from Create. After an error the former values
// are back, as far as the kernel takes them.
func (g *Group) Set(r *specs.LinuxResources) ([]string, error) { return g.apply(r, false) }

// List names the groups directly below parent, in all hierarchies, sorted; none is not an error.
func List(parent string) ([]string, error) { return Detect().List(parent) }

// List is the package's List in the layout l.
func (l Layout) List(parent string) ([]string, error) {
	if err := checkPath(parent); err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, h := range l.Hierarchies {
		if h.Base == "" {
			continue
		}
		entries, err := os.ReadDir(h.Base + parent)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			if e.IsDir() {
				seen[e.Name()] = true
			}
		}
	}
	names := make([]string, 0, len(seen))
	for n := range seen {
		names = append(names, n)
	}
	slices.SortFunc(names, strings.Compare)
	return names, nil
}
