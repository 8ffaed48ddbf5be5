package layers

import (
	"cmp"
	"context"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/image"
	"berth/union"
)

// MaxTop is how many of the largest and the most wasteful paths a report has at most.
const MaxTop = 1000

// Report weighs the layers of an image; top is how many paths of each list it names.
func (e *Explorer) Report(ctx context.Context, ref string, platform *ocispec.Platform, top int) (_ *Report, err error) {
	o, err := e.open(ref, platform)
	if err != nil {
		return nil, err
	}
	defer o.end(&err)
	s := newScale(o.stack.Len(), min(max(top, 0), MaxTop))
	w := &walk{ctx: ctx, from: o.stack, within: "."}
	if err := w.run(o.stack.Len(), func(n node) error { s.weigh(n); return nil }); err != nil {
		return nil, err
	}
	r := s.report()
	r.ID, r.Platform = o.ID.String(), o.Platform()
	describe(r, o.Image)
	for i := range r.Layers {
		r.Layers[i].Chain = o.stack.Chain(i)
	}
	return r, nil
}

// describe fills in what the manifest and the config say of the layers.
func describe(r *Report, img *image.Image) {
	for i := range r.Layers {
		l := &r.Layers[i]
		l.Digest, l.MediaType, l.Size, l.DiffID = img.Layers[i].Digest, img.Layers[i].MediaType, img.Layers[i].Size, img.DiffIDs[i]
		r.Size += l.Size
	}
	next := 0
	for _, h := range img.Config.History {
		if h.EmptyLayer || next == len(r.Layers) {
			continue
		}
		l := &r.Layers[next]
		l.CreatedBy, l.Comment, l.Created = h.CreatedBy, h.Comment, h.Created
		next++
	}
}

// scale weighs the nodes of a walk, which come parents first.
type scale struct {
	layers            []Layer
	shown             Sum
	least, all        int64
	seen              []map[uint64]bool // by layer, the files with several names
	largest, wasteful heaviest
	gone              []*pit // directories on the way to the latest node that some layer removes
}

// pit is a directory that layers remove, with what it takes along.
type pit struct {
	Weight
	dir    string
	layers []int
}

func newScale(layers, top int) *scale {
	return &scale{layers: make([]Layer, layers), seen: make([]map[uint64]bool, layers), largest: heaviest{top: top}, wasteful: heaviest{top: top}}
}

// bytes gives what an entry adds to its layer: nothing when it is a further name of a file.
func (s *scale) bytes(layer int, e *union.Entry) int64 {
	if e.Links > 1 && e.IsRegular() {
		if s.seen[layer] == nil {
			s.seen[layer] = map[uint64]bool{}
		}
		if s.seen[layer][e.Inode] {
			return 0
		}
		s.seen[layer][e.Inode] = true
	}
	return e.Size
}

func (s *scale) weigh(n node) {
	s.leave(n.path)
	var now *union.Entry
	var size, sum, hidden int64
	least := int64(-1)
	own := &pit{Weight: Weight{Path: "/" + n.path}, dir: n.path}
	for _, st := range n.steps {
		l := &s.layers[st.layer]
		before, was := size, now
		size, now = 0, st.entry
		if now != nil {
			size = s.bytes(st.layer, now)
			l.Unpacked += size
		}
		sum += size
		if least < 0 || size < least {
			least = size
		}
		if was != nil && !was.IsDir() {
			s.layers[own.Layer].Hidden += before // own.Layer is that of the step before
			hidden += before
		}
		s.count(l, was, now, before, size)
		if was != nil && was.IsDir() && (now == nil || !now.IsDir()) && !st.with {
			own.layers = append(own.layers, st.layer)
		} else if was != nil && !was.IsDir() {
			s.blame(own, st, before)
		}
		own.Layer = st.layer
	}
	s.least, s.all = s.least+max(least, 0), s.all+sum
	if now != nil && !now.IsDir() {
		s.shown.add(size)
		s.largest.add(Weight{Path: own.Path, Bytes: size, Layer: own.Layer})
	}
	if len(own.layers) > 0 {
		s.gone = append(s.gone, own)
	} else if own.Bytes > 0 {
		s.wasteful.add(own.Weight)
	}
}

// count adds a step to the sums of its layer.
func (s *scale) count(l *Layer, was, now *union.Entry, before, size int64) {
	file := func(e *union.Entry) bool { return e != nil && !e.IsDir() }
	switch {
	case file(was) && file(now):
		l.Changed.add(size)
	case file(now):
		l.Added.add(size)
	case file(was):
		l.Removed.add(before)
	}
}

// blame adds hidden bytes to the path itself, or to the directory above it that went with all it had.
func (s *scale) blame(own *pit, st step, bytes int64) {
	at := own
	if st.with {
		for i := len(s.gone) - 1; i >= 0; i-- {
			if slices.Contains(s.gone[i].layers, st.layer) {
				at = s.gone[i]
				break
			}
		}
	}
	at.Bytes += bytes
	at.Times++
}

// leave closes the directories that p is not in.
func (s *scale) leave(p string) {
	for n := len(s.gone); n > 0 && !strings.HasPrefix(p, s.gone[n-1].dir+"/"); n-- {
		if g := s.gone[n-1]; g.Bytes > 0 {
			g.Layer = slices.Max(g.layers)
			s.wasteful.add(g.Weight)
		}
		s.gone = s.gone[:n-1]
	}
}

func (s *scale) report() *Report {
	s.leave("")
	r := &Report{Layers: s.layers, Shown: s.shown, Efficiency: 1, Largest: s.largest.sorted(), Wasteful: s.wasteful.sorted()}
	for _, l := range s.layers {
		r.Unpacked += l.Unpacked
		r.Hidden += l.Hidden
	}
	if s.all > 0 {
		r.Efficiency = float64(s.least) / float64(s.all)
	}
	return r
}

// heaviest keeps the top heaviest of all that is added.
type heaviest struct {
	top  int
	list []Weight
}

func (h *heaviest) add(w Weight) {
	if w.Bytes <= 0 || h.top == 0 {
		return
	}
	if h.list = append(h.list, w); len(h.list) >= 2*h.top {
		h.list = h.sorted()
	}
}

func (h *heaviest) sorted() []Weight {
	slices.SortFunc(h.list, func(a, b Weight) int { return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), strings.Compare(a.Path, b.Path)) })
	if h.list = h.list[:min(len(h.list), h.top)]; h.list == nil {
		h.list = []Weight{}
	}
	return h.list
}
