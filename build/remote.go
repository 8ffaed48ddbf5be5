package build

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path"
	"slices"
	"sync"
	"time"

	"berth/archive"
	"berth/build/dockerfile"
	"berth/fault"
	"berth/image"
)

// needsContext tells whether a Copy takes anything from where COPY takes it.
func needsContext(do *dockerfile.Copy) bool {
	return slices.ContainsFunc(do.Sources, func(s dockerfile.Source) bool { return s.Path != "" })
}

// bringer finds one thing in another place, and brings it at most once.
type bringer struct {
	*Remote
	fetch func() (*Files, error)
}

// look finds what from names.
func (w *building) look(ctx context.Context, from *dockerfile.Source, tell func(Progress)) (*bringer, error) {
	if w.Find == nil {
		return nil, fault.New(fault.Unsupported, "nothing is fetched here from %s", place(from))
	}
	r, err := w.Find(ctx, from, w.Client, tell)
	if err != nil {
		return nil, err
	}
	return &bringer{r, sync.OnceValues(func() (*Files, error) { return r.Fetch(ctx) })}, nil
}

// remote finds what a source of the step names, once.
func (d *doing) remote(ctx context.Context, src *dockerfile.Source) (*bringer, error) {
	if r := d.remotes[src]; r != nil {
		return r, nil
	}
	r, err := d.look(ctx, src, func(p Progress) { d.tell(Event{Kind: Progressed, Stage: d.s, Step: d.st, At: p}) })
	if err != nil {
		return nil, err
	}
	if d.remotes == nil {
		d.remotes = map[*dockerfile.Source]*bringer{}
	}
	d.remotes[src] = r
	return r, nil
}

// leave gives up what the step brought.
func (d *doing) leave() (err error) {
	for _, r := range d.remotes {
		err = errors.Join(err, r.Close())
	}
	return err
}

// place is how a remote source is called in a key; a password in an address is not.
func place(s *dockerfile.Source) string {
	if s.Git != nil {
		return redacted(s.Git.Remote)
	}
	return redacted(s.URL)
}

// tree is a stage's named context.
type tree struct {
	of    *dockerfile.Tree
	whole bool         // it becomes a layer; otherwise it is only copied from
	found func() error // looks for it, once
	from  *bringer     // nil: the client has it
	files func() (*Files, error)
	made  time.Time
}

// newTree is the named context that s begins with.
func (w *building) newTree(ctx context.Context, s *dockerfile.Stage) *tree {
	t := &tree{of: s.Base.Files}
	patterns := w.wanted(s)
	t.whole = patterns == nil
	t.found = sync.OnceValue(func() (err error) {
		if t.of.From != nil {
			t.from, err = w.look(ctx, t.of.From, func(p Progress) { w.tell(Event{Kind: Progressed, Stage: s, At: p}) })
		}
		return err
	})
	t.files = sync.OnceValues(func() (*Files, error) {
		if err := t.found(); err != nil {
			return nil, err
		}
		if t.from != nil {
			return t.from.fetch()
		}
		return w.Client.Files(ctx, t.of.Name, patterns)
	})
	return t
}

// wanted lists what is copied from a stage that is a tree of files; nil: all of it is needed.
func (w *building) wanted(s *dockerfile.Stage) []string {
	if s == w.Plan.Target || len(s.Steps) > 0 {
		return nil
	}
	patterns := []string{}
	for _, other := range w.Plan.Stages {
		if other.Base.Stage == s {
			return nil
		}
		for _, st := range other.Steps {
			switch do := st.Do.(type) {
			case *dockerfile.Run:
				if slices.ContainsFunc(do.Mounts, func(m dockerfile.Mount) bool { return m.From == s }) {
					return nil
				}
			case *dockerfile.Copy:
				if do.From != s {
					continue
				}
				for _, src := range do.Sources {
					if src.Path != "" {
						patterns = append(patterns, src.Path)
					}
				}
			}
		}
	}
	return patterns
}

// close gives up what was brought.
func (t *tree) close() error {
	if t.from == nil {
		return nil // its client's
	}
	return t.from.Close()
}

// beginWithTree makes a named context the first layer of a stage, unless it is only copied from.
func (w *building) beginWithTree(ctx context.Context, s *dockerfile.Stage, res *stageResult) error {
	t := res.tree
	if !t.whole {
		return nil
	}
	if err := t.found(); err != nil {
		return fmt.Errorf("build context %s: %w", t.of.Name, err)
	}
	k := &key{place: "files " + t.of.Name, parts: map[string]string{"base": "", "command": "files"}}
	if e := w.Plan.Epoch; e != nil {
		k.parts["SOURCE_DATE_EPOCH"] = e.String()
	}
	if t.from != nil {
		k.parts[place(t.of.From)] = t.from.Key
	} else {
		files, err := t.files()
		if err == nil {
			err = digestOf(ctx, files, "/", nil, "file ", k.parts)
		}
		if err != nil {
			return fmt.Errorf("build context %s: %w", t.of.Name, err)
		}
	}
	if !w.NoCache {
		if layers, made, ok := w.Cache.find(k, nil, w.draft); ok {
			res.layers, t.made = layers, made
			return nil
		}
	}
	files, err := t.files()
	if err != nil {
		return fmt.Errorf("build context %s: %w", t.of.Name, err)
	}
	l, err := w.draft.Layer(ctx, nil, func(ctx context.Context, to io.Writer) error { return w.packTree(ctx, to, files.Top) })
	if err != nil {
		return err
	}
	t.made = time.Now().UTC()
	if l.DiffID != "" {
		res.layers = []image.Layer{l}
	}
	return w.Cache.keep(k, nil, l, t.made)
}

// OpenArchive opens a tar of any compression below root, as a plain one; is tells whether the file is one. The caller closes it then.
func OpenArchive(root *os.File, name string) (a io.ReadCloser, is bool, err error) {
	return openArchive(root, name)
}

// packTree writes a tree as a layer: it is root's, whoever sent it.
func (w *building) packTree(ctx context.Context, to io.Writer, top *os.File) error {
	p := archive.NewPacker(ctx, to, archive.PackOptions{Member: func(hdr *tar.Header) (keep, enter bool) {
		hdr.Uid, hdr.Gid = 0, 0
		if e := w.Plan.Epoch; e != nil && hdr.ModTime.After(*e) {
			hdr.ModTime = *e
		}
		return path.Clean(hdr.Name) != ".", true // its mode says nothing
	}})
	if err := p.AddPath(top, "/", "."); err != nil {
		return err
	}
	return p.Close()
}

// redacted is an address without a password.
func redacted(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.User == nil {
		return address
	}
	return u.Redacted()
}
