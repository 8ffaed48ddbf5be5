// Package toolbox says how programs of one image are put at the side of another container's files, so that a shell with
// tools runs where there is none.
//
// It mounts nothing and chooses no image: it looks into a tree and makes data. Invariant: what it calls a shell
// runs below any directory, in a root that has nothing.
package toolbox

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"berth/fault"
	"berth/oci"
	"berth/union"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Side is where the tools are in a container that runs: a directory that every procfs has, read-only roots or not, that holds nothing a
// shell is needed for (statistics of file systems), and that the container's own processes can't see covered, as the mount is in another mount namespace than theirs.
const Side = "/proc/fs"

// Fresh is where the tools are in a container that is made for them, and made anew.
const Fresh = "/.tools"

// Kit is what an image has to offer.
type Kit struct {
	Shell  string   // below the image's root, without a leading slash
	Dirs   []string // that hold programs, the same
	Rooted string   // when its programs only run with the image as their root: a directory of it, where a container's files go
	Why    string   // they only do
}

// shells are looked for in this order.
func shells() []string {
	return []string{"bin/bash", "usr/bin/bash", "bin/sh", "usr/bin/sh", "busybox/sh", "bin/ash", "usr/local/bin/bash"}
}

func programDirs() []string {
	return []string{"usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin", "busybox"}
}

// Find looks for a shell that runs below any directory: it needs no loader or library, which it would look for at the container's
// own paths, and no symbolic link with an absolute path leads to it. Where there is only another one, the kit is a Rooted one.
// fault.NotFound: there is none. top is the tree's root and stays the caller's.
func Find(top *os.File) (k Kit, err error) {
	root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", top.Fd()))
	if err != nil {
		return Kit{}, err
	}
	defer fault.Close(root, &err)
	for _, name := range shells() {
		why := portable(root, name)
		if why == "" {
			k.Shell, k.Why = name, ""
			break
		}
		if why != "-" && k.Shell == "" {
			k.Shell, k.Why = name, why
		}
	}
	if k.Shell == "" {
		return Kit{}, fault.New(fault.NotFound, "it has no shell")
	}
	for _, dir := range []string{"mnt", "media", "srv", "opt", "home"} {
		if info, err := root.Lstat(dir); err == nil && info.IsDir() && k.Why != "" && k.Rooted == "" {
			k.Rooted = dir
		}
	}
	if k.Why != "" && k.Rooted == "" {
		return Kit{}, fault.New(fault.NotFound, "%s", k.Why)
	}
	for _, dir := range programDirs() {
		if info, err := root.Stat(dir); err == nil && info.IsDir() {
			k.Dirs = append(k.Dirs, dir)
		}
	}
	return k, nil
}

// Lend changes a process of a container that runs into one with tools, which are mounted by m.
func (k Kit) Lend(e *oci.ExecSpec, m specs.Mount) {
	e.Tools, e.ToolsRoot = []specs.Mount{m}, k.Rooted
	e.Process.Env = k.Environment(e.Process.Env, k.Place())
	if k.Rooted != "" {
		e.Process.Cwd = path.Join("/", k.Rooted, e.Process.Cwd)
	}
}

// Place is where a process of a container that runs finds the tools.
func (k Kit) Place() string {
	if k.Rooted != "" {
		return "/"
	}
	return Side
}

// portable tells why a program doesn't run elsewhere: "" when it does, "-" when there is none.
func portable(root *os.Root, name string) string {
	if _, err := root.Lstat(name); err != nil {
		return "-"
	}
	f, err := root.Open(name) // follows links that stay within, and none that is absolute
	if errors.Is(err, fs.ErrNotExist) {
		return "-"
	}
	if err != nil {
		return "its /" + name + " is reached by an absolute symbolic link, which leads elsewhere in another container"
	}
	defer f.Close()
	program, err := elf.NewFile(f)
	if err != nil {
		return "its /" + name + " is no program"
	}
	for _, p := range program.Progs {
		if p.Type == elf.PT_INTERP {
			return "its /" + name + " needs a loader and libraries at paths of their own: tools must be statically linked, as busybox is"
		}
	}
	return ""
}

// Mount is a root's mount to be read at a path.
func Mount(m union.Mount, at string) specs.Mount {
	options := slices.Clone(m.Options)
	if m.Type == "bind" {
		options = append(options, "bind", "private")
	}
	return specs.Mount{Destination: at, Type: m.Type, Source: m.Source, Options: append(options, "ro", "nosuid", "nodev")}
}

// Command is args, or the shell where there are none; its tools stand at the path at.
func (k Kit) Command(args []string, at string) []string {
	if len(args) > 0 {
		return args
	}
	return []string{path.Join(at, k.Shell)}
}

// Environment is env with the tools first in PATH: what they do is known.
func (k Kit) Environment(env []string, at string) []string {
	var dirs []string
	for _, d := range k.Dirs {
		dirs = append(dirs, path.Join(at, d))
	}
	env = slices.Clone(env)
	for i, e := range env {
		if old, ok := strings.CutPrefix(e, "PATH="); ok {
			env[i] = "PATH=" + strings.Join(append(dirs, old), ":")
			return env
		}
	}
	return append(env, "PATH="+strings.Join(dirs, ":"))
}
