package union

import (
	"os"
	"os/exec"
	"strings"

	"berth/fault"
	"berth/kernel"
)

// stacking is a file system that shows directories on top of each other. Layers are in overlay's form for all of them.
type stacking struct {
	driver  string
	kind    string // of Mount
	source  string
	options []string
}

// overlayStack is the kernel's own.
func overlayStack() stacking {
	return stacking{
		driver: "overlay2", kind: "overlay", source: "overlay",
		// Off whatever the module's defaults are: with them the writable directory
		// alone would not tell what changed, and each doubles the mount's cost.
		options: []string{"index=off", "metacopy=off", "redirect_dir=off"},
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
	return stacking{driver: driver, kind: kernel.FuseOverlay, source: program}, nil
}

// mount is a mount of lower (top first) below upper and work; these are empty for a read-only one.
func (s stacking) mount(lower []string, upper, work string) Mount {
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

// mark tells the names in a writable directory that fuse-overlayfs uses for itself; archive knows them, too.
func mark(name string) bool { return name == ".wh..opq" || strings.HasPrefix(name, ".wh..wh.") }
