package build

import (
	"context"
	"slices"
	"strings"
	"time"

	"berth/image"
)

// Import is a cache from elsewhere: what steps came to, by their keys, and where the layers come from.
type Import struct {
	Name     string // for people
	Outcomes map[string]Outcome
	Source   image.Source
}

// imported gives what the step came to elsewhere, its layer brought and kept here as if it had been made here. What is above the layers that
// the step begins with is compared by its digests, and so is what comes: an import that lies can't be told from a step that does not repeat
// itself, but it gives no other files than it names.
func (d *doing) imported(ctx context.Context) (layers []image.Layer, made time.Time, ok bool) {
	for _, from := range d.Imports {
		o, ok := from.Outcomes[d.key.hash()]
		if !ok || len(o.Layers) != len(d.below) && len(o.Layers) != len(d.below)+1 ||
			!slices.EqualFunc(o.Layers[:len(d.below)], d.below, func(a, b image.Layer) bool { return a.DiffID == b.DiffID }) {
			continue
		}
		var l image.Layer
		layers = d.below
		if len(o.Layers) > len(d.below) {
			l = o.Layers[len(d.below)]
			if err := d.draft.Fetch(ctx, from.Source, d.below, l); err != nil {
				if ctx.Err() == nil {
					d.Log.Warn("a build's step is done though a cache has it: what came to it can't be fetched", "cache", from.Name, "step", strings.SplitN(d.st.Text, " ", 2)[0], "error", err)
				}
				continue
			}
			layers = append(d.below[:len(d.below):len(d.below)], l)
		}
		if err := d.Cache.keep(d.key, d.below, l, o.Made); err != nil {
			d.Log.Warn("a step's result from elsewhere is not kept", "error", err)
		}
		return layers, o.Made, true
	}
	return nil, time.Time{}, false
}

// came notes what a step came to, for those to whom the cache is exported.
func (d *doing) came(layers []image.Layer, made time.Time) {
	d.told.Lock()
	defer d.told.Unlock()
	d.outcomes = append(d.outcomes, Outcome{d.key.hash(), layers, made})
}

// Outcomes are what the build's steps came to; of the image's own layers only, unless all is set.
func (r *Result) Outcomes(all bool) (list []Outcome) {
	own := image.Chains(r.built)
	for _, o := range r.outcomes {
		if c := chain(o.Layers); all || c == "" || slices.Contains(own, c) {
			list = append(list, o)
		}
	}
	return list
}
