// Package output writes what a build made in the forms in which it leaves the builder: manifests and indexes over layers of the wanted
// compression, archives, and trees of files.
//
// It builds nothing and knows no registry; names are given by its caller. Invariant: the same results and the same form give the same bytes.
package output

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"berth/build"
	"berth/fault"
	"berth/image"
	"berth/union"
)

// Writer writes results. The fields are set once, before it is used; its methods may be called concurrently.
type Writer struct {
	Layers union.Driver
	NewID  func() string // names a root; who supplies it sweeps those of an engine that died

	mu         sync.Mutex
	compressed map[compressed]image.Layer // what was compressed before, as long as it is here
}

// Part is the result for one platform.
type Part struct {
	*build.Result
	Config     map[string]json.RawMessage // further fields of the image's config
	Statements []Statement                // what is attested of it
}

// Form says how an image is written down.
type Form struct {
	Compression Compression
	Level       *int // of the compression; nil: its own default
	Force       bool // layers that are compressed already are compressed anew
	Docker      bool // media types are Docker's instead of OCI's
	Rewrite     bool // files that are later than the plan's epoch get that time
	Index       bool // one for a single platform has an index, too
	Annotations []Annotation
	Names       []string // what attestations call the image
}

// Image is an image that was written down, without a name yet. What it names is held by the draft.
type Image struct {
	Target ocispec.Descriptor // an index when there are several platforms or attestations
	Config digest.Digest      // "" when there are several platforms
}

// Image writes an image of parts into draft.
func (w *Writer) Image(ctx context.Context, draft *image.Draft, parts []Part, f Form) (made Image, err error) {
	if err := f.check(parts); err != nil {
		return made, err
	}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: f.types().index, Manifests: []ocispec.Descriptor{}, Annotations: f.pick(onIndex, nil)}
	var beside []ocispec.Descriptor
	for _, p := range parts {
		m, config, err := w.manifest(ctx, draft, p, f)
		if err != nil {
			return made, err
		}
		made.Config = config
		index.Manifests = append(index.Manifests, m)
		if len(p.Statements) > 0 {
			about, err := attest(draft, m, p, f)
			if err != nil {
				return made, err
			}
			beside = append(beside, about)
		}
	}
	if len(parts) == 1 && len(beside) == 0 && !f.Index {
		made.Target = index.Manifests[0]
		return made, nil
	}
	if len(parts) > 1 {
		made.Config = ""
	}
	index.Manifests = append(index.Manifests, beside...)
	made.Target, err = draft.Document(index.MediaType, index)
	made.Target.Annotations = f.pick(onIndexDescriptor, nil)
	return made, err
}

func (f Form) check(parts []Part) error {
	attested := slices.ContainsFunc(parts, func(p Part) bool { return len(p.Statements) > 0 })
	if len(parts) == 1 && !attested && !f.Index {
		if f.pick(onIndex, nil) != nil || f.pick(onIndexDescriptor, nil) != nil {
			return fault.New(fault.Invalid, "index annotations not supported for single platform export: an image for one platform has no index; annotate its manifest")
		}
	}
	if f.Docker && (attested || f.pick(onIndex, nil) != nil || f.pick(onIndexDescriptor, nil) != nil || f.pick(onManifestDescriptor, nil) != nil) {
		return fault.New(fault.Invalid, "cannot export annotations or attestations with \"oci-mediatypes=false\": leave that option out")
	}
	for _, a := range f.Annotations {
		if a.platform == nil {
			continue
		}
		has := func(p Part) bool {
			return image.FormatPlatform(p.Settings.Platform) == image.FormatPlatform(*a.platform)
		}
		if !slices.ContainsFunc(parts, has) {
			return fault.New(fault.Invalid, "invalid annotation: no platform %s found in source", image.FormatPlatform(*a.platform))
		}
	}
	return nil
}

// manifest writes the image of one platform.
func (w *Writer) manifest(ctx context.Context, draft *image.Draft, p Part, f Form) (desc ocispec.Descriptor, config digest.Digest, err error) {
	layers := p.Layers
	if f.Rewrite && p.Plan.Epoch != nil {
		if layers, err = rewrite(ctx, draft, layers, p.Base, *p.Plan.Epoch); err != nil {
			return desc, "", err
		}
	}
	if layers, err = w.Compress(ctx, draft, layers, f); err != nil {
		return desc, "", err
	}
	t := f.types()
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: t.manifest, Layers: []ocispec.Descriptor{}, Annotations: f.pick(onManifest, &p.Settings.Platform)}
	settings := p.Settings
	settings.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}
	for _, l := range layers {
		l.Desc.MediaType = t.layer(l.Desc.MediaType)
		m.Layers = append(m.Layers, l.Desc)
		settings.RootFS.DiffIDs = append(settings.RootFS.DiffIDs, l.DiffID)
	}
	fields, err := configOf(settings, p.Config)
	if err != nil {
		return desc, "", err
	}
	if m.Config, err = draft.Document(t.config, fields); err != nil {
		return desc, "", fmt.Errorf("keep the image's config: %w", err)
	}
	if desc, err = draft.Document(m.MediaType, m); err != nil {
		return desc, "", fmt.Errorf("keep the image's manifest: %w", err)
	}
	desc.Annotations = f.pick(onManifestDescriptor, &p.Settings.Platform)
	desc.Platform = &ocispec.Platform{Architecture: settings.Architecture, OS: settings.OS, Variant: settings.Variant, OSVersion: settings.OSVersion, OSFeatures: settings.OSFeatures}
	return desc, m.Config.Digest, nil
}

// configOf is an image's config, its fields in the order in which Docker writes them: that of the alphabet.
func configOf(settings dockerspec.DockerOCIImage, more map[string]json.RawMessage) (fields map[string]json.RawMessage, err error) {
	data, err := json.Marshal(settings)
	if err == nil {
		err = json.Unmarshal(data, &fields)
	}
	for k, v := range more {
		fields[k] = v
	}
	return fields, err
}

// Compress brings all layers to the form's compression, several at a time.
func (w *Writer) Compress(ctx context.Context, draft *image.Draft, layers []image.Layer, f Form) ([]image.Layer, error) {
	layers = slices.Clone(layers)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atATime)
	for k, l := range layers {
		if !f.changes(l.Desc) {
			continue
		}
		group.Go(func() (err error) {
			layers[k], err = w.layer(ctx, draft, l, f)
			return err
		})
	}
	return layers, group.Wait()
}

// atATime bounds the layers that are compressed at a time.
const atATime = 4
