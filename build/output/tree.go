package output

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/archive"
	"berth/build"
	"berth/image"
	"berth/union"
)

// Tree writes the files of results to w as one archive: those of a single one as they are, or, with split, those of each below a directory
// named by its platform. Nothing is later than a plan's epoch.
func (w *Writer) Tree(ctx context.Context, to io.Writer, results []*build.Result, split bool) error {
	return w.views(results, nil, func(tops []*os.File) error {
		if !split {
			return archive.Pack(ctx, to, tops[0], archive.PackOptions{Member: clamped(results[0].Plan.Epoch)})
		}
		p := archive.NewPacker(ctx, to, archive.PackOptions{Member: clamped(results[0].Plan.Epoch)})
		for k, top := range tops {
			if err := p.Add(top, ".", Directory(results[k])); err != nil {
				return err
			}
		}
		return p.Close()
	})
}

// Directory is the name of the directory that a result's files are put in when there are several.
func Directory(r *build.Result) string {
	return strings.ReplaceAll(image.FormatPlatform(r.Settings.Platform), "/", "_")
}

// clamped is what tells an archiver that no time is after epoch.
func clamped(epoch *time.Time) func(*tar.Header) (keep, enter bool) {
	if epoch == nil {
		return nil
	}
	return func(hdr *tar.Header) (bool, bool) {
		if hdr.ModTime.After(*epoch) {
			hdr.ModTime = *epoch
		}
		return true, true
	}
}

// views calls fn with the directories of all results, open at the same time: a file system's number may be used again when it is gone, and
// by such numbers further names of a file are found.
func (w *Writer) views(results []*build.Result, tops []*os.File, fn func([]*os.File) error) error {
	if len(tops) == len(results) {
		return fn(tops)
	}
	return w.view(results[len(tops)].Layers, func(top *os.File) error {
		return w.views(results, append(tops[:len(tops):len(tops)], top), fn)
	})
}

// view calls fn with the files of layers.
func (w *Writer) view(layers []image.Layer, fn func(top *os.File) error) (err error) {
	var chain digest.Digest
	if all := image.Chains(layers); len(all) > 0 {
		chain = all[len(all)-1]
	}
	id := w.NewID()
	root, err := w.Layers.Create(id, chain, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Layers.Delete(id)) }()
	return union.View(root, fn)
}
