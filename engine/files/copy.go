// Package files reads and writes what lies in a container: archives in and out, and what an image must have before it is run.
//
// It knows trees and paths but no containers, and never looks anything up on the host. Invariant: a path is walked by the
// kernel with the tree's top as "/", so that nothing in a tree leads out of it.
package files

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"

	"berth/archive"
	"berth/archive/compress"
	"berth/fault"
	"berth/union"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/sys/user"
)

// ArchiveRequest names files.
type ArchiveRequest struct {
	Paths []string
	Glob  bool   // Paths are patterns, as far as nothing has that very name
	As    string // what a single one is called in the archive; "": as in the container
	Holes bool   // the archive may have sparse members
}

// ExtractRequest says where an archive goes
type ExtractRequest struct {
	Path      string // a directory
	KeepKinds bool   // a directory never takes the place of something else, nor the reverse
	Owner     string // who gets the members, as in a container's User; "": whom the archive names
}

// notThere puts a failed look at a path into the field's words.
func notThere(err error, name, ref string) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.New(fault.NotFound, "Could not find the file %s in container %s", name, ref)
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.ENAMETOOLONG), errors.Is(err, syscall.EINVAL):
		return fault.New(fault.Invalid, "path %s in container %s: %w", name, ref, err)
	}
	return err
}

// invalid is an error of kind fault.Invalid.
func invalid(format string, args ...any) error { return fault.New(fault.Invalid, format, args...) }

// Stat describes a path; ref is how the user calls the container. fault.NotFound: "Could not find the file X in container Y".
func Stat(t *union.Tree, name, ref string) (api.PathStat, error) {
	info, target, err := archive.Stat(t.Root, name)
	if err != nil {
		return api.PathStat{}, notThere(err, name, ref)
	}
	return api.PathStat{Name: path.Base(archive.Clean(name)), Size: info.Size(), Mode: info.Mode(), Mtime: info.ModTime(), LinkTarget: target}, nil
}

// Archive writes files as a tar stream. begin is called with the description of the first one when nothing but a
// broken stream can go wrong any more, and returns where the stream goes. Directories have their last name in the archive, and so
// has everything else; one whose path ends in "/." has none.
func Archive(ctx context.Context, t *union.Tree, r ArchiveRequest, ref string, begin func(api.PathStat) io.Writer) error {
	paths, err := expand(t, r, ref)
	if err != nil {
		return err
	}
	var first api.PathStat
	for k := len(paths) - 1; k >= 0; k-- { // all must be there before the answer begins
		if first, err = Stat(t, paths[k], ref); err != nil {
			return err
		}
		if made, err := t.MadeUp(paths[k]); err != nil {
			return notThere(err, paths[k], ref)
		} else if made {
			return invalid("cannot copy from %s in container %s: the kernel makes up what is there; read it by a program inside", paths[k], ref)
		}
	}
	devices, err := t.Devices()
	if err != nil {
		return err
	}
	p := archive.NewPacker(ctx, begin(first), archive.PackOptions{IDs: t.IDs, Live: true, Holes: r.Holes, Hollow: devices})
	for _, name := range paths {
		as := path.Base(archive.Clean(name))
		if r.As != "" && len(paths) == 1 {
			as = r.As
		}
		if as == "/" {
			as = ""
		}
		if err := p.AddPath(t.Root, name, as); err != nil {
			return err
		}
	}
	return p.Close()
}

// expand lists what the patterns stand for; one that nothing fits is fault.NotFound.
func expand(t *union.Tree, r ArchiveRequest, ref string) ([]string, error) {
	if !r.Glob {
		return r.Paths, nil
	}
	var all []string
	for _, p := range r.Paths {
		if _, _, err := archive.Stat(t.Root, p); err == nil || !archive.IsPattern(p) {
			all = append(all, p)
			continue
		}
		found, err := archive.Glob(t.Root, p)
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			return nil, fault.New(fault.NotFound, "Could not find the file %s in container %s: nothing matches the pattern", p, ref)
		}
		all = append(all, found...)
	}
	return all, nil
}

// Extract unpacks a tar stream of any compression into a directory. fault.Denied, in the field's words, for
// what is mounted read-only.
func Extract(ctx context.Context, t *union.Tree, r ExtractRequest, ref string, body io.Reader) (err error) {
	o := archive.UnpackOptions{Live: true, Into: archive.Clean(r.Path), KeepKinds: r.KeepKinds, IDs: t.IDs, Holes: true}
	dir, err := archive.OpenDir(t.Root, r.Path)
	if errors.Is(err, syscall.ENOTDIR) {
		return invalid("extraction point is not a directory: %s in container %s", r.Path, ref)
	}
	if err != nil {
		return notThere(err, r.Path, ref)
	}
	defer fault.Close(dir, &err)
	if made, err := t.Untouchable(r.Path, dir); err != nil {
		return err
	} else if made {
		return invalid("cannot copy to %s in container %s: what is there is made for each run of the container, and is not part of its files", r.Path, ref)
	}
	if o.Owner, err = Owner(t, r.Owner); err != nil {
		return err
	}
	plain, _, err := compress.Open(body)
	if err != nil {
		return err
	}
	defer fault.Close(plain, &err)
	if _, err := archive.Unpack(ctx, plain, t.Root, o); errors.Is(err, syscall.EROFS) {
		if inVolume, statErr := t.Elsewhere(dir); statErr == nil && inVolume {
			return fault.New(fault.Denied, "mounted volume is marked read-only")
		}
		return fault.New(fault.Denied, "container rootfs is marked read-only")
	} else if err != nil {
		return fmt.Errorf("copy to %s in container %s: %w", r.Path, ref, err)
	}
	return nil
}

// maxTable is how many bytes of a container's /etc/passwd and /etc/group are read.
const maxTable = 8 << 20

// Owner looks a user, or user:group, up in the tree's own tables; nil for none.
func Owner(t *union.Tree, name string) (*archive.Owner, error) {
	if name == "" {
		return nil, nil
	}
	var tables [2][]byte
	for k, file := range []string{"/etc/passwd", "/etc/group"} {
		text, err := archive.ReadFile(t.Root, file, maxTable)
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return nil, err
		}
		tables[k] = text
	}
	found, err := user.GetExecUser(name, nil, bytes.NewReader(tables[0]), bytes.NewReader(tables[1]))
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	return &archive.Owner{UID: uint32(found.Uid), GID: uint32(found.Gid)}, nil
}

// Export writes a tree's own file system, without what is mounted in it, as a tar stream. begin is called when nothing
// but a broken stream can go wrong any more.
func Export(ctx context.Context, t *union.Tree, begin func() io.Writer) (err error) {
	bare, err := t.Bare()
	if err != nil {
		return err
	}
	defer fault.Close(bare, &err)
	return archive.Pack(ctx, begin(), bare, archive.PackOptions{IDs: t.IDs, Live: true})
}
