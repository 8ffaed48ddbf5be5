package builds

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"berth/archive"
	"berth/build/dockerfile"
	"berth/fault"
	"berth/image"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// named finds the build context that was given the name of an image or of a stage, as dockerfile.Options wants it: it is looked for under
// the name with the platform first. What one can be:
//
//	docker-image://REF       an image; scratch is the empty tree
//	oci-layout://….          an image of an OCI layout, whose directory the client gives as files, with :TAG or @DIGEST at the end
//	https://, git://, git@…  a repository, or a file that is called "context"
//	local, local:NAME        a directory of the client's
func (b *bases) named(ctx context.Context, name string, platform ocispec.Platform) (*dockerfile.Base, error) {
	if len(b.o.Named) == 0 {
		return nil, nil
	}
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return nil, nil // an image's name it can't be either
	}
	name = strings.TrimSuffix(reference.FamiliarString(ref), ":latest")
	for _, key := range []string{name + "::" + image.FormatPlatform(platform), name} {
		value, ok := b.o.Named[key]
		if !ok {
			continue
		}
		if base := b.contexts[key]; base != nil {
			return base, nil
		}
		base, err := b.contextOf(ctx, key, value, platform)
		if err != nil {
			return nil, fmt.Errorf("build context %s: %w", name, err)
		}
		if b.contexts == nil {
			b.contexts = map[string]*dockerfile.Base{}
		}
		b.contexts[key] = base
		return base, nil
	}
	return nil, nil
}

// contextOf finds what a named context's value means.
func (b *bases) contextOf(ctx context.Context, name, value string, platform ocispec.Platform) (*dockerfile.Base, error) {
	kind, rest, _ := strings.Cut(value, ":")
	rest = strings.TrimPrefix(rest, "//")
	if git, is, err := dockerfile.ParseGit(value); is {
		return &dockerfile.Base{Files: &dockerfile.Tree{Name: name, From: &dockerfile.Source{Git: &git}}}, err
	}
	switch kind {
	case "docker-image":
		if rest == "scratch" {
			return &dockerfile.Base{}, nil
		}
		img, err := b.Image(ctx, rest, platform)
		return &dockerfile.Base{Image: img}, err
	case "oci-layout":
		img, err := b.fromLayout(ctx, name, rest, platform)
		return &dockerfile.Base{Image: img}, err
	case "http", "https":
		return &dockerfile.Base{Files: &dockerfile.Tree{Name: name, From: &dockerfile.Source{URL: value, As: "context"}}}, nil
	case "local":
		if rest != "" {
			name = rest
		}
		return &dockerfile.Base{Files: &dockerfile.Tree{Name: name}}, nil
	case "target":
		return nil, fault.New(fault.Unsupported, "%s: only bake knows targets: name a stage of the Dockerfile by FROM or --from", value)
	}
	return nil, fault.New(fault.Unsupported, "unsupported context source %s: give a directory, docker-image://, oci-layout:// or an address", kind)
}

// maxDocument is how long an index or a manifest of a layout may be, in bytes.
const maxDocument = 8 << 20

// fromLayout takes an image out of an OCI layout, whose directory the client gives.
func (b *bases) fromLayout(ctx context.Context, name, ref string, platform ocispec.Platform) (*dockerfile.Image, error) {
	files, err := b.client.Files(ctx, name, nil)
	if err != nil {
		return nil, err
	}
	target, err := pick(files.Top, ref)
	if err != nil {
		return nil, err
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(packLayout(ctx, w, files.Top, target)) }()
	list, err := b.Images.Store.Load(ctx, r, nil, nil)
	r.CloseWithError(err)
	if err != nil {
		return nil, err
	}
	img, err := b.Images.ForCreate(ctx, list[0].ID.String(), foreign(platform))
	if err != nil {
		return nil, err
	}
	return &dockerfile.Image{Name: name, Digest: img.ID, Config: img.Config, Handle: img}, nil
}

// pick finds the image of a layout that ref names, PATH[:TAG][@DIGEST]; without either it has one.
func pick(top *os.File, ref string) (d ocispec.Descriptor, err error) {
	text, err := archive.ReadFile(top, ocispec.ImageIndexFile, maxDocument)
	if err != nil {
		return d, fmt.Errorf("read the OCI layout: %w", err)
	}
	var index ocispec.Index
	if err := json.Unmarshal(text, &index); err != nil {
		return d, fault.New(fault.Corrupt, "read the OCI layout: %w", err)
	}
	at, wanted, _ := strings.Cut(ref, "@")
	tag := ""
	if k := strings.LastIndex(at, ":"); k > strings.LastIndex(at, "/") {
		tag = at[k+1:]
	}
	var found []ocispec.Descriptor
	for _, m := range index.Manifests {
		called := m.Annotations[ocispec.AnnotationRefName]
		if wanted != "" && m.Digest != digest.Digest(wanted) || wanted == "" && tag != "" && called != tag && !strings.HasSuffix(called, ":"+tag) {
			continue
		}
		found = append(found, m)
	}
	switch {
	case len(found) == 0:
		return d, fault.New(fault.NotFound, "the OCI layout has no image %s", ref)
	case len(found) > 1 && wanted == "" && tag == "":
		return d, fault.New(fault.Invalid, "the OCI layout has %d images: add :TAG or @DIGEST", len(found))
	}
	return found[0], nil
}

// packLayout writes a layout that has but one image, without a name.
func packLayout(ctx context.Context, w io.Writer, top *os.File, target ocispec.Descriptor) error {
	target.Annotations = nil
	index, err := json.Marshal(ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{target}})
	if err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	for name, text := range map[string][]byte{ocispec.ImageIndexFile: index, ocispec.ImageLayoutFile: []byte(`{"imageLayoutVersion":"1.0.0"}`)} {
		err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text)), Format: tar.FormatPAX})
		if err == nil {
			_, err = tw.Write(text)
		}
		if err != nil {
			return err
		}
	}
	if err := tw.Flush(); err != nil { // the other archive ends it
		return err
	}
	p := archive.NewPacker(ctx, w, archive.PackOptions{})
	if err := p.AddPath(top, path.Join("/", ocispec.ImageBlobsDir), ocispec.ImageBlobsDir); err != nil {
		return err
	}
	return p.Close()
}
