package output

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/archive"
	"berth/archive/compress"
	"berth/build"
	"berth/fault"
	"berth/image"
)

// Squash makes one layer of all that a result has above its base. The history keeps the lines, without layers, and gets one that says so.
func (w *Writer) Squash(ctx context.Context, r *build.Result) error {
	above := r.Layers[r.Base:]
	if len(above) < 2 {
		return nil
	}
	touched := names{}
	for _, l := range above {
		if err := touched.read(ctx, r.Draft(), l); err != nil {
			return fmt.Errorf("squash layer %s: %w", l.Desc.Digest, err)
		}
	}
	base := r.Layers[:r.Base:r.Base]
	var made image.Layer
	err := w.view(r.Layers, func(top *os.File) error {
		return w.view(base, func(below *os.File) (err error) {
			made, err = r.Draft().Layer(ctx, base, func(ctx context.Context, to io.Writer) error {
				p := &picker{touched: touched, top: top, below: below}
				return errors.Join(archive.Pack(ctx, to, top, archive.PackOptions{Pick: p.pick}), p.err)
			})
			return err
		})
	})
	if err != nil {
		return fmt.Errorf("squash: %w", err)
	}
	for k := r.Lines; k < len(r.Settings.History); k++ {
		r.Settings.History[k].EmptyLayer = true
	}
	from := "scratch"
	if n := len(base); n > 0 {
		from = string(image.Chains(base)[n-1])
	}
	r.Settings.History = append(r.Settings.History, ocispec.History{Created: r.Settings.Created, Comment: "merge of " + fmt.Sprint(len(above)) + " layers to " + from, EmptyLayer: made.DiffID == ""})
	r.Layers = base
	if made.DiffID != "" {
		r.Layers = append(base, made)
	}
	return nil
}

// names are the paths that layers have something to say of: names by directory, the top being "".
type names map[string]map[string]bool

func (n names) add(p string) {
	for p = strings.Trim(path.Clean("/"+p), "/"); p != ""; {
		dir, base := path.Split(p)
		dir = strings.TrimSuffix(dir, "/")
		if n[dir] == nil {
			n[dir] = map[string]bool{}
		}
		if n[dir][base] {
			return
		}
		n[dir][base] = true
		p = dir
	}
}

// read adds what one layer has.
func (n names) read(ctx context.Context, draft *image.Draft, l image.Layer) (err error) {
	r, err := draft.Open(l.Desc)
	if err != nil {
		return err
	}
	defer fault.Close(r, &err)
	plain, _, err := compress.Open(r)
	if err != nil {
		return err
	}
	defer fault.Close(plain, &err)
	tr := tar.NewReader(contextual{ctx, plain})
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		dir, base := path.Split(strings.TrimSuffix(hdr.Name, "/"))
		if base == ".wh..wh..opq" {
			n.add(dir)
			continue
		}
		n.add(path.Join(dir, strings.TrimPrefix(base, ".wh.")))
	}
}

// picker chooses, directory by directory, what the one layer has: the names that the layers touched, as far as they are still there, and marks for
// what the base has and the result does not.
type picker struct {
	touched    names
	top, below *os.File
	err        error
}

func (p *picker) pick(dir string) (have, gone []string, all bool) {
	dir = strings.Trim(dir, "/")
	here, err := list(p.top, dir)
	if err != nil {
		p.err = errors.Join(p.err, err)
		return nil, nil, false
	}
	before, err := list(p.below, dir)
	if err != nil {
		p.err = errors.Join(p.err, err)
		return nil, nil, false
	}
	for name := range p.touched[dir] {
		if here[name] {
			have = append(have, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if !here[name] {
			gone = append(gone, name)
		}
	}
	slices.Sort(have)
	return have, gone, false
}

// list has the names in a directory; none when there is no such directory, as a link is none.
func list(top *os.File, dir string) (found map[string]bool, err error) {
	at := "/" + dir
	if real, err := archive.Resolve(top, at); err != nil || real != at {
		return nil, err
	}
	info, _, err := archive.Stat(top, at)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || err == nil && !info.IsDir() {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	d, err := archive.OpenDir(top, at)
	if err != nil {
		return nil, err
	}
	defer fault.Close(d, &err)
	all, err := d.Readdirnames(-1)
	found = make(map[string]bool, len(all))
	for _, n := range all {
		found[n] = true
	}
	return found, err
}
