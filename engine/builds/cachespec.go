package builds

import (
	"encoding/csv"
	"slices"
	"strconv"
	"strings"

	"berth/build/output"
	"berth/fault"
	"berth/image"

	"github.com/distribution/reference"
)

// CacheSpec is a cache elsewhere, as --cache-from and --cache-to name it.
type CacheSpec struct {
	Name  string            // by which the client is asked for its files, or where they go; no two of a build are alike
	Type  string            // registry, local or inline
	Attrs map[string]string // options, as BuildKit has them
}

// ParseCacheSpec reads "type=registry,ref=NAME", or the name of an image.
func ParseCacheSpec(name, text string) (c CacheSpec, err error) {
	c = CacheSpec{Name: name, Attrs: map[string]string{}}
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return c, fault.New(fault.Invalid, "cache %q: %w", text, err)
	}
	if len(fields) == 1 && !strings.Contains(fields[0], "=") {
		c.Type, c.Attrs["ref"] = "registry", fields[0]
		return c, nil
	}
	for _, f := range fields {
		key, value, ok := strings.Cut(f, "=")
		if !ok {
			return c, fault.New(fault.Invalid, "cache %q: %q is not KEY=VALUE", text, f)
		}
		if key = strings.ToLower(key); key == "type" {
			c.Type = value
		} else {
			c.Attrs[key] = value
		}
	}
	if c.Type == "" {
		return c, fault.New(fault.Invalid, "cache %q: type required", text)
	}
	return c, nil
}

// ParseCacheSpecs reads several, and calls them by prefix and number.
func ParseCacheSpecs(prefix string, texts []string) (all []CacheSpec, err error) {
	for n, text := range texts {
		c, err := ParseCacheSpec(prefix+strconv.Itoa(n), text)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

// CacheFromName and CacheToName are how caches are called whose files the client has.
const (
	CacheFromName = "cache-from:"
	CacheToName   = "cache-to:"
)

// exchange is what a cache is exported as.
type exchange struct {
	CacheSpec
	all    bool // of stages, too, that the image has nothing of
	ignore bool // an error fails no build
	form   output.Form
}

// cacheOptions are the options of each type, from which and to which.
var cacheOptions = map[string][2][]string{
	"registry": {{"ref"}, {"ref", "mode", "ignore-error", "image-manifest", "oci-mediatypes", "compression", "compression-level", "force-compression"}},
	"local":    {{"src", "digest", "tag"}, {"dest", "tag", "mode", "ignore-error", "image-manifest", "oci-mediatypes", "compression", "compression-level", "force-compression"}},
	"inline":   {nil, {"mode"}},
}

// check refuses what can't be had of the cache before anything is built; to: it is exported.
func (c CacheSpec) check(to bool) error {
	options, ok := cacheOptions[c.Type]
	which := 0
	if to {
		which = 1
	}
	switch {
	case slices.Contains([]string{"gha", "s3", "azblob"}, c.Type):
		return fault.New(fault.Unsupported, "caches of type %s are not supported by this version of berth: use type=registry or type=local", c.Type)
	case !ok:
		return fault.New(fault.Invalid, "unknown cache type %q: there are registry, local and inline", c.Type)
	case c.Type == "inline" && !to:
		return fault.New(fault.Invalid, "a cache of type inline is part of an image: import it by type=registry,ref=IMAGE")
	}
	for k := range c.Attrs {
		if !slices.Contains(options[which], k) {
			return fault.New(fault.Invalid, "cache of type %s has no option %q", c.Type, k)
		}
	}
	if c.Type == "registry" {
		_, err := c.ref()
		return err
	}
	return nil
}

// ref is the name that a cache has in a registry.
func (c CacheSpec) ref() (reference.Named, error) {
	if c.Attrs["ref"] == "" {
		return nil, fault.New(fault.Invalid, "cache of type registry: ref is missing")
	}
	named, err := image.ParseName(c.Attrs["ref"])
	if err != nil {
		return nil, err
	}
	return reference.TagNameOnly(named), nil
}

// String is the cache for people.
func (c CacheSpec) String() string {
	if ref, err := c.ref(); err == nil {
		return ref.String()
	}
	return c.Type + " directory"
}

// exchange reads the options of an export.
func (c CacheSpec) exchange() (e exchange, err error) {
	e.CacheSpec = c
	if err := c.check(true); err != nil {
		return e, err
	}
	switch mode := c.Attrs["mode"]; mode {
	case "", "min":
	case "max":
		e.all = true
	default:
		return e, fault.New(fault.Invalid, "cache of type %s: mode=%s: there are min and max", c.Type, mode)
	}
	for name, to := range map[string]*bool{"ignore-error": &e.ignore, "image-manifest": nil, "oci-mediatypes": nil} {
		text, given := c.Attrs[name]
		if !given {
			continue
		}
		on, err := strconv.ParseBool(text)
		switch {
		case err != nil:
			return e, fault.New(fault.Invalid, "cache of type %s: %s=%s: it is true or false", c.Type, name, text)
		case to != nil:
			*to = on
		case !on:
			return e, fault.New(fault.Unsupported, "cache of type %s: %s=false is not supported: a cache is an image manifest of OCI's types", c.Type, name)
		}
	}
	form := Output{Type: "oci", Attrs: map[string]string{}}
	for _, name := range []string{"compression", "compression-level", "force-compression"} {
		if v, given := c.Attrs[name]; given {
			form.Attrs[name] = v
		}
	}
	w, err := form.wish()
	if err != nil {
		return e, err
	}
	e.form = w.form
	return e, nil
}
