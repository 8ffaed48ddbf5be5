package union

import (
	"os"
	"os/exec"
	"slices"
	"strings"

	"berth/fault"
	"berth/kernel"
)

// stacking is a file system that shows directories on top of each other. Layers are in overlay's form for all of them but aufs.
type stacking struct {
	driver  string
	kind    string // of Mount
	source  string
	options []string
	scratch string // where aufs may make a file for a mount that has no directory of its own; "" for others

	// A chain of most layers or more is too long. Its bottom is merged, in steps of step layers, so that chains which share
	// a bottom share the merged directory too.
	most, step int
}

// overlayStack is the kernel's own.
func overlayStack() stacking {
	return stacking{
		driver: "overlay2", kind: "overlay", source: "overlay",
		// Off whatever the module's defaults are: with them the writable directory
		// alone would not tell what changed, and each doubles the mount's cost.
		options: []string{"index=off", "metacopy=off", "redirect_dir=off"},
		most:    500, step: 400, // more is EINVAL
	}
}

// fuseStack is overlay as a program, for kernels without it and for file systems that it doesn't take below it.
func fuseStack(dir string) (s stacking, err error) {
	const driver = "fuse-overlayfs"
	if strings.ContainsAny(dir, ":,\\") {
		return s, fault.New(fault.Unsupported, "storage driver %s: the path %s has a colon, a comma or a backslash, by which the program tells directories apart: choose another --data-root", driver, dir)
	}
	program, err := exec.LookPath("fuse-overlayfs")
	if err != nil {
		return s, fault.New(fault.Unsupported, "storage driver %s needs the program fuse-overlayfs, which is not here: install the package of that name", driver)
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		return s, fault.New(fault.Unsupported, "storage driver %s needs FUSE, which is not here: load the module fuse: %w", driver, err)
	}
	return stacking{driver: driver, kind: kernel.FuseOverlay, source: program, most: 500, step: 400}, nil
}

// mount is a mount of lower (top first) below upper and work; these are empty for a read-only one.
func (s stacking) mount(lower []string, upper, work string) Mount {
	if s.marks() {
		return s.branches(lower, upper, work)
	}
	m := Mount{Type: s.kind, Source: s.source}
	for _, l := range lower {
		m.Options = append(m.Options, "lowerdir+="+l)
	}
	if upper != "" {
		m.Options = append(m.Options, "upperdir="+upper, "workdir="+work)
	}
	m.Options = append(m.Options, s.options...)
	return m
}

// mount is how the root is mounted.
func (s *Stacked) mount() Mount { return s.by.mount(s.Lower, s.Upper, s.Work) }

// alone tells whether a directory can be shown as it is when nothing lies below it.
func (s stacking) alone(dirs []string) bool { return len(dirs) == 1 && !s.marks() }

// names lists what a layer's or a writable directory has, but for what is the file system's own; gone is what it takes away, as far as its names tell.
func (s stacking) names(dir *os.File) (names, gone []string, err error) {
	all, err := dir.Readdirnames(-1)
	if s.marks() {
		names, gone = unmarked(all)
		return names, gone, err
	}
	return slices.DeleteFunc(all, mark), nil, err
}

// opaque tells whether the directory called name hides what lies below it.
func (s stacking) opaque(dir *os.File, name string) (bool, error) {
	if s.marks() {
		return markedOpaque(dir, name)
	}
	return isOpaque(dir, name)
}

// mark tells the names in a writable directory that fuse-overlayfs uses for itself; archive knows them, too.
func mark(name string) bool { return name == ".wh..opq" || strings.HasPrefix(name, ".wh..wh.") }
