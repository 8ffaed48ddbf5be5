package build

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/moby/patternmatcher"

	"berth/archive"
	"berth/archive/compress"
	"berth/build/dockerfile"
	"berth/fault"
)

// found is one thing that a Copy brings.
type found struct {
	source *dockerfile.Source
	root   *os.File // where it comes from; nil: it was not brought yet, or is inline
	remote *bringer
	path   string // below the top of where it comes from
	name   string // what it is called at its destination when that is a directory
	pivot  string // of --parents: what name begins below
	dir    bool   // its content is meant
}

// bring carries out a Copy into the tree top, and gives the directories that it needed to be there.
func (d *doing) bring(ctx context.Context, top *os.File, do *dockerfile.Copy) (needed []string, err error) {
	owner, err := d.owner(top, do.Chown)
	if err != nil {
		return nil, err
	}
	return needed, d.copied(ctx, do, func(from *Files) error {
		list, err := d.find(ctx, from.Top, do)
		if err != nil {
			return err
		}
		b := &bringing{doing: d, do: do, top: top, owner: owner, chmod: change(do.Mode)}
		if b.exclude, err = matcher(do.Exclude); err != nil {
			return err
		}
		if err := b.destination(list); err != nil {
			return err
		}
		for _, f := range list {
			if f.remote != nil {
				files, err := f.remote.fetch()
				if err != nil {
					return err
				}
				f.root = files.Top
			}
			if err := b.one(ctx, f); err != nil {
				return err
			}
		}
		needed = b.needed
		return nil
	})
}

// destination finds out where things go, and whether that is a directory.
func (b *bringing) destination(list []found) (err error) {
	if b.dest, err = archive.Resolve(b.top, b.do.Dest); err != nil { // a link leads on
		return err
	}
	b.into = b.do.Parents || strings.HasSuffix(b.do.Dest, "/") || isDir(b.top, b.dest)
	if !b.into && len(list) > 1 && slices.ContainsFunc(list, func(f found) bool { return !f.dir }) {
		name := "COPY"
		if b.do.Add {
			name = "ADD"
		}
		return fault.New(fault.Invalid, "When using %s with more than one source file, the destination must be a directory and end with a /: write %s/", name, b.do.Dest)
	}
	return nil
}

// copied calls fn with the tree that a Copy takes files from; one without a directory when it takes none.
func (d *doing) copied(ctx context.Context, do *dockerfile.Copy, fn func(*Files) error) error {
	if !needsContext(do) {
		return fn(&Files{})
	}
	return d.from(ctx, do.From, fn)
}

// from calls fn with the tree that is copied from: a stage's, or the context's.
func (d *doing) from(ctx context.Context, s *dockerfile.Stage, fn func(*Files) error) (err error) {
	if s == nil {
		files, err := d.files()
		if err != nil {
			return err
		}
		return fn(files)
	}
	other, err := d.wait(ctx, s)
	if err != nil {
		return err
	}
	if t := other.tree; t != nil && !t.whole {
		files, err := t.files()
		if err != nil {
			return fmt.Errorf("build context %s: %w", t.of.Name, err)
		}
		return fn(files)
	}
	files, err := other.view.open(d.Builder, chain(other.layers))
	if err != nil {
		return err
	}
	return fn(files)
}

func matcher(patterns []string) (*patternmatcher.PatternMatcher, error) {
	if len(patterns) == 0 {
		return nil, nil
	}
	m, err := patternmatcher.New(patterns)
	if err != nil {
		return nil, fault.New(fault.Invalid, "invalid exclude pattern: %w", err)
	}
	return m, nil
}

func isDir(root *os.File, p string) bool {
	dir, err := archive.OpenDir(root, p)
	if err != nil {
		return false
	}
	dir.Close()
	return true
}

// find lists what a Copy's sources name.
func (d *doing) find(ctx context.Context, from *os.File, do *dockerfile.Copy) (all []found, err error) {
	for k := range do.Sources {
		src := &do.Sources[k]
		switch {
		case src.Inline != nil:
			all = append(all, found{source: src, name: src.Inline.Name})
			continue
		case src.Path == "":
			r, err := d.remote(ctx, src)
			if err != nil {
				return nil, err
			}
			all = append(all, found{source: src, remote: r, path: "/" + r.Name, name: r.Name, dir: r.Name == ""})
			continue
		}
		list, err := named(from, src, do.Parents)
		if err != nil {
			return nil, err
		}
		if len(list) == 0 && !archive.IsPattern(src.Path) {
			return nil, fault.New(fault.NotFound, "%q: not found: it is not in the %s, or the ignore file leaves it out", path.Clean("/"+src.Path), whence(do))
		}
		all = append(all, list...)
	}
	return all, nil
}

func whence(do *dockerfile.Copy) string {
	if do.From != nil {
		return "stage " + do.From.Name
	}
	return "build context"
}

// bringing is a Copy under way.
type bringing struct {
	*doing
	do      *dockerfile.Copy
	top     *os.File
	dest    string   // without links
	into    bool     // it is a directory
	needed  []string // directories
	owner   *archive.Owner
	chmod   func(mode int64, dir bool) (int64, error)
	exclude *patternmatcher.PatternMatcher
}

// one brings one thing.
func (b *bringing) one(ctx context.Context, f found) error {
	if b.do.Add && f.source.Unpack && !f.dir && f.path != "" {
		done, err := b.unpack(ctx, f)
		if done || err != nil {
			return err
		}
	}
	as := b.dest
	if b.into && (!f.dir || b.do.Parents) {
		as = path.Join(as, f.name)
	}
	into := as
	switch {
	case b.do.Parents:
		into = b.dest
	case !f.dir:
		into = path.Dir(as)
	}
	if err := b.mkdir(into); err != nil {
		return err
	}
	if !f.dir && isDir(b.top, as) && !b.into {
		return fault.New(fault.Invalid, "cannot copy a file to %s: it is a directory", as)
	}
	r, w := io.Pipe()
	packed := make(chan struct{})
	go func() {
		defer close(packed) // nobody reads from what is copied any more: it may be closed
		w.CloseWithError(b.pack(ctx, w, f, as))
	}()
	o := archive.UnpackOptions{Live: true, Into: "/"}
	if from := b.do.From; from == nil || from.Base.Files != nil && len(from.Steps) == 0 || b.do.Chown != "" {
		o.Owner = b.owner
	}
	_, err := archive.Unpack(ctx, r, b.top, o)
	r.CloseWithError(errors.Join(err, io.ErrClosedPipe))
	<-packed
	return err
}

// pack writes one thing as an archive whose members are called as, or lie below.
func (b *bringing) pack(ctx context.Context, w io.Writer, f found, as string) error {
	if in := f.source.Inline; in != nil {
		hdr := &tar.Header{Name: as, Mode: 0o644, Size: int64(len(in.Data)), ModTime: b.now(), Format: tar.FormatPAX}
		if _, err := b.member(hdr); err != nil {
			return err
		}
		tw := tar.NewWriter(w)
		err := tw.WriteHeader(hdr)
		if err == nil {
			_, err = io.WriteString(tw, in.Data)
		}
		return errors.Join(err, tw.Close())
	}
	above := false // of --parents
	var failed error
	p := archive.NewPacker(ctx, w, archive.PackOptions{Member: func(hdr *tar.Header) (keep, enter bool) {
		name := strings.Trim(strings.TrimPrefix(strings.TrimSuffix(hdr.Name, "/"), strings.TrimSuffix(as, "/")), "/")
		if f.dir && !above && name == "" && !b.do.Parents {
			return false, true // the directory itself is not copied
		}
		if !above && b.excluded(f, name, &failed) {
			return false, b.exclude.Exclusions()
		}
		keep, err := b.member(hdr)
		failed = errors.Join(failed, err)
		return keep, !above
	}})
	if b.do.Parents {
		above = true
		if err := b.parents(p, f); err != nil {
			return err
		}
		above = false
	}
	if err := p.AddPath(f.root, f.path, strings.TrimSuffix(as, "/")); err != nil {
		return err
	}
	return errors.Join(failed, p.Close())
}

// member changes a member as the instruction wants.
func (b *bringing) member(hdr *tar.Header) (bool, error) {
	if b.chmod != nil && hdr.Typeflag != tar.TypeSymlink {
		mode, err := b.chmod(hdr.Mode, hdr.Typeflag == tar.TypeDir)
		if err != nil {
			return false, err
		}
		hdr.Mode = mode
	}
	if e := b.Plan.Epoch; e != nil && hdr.ModTime.After(*e) {
		hdr.ModTime = *e
	}
	return true, nil
}

func (b *bringing) now() time.Time {
	if e := b.Plan.Epoch; e != nil {
		return *e
	}
	return time.Now()
}

// unpack brings an archive's content; done is false when the file is none.
func (b *bringing) unpack(ctx context.Context, f found) (done bool, err error) {
	plain, is, err := openArchive(f.root, f.path)
	if err != nil || !is {
		return false, err
	}
	defer fault.Close(plain, &err)
	if err := b.mkdir(b.dest); err != nil {
		return false, err
	}
	o := archive.UnpackOptions{Live: true, Into: b.dest}
	if b.do.Chown != "" {
		o.Owner = b.owner
	}
	_, err = archive.Unpack(ctx, plain, b.top, o)
	return true, err
}

// plainArchive is an open archive and the file below it.
type plainArchive struct {
	io.Reader
	stream io.Closer
	file   *os.File
}

// Close implements io.Closer.
func (p *plainArchive) Close() error { return errors.Join(p.stream.Close(), p.file.Close()) }

// openArchive opens a tar of any compression; is tells whether the file is one.
func openArchive(root *os.File, name string) (a io.ReadCloser, is bool, err error) {
	f, err := archive.OpenFile(root, name)
	if err != nil {
		return nil, false, err
	}
	plain, _, err := compress.Open(f)
	if err != nil {
		return nil, false, f.Close()
	}
	var head bytes.Buffer // the first member's headers are several where it has attributes, a long name, or comes from git
	if _, err := tar.NewReader(io.TeeReader(plain, &head)).Next(); err != nil {
		return nil, false, errors.Join(plain.Close(), f.Close())
	}
	return &plainArchive{io.MultiReader(&head, plain), plain, f}, true, nil
}
