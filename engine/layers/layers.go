// Package layers looks into images: what each layer adds, changes and takes away, what later layers hide of it, and how two
// images differ.
//
// It is not the store of images nor a container's tree: it reads unpacked layers where they lie, and mounts, starts and keeps
// nothing. Invariant: memory is bounded by the largest directory and by how many files have several names, not by the image; what is
// found is told while it is found.
package layers

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/fault"
	"berth/image"
	"berth/union"
)

// Explorer looks into the images of a store.
type Explorer struct {
	Images *image.Store
	Layers union.Driver
}

// Change says what a layer, or the second of two images, does to a path. The letters are those of `diff`.
type Change string

// The changes. Kept is a directory that a layer has again as it was.
const (
	Added   Change = "A"
	Changed Change = "C"
	Deleted Change = "D"
	Kept    Change = ""
)

// Sum counts files, which is everything but directories, and the bytes of the regular ones; each
// file of a layer counts its bytes once, however many names it has.
type Sum struct {
	Files int64
	Bytes int64
}

func (s *Sum) add(bytes int64) { s.Files++; s.Bytes += bytes }

// Layer is one layer of an image.
type Layer struct {
	Digest    digest.Digest // of the layer as it is distributed
	DiffID    digest.Digest // of its plain tar
	Chain     digest.Digest // of it and all below
	MediaType string
	Size      int64      // bytes as it is distributed
	Unpacked  int64      // bytes of its files
	CreatedBy string     // what made it, such as a line of a Dockerfile; "" when nobody says
	Comment   string     `json:",omitempty"`
	Created   *time.Time `json:",omitempty"`
	Added     Sum
	Changed   Sum // with the sizes after the change
	Removed   Sum
	Hidden    int64 // bytes of its files that later layers change or remove
}

// Weight is a path and how many bytes it is worth.
type Weight struct {
	Path  string
	Bytes int64
	Layer int // the one that has it; of hidden bytes, the last one that hid some
	Times int `json:",omitempty"`
}

// Report is what an image's layers weigh.
type Report struct {
	ID       string `json:"Id"`
	Platform ocispec.Platform
	Size     int64 // bytes of its layers as they are distributed
	Unpacked int64 // bytes of all files in all layers
	Shown    Sum   // what a container sees of them
	Hidden   int64 // Unpacked - Shown.Bytes: what later layers change or remove
	// Efficiency is the sum over all paths of the smallest size that a path has in any layer, 0 for one that a layer removes, divided by the
	// sum of all its sizes: 1 when no byte is stored twice or in vain.
	Efficiency float64
	Layers     []Layer // the deepest first
	Largest    []Weight
	Wasteful   []Weight // the paths with the most hidden bytes; what a directory took with it counts as the directory's
}

// File is a path of an image.
type File struct {
	Path     string
	Change   Change `json:",omitempty"`
	Layer    int    // the one that has it, or that removed it
	Mode     uint32 // type and permissions, as st_mode in inode(7)
	UID      uint32
	GID      uint32
	Size     int64     `json:",omitempty"` // of a regular file, in bytes
	Was      int64     `json:",omitempty"` // the size before the change
	Modified time.Time `json:",omitzero"`
	Link     string    `json:",omitempty"` // where a symbolic link points to
}

// FilesRequest selects files.
type FilesRequest struct {
	Ref      string
	Platform *ocispec.Platform
	Layer    int    // 0 is the deepest; -1: the whole image as a container sees it
	Merged   bool   // all that is there with this layer on top, not only what it changes
	Path     string // only this path and what lies below; "" and "/" are all
}

// opened is an image and its layers.
type opened struct {
	*image.Image
	stack *union.Stack
}

func (e *Explorer) open(ref string, platform *ocispec.Platform) (*opened, error) {
	var img *image.Image
	var err error
	if platform != nil {
		img, err = e.Images.GetPlatform(ref, *platform)
	} else {
		img, err = e.Images.Get(ref)
	}
	if err != nil {
		return nil, err
	}
	if img.Artifact != "" {
		return nil, fault.New(fault.Invalid, "image %s has no layers of files: it is an artifact of type %s", ref, img.Artifact)
	}
	s, err := union.OpenStack(e.Layers, img.Chain)
	if err != nil {
		return nil, err
	}
	if s.Len() != len(img.DiffIDs) {
		s.Close()
		return nil, fault.New(fault.Corrupt, "image %s has %d layers, but %d are unpacked", ref, len(img.DiffIDs), s.Len())
	}
	return &opened{img, s}, nil
}

// end closes the layers; what went wrong because they were removed is said so.
func (o *opened) end(err *error) {
	if gone := o.stack.Check(); *err != nil && gone != nil {
		*err = gone
	} else if *err == nil {
		*err = gone
	}
	fault.Close(o.stack, err)
}

// Files tells of each file that r selects, parents before children and names in order. fault.NotFound: no such image or path.
func (e *Explorer) Files(ctx context.Context, r FilesRequest, tell func(File) error) (err error) {
	o, err := e.open(r.Ref, r.Platform)
	if err != nil {
		return err
	}
	defer o.end(&err)
	return files(ctx, o.stack, r, tell)
}

func files(ctx context.Context, from *union.Stack, r FilesRequest, tell func(File) error) error {
	whole := r.Layer < 0
	if whole {
		r.Layer, r.Merged = from.Len()-1, true
	}
	if !whole && r.Layer >= from.Len() {
		return fault.New(fault.NotFound, "image %s has no layer %d: its %d layers are counted from 0", r.Ref, r.Layer, from.Len())
	}
	w := &walk{ctx: ctx, from: from, within: inside(r.Path)}
	found := w.within == "."
	err := w.run(r.Layer+1, func(n node) error {
		f, ok := pick(n, r.Layer, r.Merged, whole)
		found = found || ok || !whole
		if !ok {
			return nil
		}
		last := n.steps[len(n.steps)-1]
		if last.entry != nil && last.entry.IsLink() {
			var err error
			if f.Link, err = from.Readlink(last.layer, n.path); err != nil {
				return err
			}
		}
		return tell(f)
	})
	if err == nil && !found {
		return fault.New(fault.NotFound, "image %s has no %s", r.Ref, r.Path)
	}
	return err
}

// pick makes the file that a node is for layer.
func pick(n node, layer int, merged, whole bool) (File, bool) {
	last := n.steps[len(n.steps)-1]
	if last.layer != layer && (!merged || last.entry == nil) {
		return File{}, false
	}
	if whole && last.entry == nil {
		return File{}, false
	}
	f := File{Path: "/" + n.path, Layer: last.layer}
	var was *union.Entry
	if len(n.steps) > 1 {
		was = n.steps[len(n.steps)-2].entry
	}
	show := last.entry
	if show == nil {
		show, was = was, nil
		f.Was, f.Size = show.Size, 0
	}
	if last.entry != nil {
		f.Size = show.Size
		if was != nil && last.layer == layer && !whole {
			f.Was = was.Size
		}
	}
	if last.layer == layer && !whole {
		f.Change = last.change
	}
	f.Mode, f.UID, f.GID, f.Modified = show.Mode, show.UID, show.GID, show.Modified
	return f, true
}
