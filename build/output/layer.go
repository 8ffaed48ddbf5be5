package output

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	klauspost "github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/archive/compress"
	"berth/fault"
	"berth/image"
)

// Compression is that of an image's layers.
type Compression string

// The compressions. Asis leaves layers as they are, and those that were just made plain.
const (
	Asis         Compression = ""
	Uncompressed Compression = "uncompressed"
	Gzip         Compression = "gzip"
	Zstd         Compression = "zstd"
)

// compressionOf is what a layer of a media type has.
func compressionOf(mediaType string) Compression {
	switch {
	case strings.HasSuffix(mediaType, "gzip"):
		return Gzip
	case strings.HasSuffix(mediaType, "zstd"):
		return Zstd
	}
	return Uncompressed
}

// changes tells whether the form wants a layer to be written anew: what was compressed stays so unless that is forced, and what registries
// must not have is never touched.
func (f Form) changes(desc ocispec.Descriptor) bool {
	have := compressionOf(desc.MediaType)
	switch {
	case f.Compression == Asis || len(desc.URLs) > 0:
		return false
	case have == Uncompressed || f.Force:
		return have != f.Compression || f.Compression != Uncompressed
	}
	return false
}

// compressed is what a compressed layer was made of, and how.
type compressed struct {
	diffID digest.Digest
	kind   Compression
	level  int
}

// maxRemembered bounds what is kept in mind of compressed layers.
const maxRemembered = 4096

// layer writes a layer with the form's compression. Its files stay what they are.
func (w *Writer) layer(ctx context.Context, draft *image.Draft, l image.Layer, f Form) (made image.Layer, err error) {
	key := compressed{l.DiffID, f.Compression, -1}
	if f.Level != nil {
		key.level = *f.Level
	}
	w.mu.Lock()
	known, ok := w.compressed[key]
	w.mu.Unlock()
	if ok && draft.Has(known.Desc) {
		return known, nil
	}
	r, err := draft.Open(l.Desc)
	if err != nil {
		return made, err
	}
	defer fault.Close(r, &err)
	plain, _, err := compress.Open(r)
	if err != nil {
		return made, fmt.Errorf("layer %s: %w", l.Desc.Digest, err)
	}
	defer fault.Close(plain, &err)
	made = image.Layer{DiffID: l.DiffID}
	made.Desc, err = draft.Blob(ctx, layerTypes[f.Compression], func(to io.Writer) error {
		out, err := f.compressor(to)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, contextual{ctx, plain})
		return errors.Join(err, out.Close())
	})
	if err != nil {
		return made, fmt.Errorf("compress layer %s: %w", l.Desc.Digest, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.compressed == nil || len(w.compressed) >= maxRemembered {
		w.compressed = map[compressed]image.Layer{}
	}
	w.compressed[key] = made
	return made, nil
}

var layerTypes = map[Compression]string{Uncompressed: ocispec.MediaTypeImageLayer, Gzip: ocispec.MediaTypeImageLayerGzip, Zstd: ocispec.MediaTypeImageLayerZstd}

// compressor compresses into w. The same bytes give the same bytes.
func (f Form) compressor(w io.Writer) (io.WriteCloser, error) {
	switch f.Compression {
	case Gzip:
		level := gzip.DefaultCompression
		if f.Level != nil {
			level = *f.Level
		}
		return klauspost.NewWriterLevel(w, level)
	case Zstd:
		level := zstd.SpeedDefault
		if f.Level != nil {
			level = zstd.EncoderLevelFromZstd(*f.Level)
		}
		return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(level))
	}
	return unclosed{w}, nil
}

type unclosed struct{ io.Writer }

// Close implements io.Closer.
func (unclosed) Close() error { return nil }

// contextual is a reader that ends with its context.
type contextual struct {
	ctx context.Context
	io.Reader
}

// Read implements io.Reader.
func (c contextual) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, fault.Wrap(fault.Canceled, context.Cause(c.ctx))
	}
	return c.Reader.Read(p)
}

// rewrite makes the layers above the base anew, in which no file is later than epoch. The base's are somebody else's.
func rewrite(ctx context.Context, draft *image.Draft, layers []image.Layer, base int, epoch time.Time) (list []image.Layer, err error) {
	list = append(list, layers[:min(base, len(layers))]...)
	for _, l := range layers[len(list):] {
		made, err := draft.Layer(ctx, list, func(ctx context.Context, w io.Writer) error { return clamp(ctx, draft, l, w, epoch) })
		if err != nil {
			return nil, fmt.Errorf("rewrite the times of layer %s: %w", l.Desc.Digest, err)
		}
		if made.DiffID != "" {
			list = append(list, made)
		}
	}
	return list, nil
}

// clamp copies a layer's plain archive to w, with no time after epoch.
func clamp(ctx context.Context, draft *image.Draft, l image.Layer, w io.Writer, epoch time.Time) (err error) {
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
	tr, tw := tar.NewReader(contextual{ctx, plain}), tar.NewWriter(w)
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return tw.Close()
		}
		if err != nil {
			return err
		}
		for _, t := range []*time.Time{&hdr.ModTime, &hdr.AccessTime, &hdr.ChangeTime} {
			if t.After(epoch) {
				*t = epoch
			}
		}
		hdr.Format = tar.FormatPAX
		for k := range hdr.PAXRecords { // the reader has filled the holes, and the times are in the header
			if strings.HasPrefix(k, "GNU.sparse.") || k == "mtime" || k == "atime" || k == "ctime" {
				delete(hdr.PAXRecords, k)
			}
		}
		if err := tw.WriteHeader(hdr); err != nil {
			return err
		}
		if _, err := io.Copy(tw, tr); err != nil {
			return err
		}
	}
}
