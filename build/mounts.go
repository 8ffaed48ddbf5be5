package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"berth/archive"
	"berth/build/dockerfile"
	"berth/fault"
	"berth/union"
)

// Mount is something that a program sees beside its tree. Kind says which of the fields count.
type Mount struct {
	Kind     MountKind
	Target   string
	Tree     union.Mount // a directory of this machine, or a file system that is made for it
	Path     string      // what of Tree is shown, beneath it; "": all
	Shifted  bool        // owners in Tree are the ids of this machine that programs have, not those that they see
	Volume   string
	Content  []byte // of a file that lies in memory only
	ReadOnly bool
	Size     int64       // of a tmpfs, in bytes; 0: no bound
	Mode     os.FileMode // of a file in memory
	UID, GID uint32      // who has that file
}

// MountKind says what a mount shows.
type MountKind string

// The kinds of mounts.
const (
	Treed    MountKind = "tree"
	Volume   MountKind = "volume"
	InMemory MountKind = "file"
	Empty    MountKind = "tmpfs"
)

// mounting is a program's mounts in the making. end undoes it.
type mounting struct {
	*doing
	id      string // of the program's root
	do      *dockerfile.Run
	list    []Mount
	targets []target
	env     []string // variables that come with mounts
	undo    []func() error
}

// mount makes what the program sees beside its tree. m.end is to be called in any case.
func (d *doing) mount(ctx context.Context, id string, do *dockerfile.Run) (m *mounting, err error) {
	m = &mounting{doing: d, id: id, do: do}
	for k := range do.Mounts {
		if err := m.one(ctx, &do.Mounts[k]); err != nil {
			return m, err
		}
	}
	if s := do.Script; s != nil {
		m.add(Mount{Kind: InMemory, Target: path.Join(dockerfile.ScriptDir, s.Name), Content: []byte(s.Data), ReadOnly: true, Mode: 0o755}, true)
	}
	return m, m.caches(ctx) // last, so that nobody waits for those while files are brought
}

// add adds a mount; file: it goes over a file.
func (m *mounting) add(one Mount, file bool) {
	m.list = append(m.list, one)
	m.targets = append(m.targets, target{one.Target, file})
}

func (m *mounting) one(ctx context.Context, dm *dockerfile.Mount) error {
	switch dm.Type {
	case "bind":
		return m.bind(ctx, dm)
	case "tmpfs":
		m.add(Mount{Kind: Empty, Target: dm.Target, Size: dm.Size}, false)
		return nil
	case "secret":
		return m.secret(ctx, dm)
	case "ssh":
		return m.agent(ctx, dm)
	case "cache":
		return nil
	}
	return fault.New(fault.Unsupported, "RUN --mount=type=%s is not supported", dm.Type)
}

// end takes all away again, the last first.
func (m *mounting) end() (err error) {
	for _, undo := range slices.Backward(m.undo) {
		err = errors.Join(err, undo())
	}
	m.undo = nil
	return err
}

// root makes one more root over layers, which goes with the mounts.
func (m *mounting) root(ctx context.Context, over digest.Digest) (union.Root, error) {
	id := m.NewID()
	root, err := m.rootFor(ctx, id, over, nil)
	if err != nil {
		return root, err
	}
	m.undo = append(m.undo, func() error { return m.Layers.Delete(id) })
	return root, nil
}

// bind shows files of the context or of another stage. What is written to them, where that is allowed, goes with the step.
func (m *mounting) bind(ctx context.Context, dm *dockerfile.Mount) error {
	one, file := Mount{Kind: Treed, Target: dm.Target, ReadOnly: dm.ReadOnly, Shifted: m.ids().Copied}, false
	find := func(top *os.File) (err error) {
		one.Path, file, err = inside(top, dm)
		return err
	}
	if dm.From == nil {
		files, err := m.files()
		if err != nil {
			return err
		}
		if err := find(files.Top); err != nil {
			return err
		}
		one.Tree = union.Mount{Type: "bind", Source: files.Top.Name()}
		if !dm.ReadOnly || one.Shifted {
			err = m.throwaway(ctx, files.Top, &one)
		}
		m.add(one, file)
		return err
	}
	other, err := m.wait(ctx, dm.From)
	if err != nil {
		return err
	}
	root, err := m.root(ctx, chain(other.layers))
	if err != nil {
		return err
	}
	if err := union.Look(m.Layers, chain(other.layers), find); err != nil {
		return err
	}
	one.Tree = root.Mount
	if dm.ReadOnly {
		one.Tree = root.Lent()
	}
	m.add(one, file)
	return nil
}

// inside finds what a mount shows, without links on the way to it; file: it is no directory.
func inside(top *os.File, dm *dockerfile.Mount) (at string, file bool, err error) {
	p, err := archive.Resolve(top, path.Join("/", dm.Source))
	if err != nil {
		return "", false, err
	}
	info, _, err := archive.Stat(top, p)
	if errors.Is(err, os.ErrNotExist) {
		where := "build context, or the ignore file leaves it out"
		if dm.From != nil {
			where = "stage " + dm.From.Name
		}
		err = fault.New(fault.NotFound, "%q: not found: it is not in the %s", path.Join("/", dm.Source), where)
	}
	if err != nil {
		return "", false, err
	}
	return strings.TrimPrefix(p, "/"), !info.IsDir(), nil
}

// maxLower is how long a directory's path may be that is a layer of an overlay: fsconfig(2) takes 256 bytes.
const maxLower = 200

// throwaway lets a mount of the directory top be written to: in a root of its own, over it where the driver's kind of roots can stand on any
// directory, else with a copy in it.
func (m *mounting) throwaway(ctx context.Context, top *os.File, one *Mount) error {
	root, err := m.root(ctx, "")
	if err != nil {
		return err
	}
	if root.Mount.Type == "overlay" && !one.Shifted && len(top.Name()) < maxLower && !strings.ContainsAny(top.Name(), `\:,`) {
		one.Tree = root.Mount
		one.Tree.Options = append([]string{"lowerdir+=" + top.Name()}, root.Mount.Options...)
		return nil
	}
	one.Tree = root.Mount
	return union.View(root, func(into *os.File) error { return copyBelow(ctx, into, top, "/"+one.Path, one.Path, m.shift()) })
}

// copyBelow copies what from has at p to the place called as below into, for the owners that ids give.
func copyBelow(ctx context.Context, into, from *os.File, p, as string, ids archive.IDMap) error {
	r, w := io.Pipe()
	packed := make(chan error, 1)
	go func() {
		packer := archive.NewPacker(ctx, w, archive.PackOptions{})
		err := packer.AddPath(from, p, as)
		if err == nil {
			err = packer.Close()
		}
		w.CloseWithError(err)
		packed <- err
	}()
	_, err := archive.Unpack(ctx, r, into, archive.UnpackOptions{Holes: true, IDs: ids})
	r.CloseWithError(errors.Join(err, io.ErrClosedPipe))
	return errors.Join(<-packed, err)
}

// secret shows a secret as a file that lies in memory only, or as a variable.
func (m *mounting) secret(ctx context.Context, dm *dockerfile.Mount) error {
	content, err := m.Client.Secret(ctx, dm.ID)
	if errors.Is(err, fault.NotFound) {
		if !dm.Required {
			return nil
		}
		return fault.New(fault.Invalid, "secret %s: not found: give it by --secret id=%s,src=FILE", dm.ID, dm.ID)
	}
	if err != nil {
		return fmt.Errorf("secret %s: %w", dm.ID, err)
	}
	if len(content) > maxSecret {
		return fault.New(fault.Invalid, "secret %s is longer than %d bytes", dm.ID, maxSecret)
	}
	if dm.Env != "" {
		m.env = append(m.env, dm.Env+"="+string(content))
	}
	if dm.Target != "" {
		m.add(Mount{Kind: InMemory, Target: dm.Target, Content: content, ReadOnly: true, Mode: mode(dm, 0o400), UID: id(dm.UID), GID: id(dm.GID)}, true)
	}
	return nil
}

// maxSecret is how long a secret may be, in bytes, as the field has it.
const maxSecret = 500 << 10

func mode(dm *dockerfile.Mount, otherwise os.FileMode) os.FileMode {
	if dm.Mode == nil {
		return otherwise
	}
	return *dm.Mode
}

func id(given *uint32) uint32 {
	if given == nil {
		return 0
	}
	return *given
}

// caches takes the directories that outlive the step.
func (m *mounting) caches(ctx context.Context) error {
	var wanted []CacheMount
	var mounts []*dockerfile.Mount
	for k := range m.do.Mounts {
		dm := &m.do.Mounts[k]
		if dm.Type != "cache" {
			continue
		}
		c := CacheMount{ID: dm.ID, Sharing: dm.Sharing, Mode: mode(dm, 0o755), UID: id(dm.UID), GID: id(dm.GID), Shift: m.shift(), Keep: dm.From != nil && dm.Mode == nil && dm.UID == nil && dm.GID == nil}
		if dm.From != nil {
			other, err := m.wait(ctx, dm.From)
			if err != nil {
				return err
			}
			c.Begin = string(chain(other.layers)) + " " + dm.Source
			c.Fill = func(dir *os.File) error { return m.fill(ctx, dir, dm) }
		}
		wanted, mounts = append(wanted, c), append(mounts, dm)
	}
	if len(wanted) == 0 {
		return nil
	}
	names, give, err := m.TakeCaches(ctx, m.id, wanted, func(c CacheMount) {
		text := fmt.Sprintf("waiting for the cache %s, which another step has locked\n", c.ID)
		m.tell(Event{Kind: Stderr, Stage: m.s, Step: m.st, Output: []byte(text)})
	})
	if err != nil {
		return err
	}
	m.undo = append(m.undo, give)
	for k, dm := range mounts {
		m.add(Mount{Kind: Volume, Target: dm.Target, Volume: names[k], ReadOnly: dm.ReadOnly}, false)
	}
	return nil
}

// fill puts into a new cache what it begins with.
func (m *mounting) fill(ctx context.Context, dir *os.File, dm *dockerfile.Mount) error {
	return m.from(ctx, dm.From, func(files *Files) (err error) {
		top := files.Top
		at, file, err := inside(top, dm)
		if err != nil {
			return err
		}
		if file {
			return fault.New(fault.Invalid, "a cache can't begin with %q: it is not a directory", path.Join("/", dm.Source))
		}
		from, err := archive.OpenDir(top, at)
		if err != nil {
			return err
		}
		defer fault.Close(from, &err)
		return copyBelow(ctx, dir, from, "/", "", m.shift())
	})
}

// CacheMount is a directory that outlives the steps whose programs write to it.
type CacheMount struct {
	ID       string
	Sharing  string // shared: by many at a time; locked: who comes later waits; private: who comes later gets another one
	Begin    string // names what it begins with: another name is another cache
	Mode     os.FileMode
	UID, GID uint32
	Shift    archive.IDMap            // by which owners differ on disk
	Keep     bool                     // mode and owner are those that Fill leaves
	Fill     func(dir *os.File) error // nil: it begins empty
}

// target is a place in a program's tree that something goes over.
type target struct {
	path string
	file bool
}

// createRoot makes the root that the program writes to. Targets of mounts that its tree lacks lie in a layer of their own below it, so that
// they are no part of what the program wrote. That layer is nobody's but the root's, and a sweep may take it before the root stands.
func (m *mounting) createRoot(ctx context.Context) (root union.Root, err error) {
	for range 3 {
		over, err := m.ground(chain(m.below))
		if err != nil {
			return root, err
		}
		if root, err = m.rootFor(ctx, m.id, over, m.Prepare); !errors.Is(err, fault.NotFound) {
			return root, err
		}
	}
	return root, err
}

// ground gives the layers below with, where targets are missing, one more that has them.
func (m *mounting) ground(below digest.Digest) (over digest.Digest, err error) {
	if len(m.targets) == 0 {
		return below, nil
	}
	var missing []target
	err = union.Look(m.Layers, below, func(top *os.File) error {
		for _, t := range m.targets {
			p, err := archive.Resolve(top, t.path)
			if err != nil {
				return err
			}
			if _, _, err := archive.Stat(top, p); errors.Is(err, os.ErrNotExist) && !made(p) {
				missing = append(missing, target{p, t.file})
			} else if err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("mount at %s: %w", t.path, err)
			}
		}
		return nil
	})
	if err != nil || len(missing) == 0 {
		return below, err
	}
	over = digest.FromString(fmt.Sprintln("targets of mounts", below, missing))
	if m.Layers.Has(over) {
		return over, nil
	}
	stage, err := m.Layers.Stage()
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, stage.Abort()) }()
	implied := map[string]bool{}
	for _, t := range missing {
		dir := t.path
		if t.file {
			dir = path.Dir(dir)
			err = archive.MakeFile(stage.Root(), t.path)
		} else {
			err = makeDir(stage.Root(), t.path)
		}
		if err != nil {
			return "", err
		}
		for ; dir != "/"; dir = path.Dir(dir) {
			implied[dir[1:]] = true
		}
	}
	return over, stage.Commit(over, below, archive.Unpacked{Implied: append([]string{"."}, slices.Sorted(maps.Keys(implied))...)})
}

func makeDir(root *os.File, p string) error {
	dir, err := archive.MakeDir(root, p)
	if err != nil {
		return err
	}
	return dir.Close()
}

// made tells whether p lies in what every program gets anew.
func made(p string) bool {
	top, _, _ := strings.Cut(p[1:], "/")
	return top == "dev" || top == "proc" || top == "sys"
}
