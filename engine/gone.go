package engine

import "sync"

// keptCodes is how many containers that removed themselves can still be waited for.
const keptCodes = 256

// gone remembers the exit codes of containers that removed themselves. Clients that start a container of --rm
// and wait for it afterwards (dockerode does) come too late when it is quick: slower engines hide that.
type gone struct {
	mu    sync.Mutex
	codes map[string]int // by ID
	order []string       // the oldest first
}

func (g *gone) put(id string, code int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.codes == nil {
		g.codes = map[string]int{}
	}
	if len(g.order) == keptCodes {
		delete(g.codes, g.order[0])
		g.order = append(g.order[:0], g.order[1:]...)
	}
	g.codes[id], g.order = code, append(g.order, id)
}

// get takes a whole ID only: a name may belong to another container by now.
func (g *gone) get(id string) (code int, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	code, ok = g.codes[id]
	return code, ok
}
