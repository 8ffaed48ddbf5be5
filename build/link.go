package build

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"path"

	"berth/archive"
	"berth/build/dockerfile"
	"berth/union"
)

// link carries out a Copy that is a layer of its own, whatever is below: it is done in an empty tree, so nothing below leads it elsewhere. The
// directories on the way are left out of the layer, unless they are given to somebody: what is there keeps its owner and mode, and what
// is missing is made when the layer is unpacked.
func (d *doing) link(ctx context.Context, root union.Root, do *dockerfile.Copy) (pack func(context.Context, io.Writer) error, err error) {
	var needed []string
	err = union.View(root, func(top *os.File) (err error) {
		needed, err = d.bring(ctx, top, do)
		return err
	})
	if err != nil {
		return nil, err
	}
	way := map[string]bool{"/": true}
	if do.Chown == "" {
		for _, p := range needed {
			for ; p != "/"; p = path.Dir(p) {
				way[p] = true
			}
		}
	}
	if err := d.standing(way); err != nil {
		return nil, err
	}
	return func(ctx context.Context, w io.Writer) error {
		r, in := io.Pipe()
		go func() { in.CloseWithError(d.Pack(ctx, in, root)) }()
		err := without(r, w, way)
		r.CloseWithError(errors.Join(err, io.ErrClosedPipe))
		return err
	}, nil
}

// standing takes those out of a set of directories that are something else below, such as a link: the layer has to have them.
func (d *doing) standing(dirs map[string]bool) (err error) {
	if len(d.below) == 0 {
		return nil
	}
	id := d.NewID()
	root, err := d.Layers.Create(id, chain(d.below), nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Layers.Delete(id)) }()
	return union.View(root, func(top *os.File) error {
		for p := range dirs {
			if info, _, err := archive.Stat(top, p); err == nil && !info.IsDir() {
				delete(dirs, p)
			}
		}
		return nil
	})
}

// without copies an archive but for some directories.
func without(r io.Reader, w io.Writer, dirs map[string]bool) error {
	in, out := tar.NewReader(r), tar.NewWriter(w)
	for {
		hdr, err := in.Next()
		if errors.Is(err, io.EOF) {
			return out.Close()
		}
		if err != nil {
			return err
		}
		if hdr.Typeflag == tar.TypeDir && dirs[path.Clean("/"+hdr.Name)] {
			continue
		}
		if err := out.WriteHeader(hdr); err != nil {
			return err
		}
		if _, err := io.Copy(out, in); err != nil {
			return err
		}
	}
}
