package layers

import (
	"cmp"
	"context"
	"path"
	"slices"
	"strings"

	"berth/fault"
	"berth/union"
)

// source is where the directories of layers are read; 0 is the deepest layer. A *union.Stack is one.
type source interface {
	ReadDir(ctx context.Context, layer int, dir string) (list []union.Entry, opaque bool, err error)
}

// step is what one layer does to a path.
type step struct {
	layer  int
	change Change
	entry  *union.Entry // nil when it is deleted
	with   bool         // deleted because a directory above it was
}

// node is a path and what the layers do to it, the deepest first. There is always a step before one that deletes.
type node struct {
	path  string // relative to the root
	steps []step
}

// event is what one layer does to a directory, as seen from its names.
type event struct {
	layer int
	clear bool // nothing from below shows any more
	dir   bool // the layer has the directory
}

// walk goes through the directories of all layers side by side, as they lie on each other.
type walk struct {
	ctx    context.Context
	from   source
	within string // "." for all
	visit  func(node) error
}

// inside makes a user's path relative to the root.
func inside(p string) string { return path.Clean("." + path.Clean("/"+p)) }

// run visits all paths of the first n layers: directories before what they have, names in order.
func (w *walk) run(n int, visit func(node) error) error {
	w.visit = visit
	events := make([]event, n)
	for i := range events {
		events[i] = event{layer: i, dir: true}
	}
	return w.dir(".", events)
}

// item is a name in the directory that an event has.
type item struct {
	entry *union.Entry
	at    int // of the event
}

func (w *walk) dir(dir string, events []event) error {
	if err := w.ctx.Err(); err != nil {
		return fault.Wrap(fault.Canceled, err)
	}
	var items []item
	var clears []int // the events that hide what was before them
	for i := range events {
		if events[i].dir {
			list, opaque, err := w.from.ReadDir(w.ctx, events[i].layer, dir)
			if err != nil {
				return err
			}
			events[i].clear = events[i].clear || opaque
			for k := range list {
				items = append(items, item{&list[k], i})
			}
		}
		if events[i].clear {
			clears = append(clears, i)
		}
	}
	slices.SortFunc(items, func(a, b item) int {
		return cmp.Or(strings.Compare(a.entry.Name, b.entry.Name), cmp.Compare(a.at, b.at))
	})
	for len(items) > 0 {
		n := 1
		for n < len(items) && items[n].entry.Name == items[0].entry.Name {
			n++
		}
		if err := w.name(dir, events, clears, items[:n]); err != nil {
			return err
		}
		items = items[n:]
	}
	return nil
}

// name goes through what the layers do to one name.
func (w *walk) name(dir string, events []event, clears []int, items []item) error {
	full := path.Join(dir, items[0].entry.Name)
	if !w.wanted(full) {
		return nil
	}
	h := history{events: events, clears: clears}
	for _, it := range items {
		h.take(it)
	}
	h.hide(len(events))
	if len(h.steps) > 0 && (w.within == "." || full == w.within || strings.HasPrefix(full, w.within+"/")) {
		if err := w.visit(node{full, h.steps}); err != nil {
			return err
		}
	}
	if slices.ContainsFunc(h.below, func(e event) bool { return e.dir }) {
		return w.dir(full, h.below)
	}
	return nil
}

// wanted tells whether p is on the way to what is looked for, or part of it.
func (w *walk) wanted(p string) bool {
	return w.within == "." || p == w.within || strings.HasPrefix(p, w.within+"/") || strings.HasPrefix(w.within, p+"/")
}

// history is one name's, as its layers are gone through.
type history struct {
	events []event // of the directory that the name is in
	clears []int
	steps  []step
	now    *union.Entry // nil: nothing is there
	last   int          // event after which now is what is there
	below  []event      // of the directory that the name is
}

// hide deletes what is there if an event before `until` hides it.
func (h *history) hide(until int) {
	if h.now == nil {
		return
	}
	at, _ := slices.BinarySearch(h.clears, h.last+1)
	if at == len(h.clears) || h.clears[at] >= until {
		return
	}
	e := h.events[h.clears[at]]
	h.drop(e.layer, !e.dir)
}

// drop deletes what is there.
func (h *history) drop(layer int, with bool) {
	h.steps = append(h.steps, step{layer: layer, change: Deleted, with: with})
	if h.now.IsDir() {
		h.below = append(h.below, event{layer: layer, clear: true})
	}
	h.now = nil
}

// take adds what one layer has of that name.
func (h *history) take(it item) {
	h.hide(it.at)
	e := h.events[it.at]
	if it.entry.Whiteout() {
		if h.now != nil {
			h.drop(e.layer, false)
		}
		return
	}
	change := Added
	switch {
	case h.now == nil:
	case h.now.IsDir() && it.entry.IsDir() && sameDir(h.now, it.entry):
		change = Kept
	default:
		change = Changed
	}
	switch {
	case it.entry.IsDir():
		h.below = append(h.below, event{layer: e.layer, dir: true, clear: e.clear})
	case h.now != nil && h.now.IsDir():
		h.below = append(h.below, event{layer: e.layer, clear: true})
	}
	h.steps = append(h.steps, step{layer: e.layer, change: change, entry: it.entry})
	h.now, h.last = it.entry, it.at
}

// sameDir compares directories without their times, which change with whatever is made in them.
func sameDir(a, b *union.Entry) bool { return a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID }
