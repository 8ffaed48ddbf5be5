package userns

import (
	"sync"

	"berth/container"
	"berth/fault"
)

// Ranges hands out the ids of new containers.
type Ranges struct {
	Remap container.IDs // of containers that ask for nothing else; zero: the host's
	dir   string        // of the host's tables

	mu    sync.Mutex
	drawn map[string]container.IDs // by the ids of containers that are being made, whose records nobody sees yet
}

// Open reads the daemon's --userns-remap, by the tables in dir, which is /etc.
func Open(remap, dir string) (*Ranges, error) {
	r := &Ranges{dir: dir, drawn: map[string]container.IDs{}}
	if remap == "" {
		return r, nil
	}
	files, err := ReadFiles(dir)
	if err == nil && remap == "default" {
		files, err = Reserve(files, RemapUser)
	}
	if err == nil {
		r.Remap, err = Remap(remap, files)
	}
	return r, err
}

// Claim sets the ids of a new container: those of the containers whose namespaces it joins, or what its
// --userns says. taken lists what containers have; no one is made meanwhile. Settle follows.
func (r *Ranges) Claim(rec *container.Record, joined []*container.Record, taken func() []container.IDs) error {
	mode, err := Parse(string(rec.HostConfig.UsernsMode))
	if err != nil || mode.Host || !mode.Auto && r.Remap.IsZero() {
		return err
	}
	var names []string
	var ids []container.IDs
	for _, j := range joined {
		if j.IDs.IsZero() {
			return fault.New(fault.Invalid, "container %s is in the host's user namespace: its namespaces can be joined with --userns host only", j.Name)
		}
		names, ids = append(names, j.Name), append(ids, j.IDs)
	}
	if rec.IDs, err = Shared(names, ids); err != nil || len(ids) > 0 {
		return err
	}
	if !mode.Auto {
		rec.IDs = r.Remap
		return nil
	}
	files, err := ReadFiles(r.dir)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	all := append(taken(), r.Remap)
	for _, d := range r.drawn {
		all = append(all, d)
	}
	if rec.IDs, err = Allocate(Pool(files), mode.Size, all); err == nil {
		r.drawn[rec.ID] = rec.IDs
	}
	return err
}

// Settle is called when the container's record can be seen, or never will be.
func (r *Ranges) Settle(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.drawn, id)
}
