package output

import (
	"regexp"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/fault"
	"berth/image"
)

// mediaTypes are those of one vocabulary.
type mediaTypes struct{ index, manifest, config string }

func (f Form) types() mediaTypes {
	if f.Docker {
		return mediaTypes{"application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.container.image.v1+json"}
	}
	return mediaTypes{ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig}
}

// dockerLayers has Docker's names for layers of OCI's types.
var dockerLayers = map[string]string{
	ocispec.MediaTypeImageLayer:     "application/vnd.docker.image.rootfs.diff.tar",
	ocispec.MediaTypeImageLayerGzip: "application/vnd.docker.image.rootfs.diff.tar.gzip",
	ocispec.MediaTypeImageLayerZstd: "application/vnd.docker.image.rootfs.diff.tar.zstd",
}

// layer is a layer's type, given as OCI has it, in this vocabulary.
func (t mediaTypes) layer(name string) string {
	if docker := dockerLayers[name]; docker != "" && t.index != ocispec.MediaTypeImageIndex {
		return docker
	}
	return name
}

// Annotation is a key and a value that some document of an image has.
type Annotation struct {
	Key, Value string
	on         place
	platform   *ocispec.Platform // nil: all
}

// place is what an annotation belongs to.
type place string

const (
	onManifest           place = "manifest"
	onManifestDescriptor place = "manifest-descriptor"
	onIndex              place = "index"
	onIndexDescriptor    place = "index-descriptor"
)

// annotationName is the name of an option by which an exporter is told of an annotation.
var annotationName = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^annotation(?:-([a-z-]+))?(?:\[([A-Za-z0-9_/.-]+)\])?\.(\S+)$`)
})

// ParseAnnotation reads an exporter's option such as "annotation-manifest[linux/arm64].KEY"; is tells whether it is one at all.
func ParseAnnotation(option, value string) (a Annotation, is bool, err error) {
	part := annotationName().FindStringSubmatch(option)
	if part == nil {
		return a, false, nil
	}
	a = Annotation{Key: part[3], Value: value, on: place(part[1])}
	switch a.on {
	case "":
		a.on = onManifest
	case onManifest, onManifestDescriptor, onIndex, onIndexDescriptor:
	default:
		return a, true, fault.New(fault.Invalid, "unrecognized annotation type %s: there are manifest, manifest-descriptor, index and index-descriptor", a.on)
	}
	if part[2] != "" {
		p, err := image.ParsePlatform(part[2])
		if err != nil {
			return a, true, err
		}
		a.platform = &p
	}
	return a, true, nil
}

// pick has the annotations of one place; nil when there are none.
func (f Form) pick(on place, platform *ocispec.Platform) (found map[string]string) {
	for _, a := range f.Annotations {
		if a.on != on || a.platform != nil && (platform == nil || image.FormatPlatform(*a.platform) != image.FormatPlatform(*platform)) {
			continue
		}
		if found == nil {
			found = map[string]string{}
		}
		found[a.Key] = a.Value
	}
	return found
}
