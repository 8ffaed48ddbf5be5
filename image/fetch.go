package image

import (
	"context"
	"fmt"
	"slices"
)

// Fetch brings a layer from src and unpacks it over those of below, which are here; what is here already is not brought again. The content is
// compared with both of the layer's digests.
func (d *Draft) Fetch(ctx context.Context, src Source, below []Layer, l Layer) error {
	all := append(slices.Clone(below), l)
	switch d.Hold(all) {
	case len(all):
		return nil
	case len(below):
	default:
		return fmt.Errorf("layer %s: what is below it is not here", l.Desc.Digest)
	}
	if err := checkDescriptor(l.Desc); err != nil {
		return err
	}
	ids := Chains(all)
	j := &job{desc: l.Desc, diffID: l.DiffID, chain: ids[len(below)], done: make(chan struct{}), budget: d.c.s.Limits.budget()}
	if len(below) > 0 {
		j.below = &job{chain: ids[len(below)-1], done: make(chan struct{})}
		close(j.below.done)
	}
	return d.c.s.place(ctx, src, j, func(Event) {})
}
