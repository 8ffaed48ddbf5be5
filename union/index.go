package union

import (
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"

	"berth/fault"
)

// index is what memory keeps of the layers and roots on disk, and who uses what.
type index struct {
	mu     sync.Mutex
	layers map[digest.Digest]*layer
	roots  map[string]*rootState
}

// layer is what memory keeps of a committed layer.
type layer struct {
	Layer
	depth    int
	children int
	roots    int
}

// rootState is what memory keeps of a root.
type rootState struct {
	chain digest.Digest
	ready bool // whole on disk
}

// has tells whether a layer is here.
func (x *index) has(chain digest.Digest) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.layers[chain] != nil
}

// list gives all layers, parents first.
func (x *index) list() []Layer {
	x.mu.Lock()
	defer x.mu.Unlock()
	var all []*layer
	for _, l := range x.layers {
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b *layer) int {
		if a.depth != b.depth {
			return a.depth - b.depth
		}
		return strings.Compare(string(a.Chain), string(b.Chain))
	})
	list := make([]Layer, len(all))
	for i, l := range all {
		list[i] = l.Layer
	}
	return list
}

// hold keeps a chain from being removed; release ends it.
func (x *index) hold(chain digest.Digest) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if chain == "" {
		return nil
	}
	l := x.layers[chain]
	if l == nil {
		return fault.New(fault.NotFound, "layer %s: not found", chain)
	}
	l.roots++
	return nil
}

func (x *index) release(chain digest.Digest) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if l := x.layers[chain]; l != nil {
		l.roots--
	}
}

// reserve takes the id and keeps the chain from being removed.
func (x *index) reserve(id string, chain digest.Digest) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.roots[id] != nil {
		return fault.New(fault.Exists, "the id is taken")
	}
	l := x.layers[chain]
	if chain != "" && l == nil {
		return fault.New(fault.NotFound, "layer %s: not found", chain)
	}
	x.roots[id] = &rootState{chain: chain}
	if l != nil {
		l.roots++
	}
	return nil
}

// removable gives a layer that nobody uses. The caller holds mu.
func (x *index) removable(chain digest.Digest) (*layer, error) {
	l := x.layers[chain]
	switch {
	case l == nil:
		return nil, fault.New(fault.NotFound, "layer %s: not found", chain)
	case l.children > 0:
		return nil, fault.New(fault.Conflict, "layer %s has %d layers on top of it", chain, l.children)
	case l.roots > 0:
		return nil, fault.New(fault.Conflict, "layer %s is used by %d containers", chain, l.roots)
	}
	return l, nil
}

// forget takes a layer out of the index. The caller holds mu.
func (x *index) forget(l *layer) {
	delete(x.layers, l.Chain)
	if p := x.layers[l.Parent]; p != nil {
		p.children--
	}
}

// add puts a layer into the index. The caller holds mu.
func (x *index) add(l Layer) {
	n := &layer{Layer: l}
	if p := x.layers[l.Parent]; p != nil {
		p.children++
		n.depth = p.depth + 1
	}
	x.layers[l.Chain] = n
}

// forgetRoot takes a root out of the index. The caller holds mu.
func (x *index) forgetRoot(id string) {
	if st := x.roots[id]; st != nil {
		if l := x.layers[st.chain]; l != nil {
			l.roots--
		}
		delete(x.roots, id)
	}
}

// chain lists a chain's layers, top first.
func (x *index) chain(top digest.Digest) (chain []digest.Digest) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for l := x.layers[top]; l != nil; l = x.layers[l.Parent] {
		chain = append(chain, l.Chain)
	}
	return chain
}

// ancestor goes n layers down.
func (x *index) ancestor(chain digest.Digest, n int) digest.Digest {
	x.mu.Lock()
	defer x.mu.Unlock()
	for range n {
		chain = x.layers[chain].Parent
	}
	return chain
}

// ids gives all whole roots.
func (x *index) ids() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	ids := make([]string, 0, len(x.roots))
	for id, st := range x.roots {
		if st.ready {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}
