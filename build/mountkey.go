package build

import (
	"context"
	"path"

	"github.com/opencontainers/go-digest"

	"berth/build/dockerfile"
)

// bindKey adds what a mount shows to the key.
func (d *doing) bindKey(ctx context.Context, k *key, m *dockerfile.Mount) error {
	add := func(prefix string, parts map[string]string) error {
		return d.from(ctx, m.From, func(files *Files) error {
			at, _, err := inside(files.Top, m)
			if err != nil {
				return err
			}
			return digestOf(ctx, files, "/"+at, nil, prefix, parts)
		})
	}
	if m.From == nil {
		return add("file ", k.parts)
	}
	other, err := d.wait(ctx, m.From)
	if err != nil {
		return err
	}
	source, below := path.Join("/", m.Source), chain(other.layers)
	name := "files of " + m.From.Name + " at " + source
	if source == "/" { // the layers say it already
		k.parts[name] = string(below)
		return nil
	}
	sum, ok := d.Cache.trees.Load(treePart{below, source})
	if !ok {
		all := &key{parts: map[string]string{}}
		if err := add("", all.parts); err != nil {
			return err
		}
		sum = all.hash()
		d.Cache.trees.Store(treePart{below, source}, sum)
	}
	k.parts[name] = sum.(string)
	return nil
}

// treePart is a place in layers, which never change: what it holds is worked out once.
type treePart struct {
	layers digest.Digest
	path   string
}
