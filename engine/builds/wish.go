package builds

import (
	"strconv"
	"strings"

	"berth/build/output"
	"berth/fault"
	"berth/image"

	"github.com/distribution/reference"
)

// wish is an output as it was understood.
type wish struct {
	Output
	form  output.Form
	names []reference.Named

	store, push, byDigest, canonical, insecure bool
	dangling                                   reference.Named // what an image without names is called, with its digest
	danglingOnly                               bool            // only such an image
	platformSplit                              *bool
}

// split tells whether the files of each platform lie below a directory of their own.
func (w *wish) split(solved *Solved) bool {
	if w.platformSplit != nil {
		return *w.platformSplit
	}
	return solved.several
}

// accepted are options that change nothing here: layers are always unpacked, a client keeps to itself where files go, and what can't be had of
// registries elsewhere is never sent to one.
var accepted = map[string][]string{
	"image":     {"unpack", "prefer-nondist-layers", "attestation-inline", "oci-artifact"},
	"oci":       {"dest", "tar", "prefer-nondist-layers", "attestation-inline", "oci-artifact", "platform-split"},
	"docker":    {"dest", "tar", "prefer-nondist-layers", "attestation-inline", "context"},
	"local":     {"dest", "mode", "attestation-prefix"},
	"tar":       {"dest", "mode", "attestation-prefix"},
	"cacheonly": {},
}

// wish reads the output's options.
func (o Output) wish() (*wish, error) {
	w := &wish{Output: o, store: true}
	if o.Type == "registry" {
		w.Type, w.push = "image", true
	}
	if _, ok := accepted[w.Type]; !ok {
		return nil, fault.New(fault.Invalid, "output type %q: there are image, registry, oci, docker, local, tar and cacheonly", o.Type)
	}
	w.form.Docker = w.Type == "docker"
	for k, v := range o.Attrs {
		if err := w.option(k, v); err != nil {
			return nil, err
		}
	}
	if w.form.Compression == output.Asis && (w.push || w.Type == "oci" || w.form.Force || w.form.Level != nil) {
		w.form.Compression = output.Gzip // what every registry and reader knows
	}
	if l := w.form.Level; l != nil {
		most := map[output.Compression]int{output.Gzip: 9, output.Zstd: 22}[w.form.Compression]
		if *l < 0 || *l > most {
			return nil, fault.New(fault.Invalid, "output type %s: compression-level=%d: %s has 0 to %d", o.Type, *l, w.form.Compression, most)
		}
	}
	return w, w.consistent()
}

// consistent refuses options that don't go together.
func (w *wish) consistent() error {
	if w.form.Docker && w.form.Compression == output.Zstd {
		return fault.New(fault.Invalid, "output type %s: zstd layers are of OCI's types: set oci-mediatypes=true", w.Output.Type)
	}
	if w.push && len(w.names) == 0 {
		return fault.New(fault.Invalid, "tag is needed when pushing to registry: name the image by -t or name=")
	}
	for _, n := range w.names {
		if _, tagged := n.(reference.Tagged); w.byDigest && tagged {
			return fault.New(fault.Invalid, "can't push tagged ref %s by digest: leave out the tag or push-by-digest", reference.FamiliarString(n))
		}
	}
	return nil
}

func (w *wish) option(k, v string) (err error) {
	wrong := func(err error) error {
		return fault.New(fault.Invalid, "output type %s: %s=%s: %w", w.Type, k, v, err)
	}
	for _, name := range accepted[w.Type] {
		if k == name {
			return nil
		}
	}
	if set := w.switches()[k]; set != nil {
		on := true
		if v != "" {
			if on, err = strconv.ParseBool(v); err != nil {
				return wrong(err)
			}
		}
		set(on)
		return nil
	}
	imaged := w.Type == "image" || w.Type == "oci" || w.Type == "docker"
	switch {
	case k == "name" && imaged:
		return w.readNames(v)
	case k == "dangling-name-prefix" && w.Type == "image":
		if w.dangling, err = reference.ParseNormalizedNamed(v); err != nil {
			return wrong(err)
		}
	case k == "compression" && imaged:
		w.form.Compression = output.Compression(v)
		if c := w.form.Compression; c != output.Gzip && c != output.Zstd && c != output.Uncompressed {
			return fault.New(fault.Invalid, "output type %s: compression=%s: there are gzip, zstd and uncompressed", w.Type, v)
		}
	case k == "compression-level" && imaged:
		n, err := strconv.Atoi(v)
		if err != nil {
			return wrong(err)
		}
		w.form.Level = &n
	case imaged:
		a, is, err := output.ParseAnnotation(k, v)
		if err != nil {
			return err
		}
		if is {
			w.form.Annotations = append(w.form.Annotations, a)
			return nil
		}
		fallthrough
	default:
		return fault.New(fault.Invalid, "output type %s has no option %q", w.Type, k)
	}
	return nil
}

// switches are the options of the output's type that are on or off.
func (w *wish) switches() map[string]func(bool) {
	to := func(b *bool) func(bool) { return func(on bool) { *b = on } }
	switch w.Type {
	case "local", "tar":
		return map[string]func(bool){"platform-split": func(on bool) { w.platformSplit = &on }}
	case "cacheonly":
		return nil
	}
	all := map[string]func(bool){
		"force-compression": to(&w.form.Force), "rewrite-timestamp": to(&w.form.Rewrite), "oci-mediatypes": func(on bool) { w.form.Docker = !on },
		"name-canonical": to(&w.canonical),
	}
	if w.Type == "image" {
		for k, b := range map[string]*bool{"push": &w.push, "push-by-digest": &w.byDigest, "store": &w.store, "registry.insecure": &w.insecure, "danging-name-empty-only": &w.danglingOnly} {
			all[k] = to(b)
		}
	}
	return all
}

// readNames reads the image's names, divided by commas.
func (w *wish) readNames(text string) error {
	for one := range strings.SplitSeq(text, ",") {
		if one == "" {
			continue
		}
		n, err := image.ParseName(one)
		if err == nil && w.Attrs["push-by-digest"] != "" && w.Attrs["push-by-digest"] != "false" {
			n, err = reference.ParseNormalizedNamed(one)
		}
		if err != nil {
			return fault.New(fault.Invalid, "invalid image name %q: %w", one, err)
		}
		w.names = append(w.names, n)
	}
	return nil
}
