package buildkit

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"io"
	"path"
	"strings"

	"berth/build"
	"berth/fault"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// layout brings an image of an OCI layout that the client has: the context's value is oci-layout://STORE[:TAG]@DIGEST.
func (a *asker) layout(ctx context.Context, value string) (*build.Files, error) {
	_, ref, _ := strings.Cut(value, ":")
	store, wanted, _ := strings.Cut(strings.TrimPrefix(ref, "//"), "@")
	store, _, _ = strings.Cut(store, ":") // a tag says nothing here
	d, err := digest.Parse(wanted)
	if err != nil {
		return nil, fault.New(fault.Invalid, "%s names no digest", value)
	}
	r, w := io.Pipe()
	go func() {
		c := &copying{asker: a, ctx: ctx, store: "oci:" + store, tar: tar.NewWriter(w), seen: map[digest.Digest]bool{}}
		w.CloseWithError(c.image(d))
	}()
	dir, err := a.Builds.Unpack(ctx, r)
	r.CloseWithError(errors.Join(err, io.ErrClosedPipe))
	if err != nil {
		return nil, err
	}
	return a.dirs.whole(dir), nil
}

// copying is a layout on its way.
type copying struct {
	*asker
	ctx   context.Context
	store string
	tar   *tar.Writer
	seen  map[digest.Digest]bool
}

// image writes a layout of one image.
func (c *copying) image(d digest.Digest) error {
	text, err := c.document(d)
	if err != nil {
		return err
	}
	var top struct{ MediaType string }
	if err := json.Unmarshal(text, &top); err != nil {
		return fault.New(fault.Corrupt, "read the manifest %s: %w", d, err)
	}
	index, err := json.Marshal(ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{{MediaType: top.MediaType, Digest: d, Size: int64(len(text))}}})
	if err != nil {
		return err
	}
	if err := c.file(ocispec.ImageIndexFile, int64(len(index)), strings.NewReader(string(index))); err != nil {
		return err
	}
	return errors.Join(c.graph(d, text, 0), c.tar.Close())
}

// maxNested is how many indexes an image may be below: more than one is nobody's.
const maxNested = 8

// graph writes a manifest or an index, with all that it names.
func (c *copying) graph(d digest.Digest, text []byte, depth int) error {
	if depth > maxNested {
		return fault.New(fault.Unsupported, "the client's image lies below more than %d indexes", maxNested)
	}
	if err := c.file(blobPath(d), int64(len(text)), strings.NewReader(string(text))); err != nil {
		return err
	}
	var m struct {
		Manifests, Layers []ocispec.Descriptor
		Config            *ocispec.Descriptor
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return fault.New(fault.Corrupt, "read the manifest %s: %w", d, err)
	}
	for _, child := range m.Manifests {
		if c.seen[child.Digest] || child.Digest.Validate() != nil {
			continue
		}
		c.seen[child.Digest] = true
		text, err := c.document(child.Digest)
		if err != nil {
			return err
		}
		if err := c.graph(child.Digest, text, depth+1); err != nil {
			return err
		}
	}
	if m.Config != nil {
		m.Layers = append(m.Layers, *m.Config)
	}
	for _, l := range m.Layers {
		if c.seen[l.Digest] || l.Digest.Validate() != nil {
			continue
		}
		c.seen[l.Digest] = true
		if err := c.blob(l); err != nil {
			return err
		}
	}
	return nil
}

func blobPath(d digest.Digest) string {
	return path.Join(ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

func (c *copying) file(name string, size int64, from io.Reader) error {
	if err := c.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: size, Format: tar.FormatPAX}); err != nil {
		return err
	}
	_, err := io.Copy(c.tar, from)
	return err
}

// document reads a blob that is a document.
func (c *copying) document(d digest.Digest) (text []byte, err error) {
	b, err := c.open(d)
	if err != nil {
		return nil, err
	}
	defer b.cancel()
	text, err = io.ReadAll(io.LimitReader(b, maxMessage))
	if err == nil && d != d.Algorithm().FromBytes(text) {
		err = fault.New(fault.Corrupt, "the client's %s has another content", d)
	}
	return text, err
}

func (c *copying) blob(l ocispec.Descriptor) error {
	b, err := c.open(l.Digest)
	if err != nil {
		return err
	}
	defer b.cancel()
	return c.file(blobPath(l.Digest), l.Size, b)
}

// open asks for a blob by containerd's content service, of which a request's digest is field 1, an answer's data field 2.
func (c *copying) open(d digest.Digest) (*blobStream, error) {
	ctx, cancel := context.WithCancel(c.ctx)
	stream, err := c.session.open(ctx, "/containerd.services.content.v1.Content/Read", metadata.Pairs("buildkit-attachable-store-id", c.store))
	if err == nil {
		err = errors.Join(stream.SendMsg(wrapperspb.String(d.String())), stream.CloseSend())
	}
	if err != nil {
		cancel()
		return nil, err
	}
	return &blobStream{receive: stream.RecvMsg, cancel: cancel}, nil
}

// blobStream is a blob that comes.
type blobStream struct {
	receive func(any) error
	cancel  func()
	left    []byte
}

// Read implements io.Reader.
func (b *blobStream) Read(p []byte) (int, error) {
	for len(b.left) == 0 {
		var m emptypb.Empty
		if err := b.receive(&m); err != nil {
			return 0, plain(err)
		}
		for rest := m.ProtoReflect().GetUnknown(); len(rest) > 0; {
			number, kind, n := protowire.ConsumeTag(rest)
			if n < 0 {
				return 0, fault.New(fault.Corrupt, "the client sends what is no content")
			}
			rest = rest[n:]
			if number == 2 && kind == protowire.BytesType {
				b.left, _ = protowire.ConsumeBytes(rest)
			}
			if n = protowire.ConsumeFieldValue(number, kind, rest); n < 0 {
				return 0, fault.New(fault.Corrupt, "the client sends what is no content")
			}
			rest = rest[n:]
		}
	}
	n := copy(p, b.left)
	b.left = b.left[n:]
	return n, nil
}
