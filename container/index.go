package container

import (
	"slices"
	"strings"
	"sync"

	"berth/fault"
)

// Index finds values by ID, unique ID prefix or name. It is safe for concurrent use
// and holds no value that is not complete: reserve a name first, add the value later.
type Index[V any] struct {
	mu     sync.RWMutex
	byID   map[string]V
	sorted []string // IDs
	byName map[string]string
}

// NewIndex returns an empty index.
func NewIndex[V any]() *Index[V] {
	return &Index[V]{byID: map[string]V{}, byName: map[string]string{}}
}

// Reserve takes name for id. fault.Conflict, in the words that tools know, when it is taken.
func (x *Index[V]) Reserve(name, id string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if holder, ok := x.byName[name]; ok {
		return NameTaken(name, holder)
	}
	x.byName[name] = id
	return nil
}

// ReserveRandom takes a free random name for id.
func (x *Index[V]) ReserveRandom(id string) string {
	x.mu.Lock()
	defer x.mu.Unlock()
	name := RandomName()
	for base, n := name, 0; ; n++ {
		if _, taken := x.byName[name]; !taken {
			break
		}
		if name = RandomName(); n > 8 { // crowded: make it unique by the ID's digits
			name = base + "_" + id[:min(len(id), 8+n)]
		}
	}
	x.byName[name] = id
	return name
}

// Release gives a name back if id holds it.
func (x *Index[V]) Release(name, id string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.byName[name] == id {
		delete(x.byName, name)
	}
}

// Reserved tells whether id is here or has a name already: it is being made.
func (x *Index[V]) Reserved(id string) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if _, ok := x.byID[id]; ok {
		return true
	}
	for _, holder := range x.byName {
		if holder == id {
			return true
		}
	}
	return false
}

// Add makes v visible under id.
func (x *Index[V]) Add(id string, v V) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, ok := x.byID[id]; !ok {
		i, _ := slices.BinarySearch(x.sorted, id)
		x.sorted = slices.Insert(x.sorted, i, id)
	}
	x.byID[id] = v
}

// Remove takes id and its name out.
func (x *Index[V]) Remove(id, name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if i, ok := slices.BinarySearch(x.sorted, id); ok {
		x.sorted = slices.Delete(x.sorted, i, i+1)
	}
	delete(x.byID, id)
	if x.byName[name] == id {
		delete(x.byName, name)
	}
}

// Get finds by full ID, by name (with or without its slash), or by unique ID prefix, in this order.
// fault.NotFound "No such container: x"; fault.Invalid when a prefix fits several.
func (x *Index[V]) Get(ref string) (V, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var none V
	if v, ok := x.byID[ref]; ok {
		return v, nil
	}
	if id, ok := x.byName[strings.TrimPrefix(ref, "/")]; ok {
		if v, ok := x.byID[id]; ok { // a reserved name has no value yet
			return v, nil
		}
	}
	i, _ := slices.BinarySearch(x.sorted, ref)
	if ref == "" || i == len(x.sorted) || !strings.HasPrefix(x.sorted[i], ref) {
		return none, fault.New(fault.NotFound, "No such container: %s", ref)
	}
	if i+1 < len(x.sorted) && strings.HasPrefix(x.sorted[i+1], ref) {
		return none, fault.New(fault.Invalid, "Multiple IDs found with provided prefix: %s", ref)
	}
	return x.byID[x.sorted[i]], nil
}

// All returns the values in the order of their IDs.
func (x *Index[V]) All() []V {
	x.mu.RLock()
	defer x.mu.RUnlock()
	all := make([]V, 0, len(x.sorted))
	for _, id := range x.sorted {
		all = append(all, x.byID[id])
	}
	return all
}
