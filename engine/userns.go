package engine

import (
	"fmt"
	"sync"

	"berth/container"
	"berth/engine/userns"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// idRanges hands out the ids that containers in user namespaces have.
type idRanges struct {
	remap container.IDs // of containers that ask for nothing else; zero: the host's

	mu    sync.Mutex
	drawn map[string]container.IDs // by the ids of containers that are being made, whose records nobody sees yet
}

// systemFiles is where the host's tables of users and their ids are.
const systemFiles = "/etc"

// openIDs reads --userns-remap.
func openIDs(remap string) (*idRanges, error) {
	r := &idRanges{drawn: map[string]container.IDs{}}
	if remap == "" {
		return r, nil
	}
	files, err := userns.ReadFiles(systemFiles)
	if err == nil && remap == "default" {
		files, err = userns.Reserve(files, userns.RemapUser)
	}
	if err == nil {
		r.remap, err = userns.Remap(remap, files)
	}
	return r, err
}

// settle is called when the record can be seen, or never will be.
func (r *idRanges) settle(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.drawn, id)
}

// claimIDs decides the ids of a new container; settle follows.
func (c *maker) claimIDs(rec *container.Record) error {
	mode, err := userns.Parse(string(rec.HostConfig.UsernsMode))
	if err != nil || mode.Host || !mode.Auto && c.ids.remap.IsZero() {
		return err
	}
	others, err := c.joins(rec)
	if err != nil {
		return err
	}
	var names []string
	var ids []container.IDs
	for _, o := range others {
		r := o.record()
		if r.IDs.IsZero() {
			return invalid("container %s is in the host's user namespace: its namespaces can be joined with --userns host only", r.Name)
		}
		names, ids = append(names, r.Name), append(ids, r.IDs)
	}
	if rec.IDs, err = userns.Shared(names, ids); err != nil || len(ids) > 0 {
		return err
	}
	if !mode.Auto {
		rec.IDs = c.ids.remap
		return nil
	}
	files, err := userns.ReadFiles(systemFiles)
	if err != nil {
		return err
	}
	c.ids.mu.Lock()
	defer c.ids.mu.Unlock()
	taken := []container.IDs{c.ids.remap}
	for _, i := range c.index.All() {
		taken = append(taken, i.record().IDs)
	}
	for _, d := range c.ids.drawn {
		taken = append(taken, d)
	}
	if rec.IDs, err = userns.Allocate(userns.Pool(files), mode.Size, taken); err == nil {
		c.ids.drawn[rec.ID] = rec.IDs
	}
	return err
}

// joins lists the containers whose namespaces one joins.
func (c *shared) joins(r *container.Record) (others []*instance, err error) {
	h := r.HostConfig
	var refs []string
	if h.NetworkMode.IsContainer() {
		refs = append(refs, h.NetworkMode.ConnectedContainer())
	}
	if h.IpcMode.IsContainer() {
		refs = append(refs, h.IpcMode.Container())
	}
	if h.PidMode.IsContainer() {
		refs = append(refs, h.PidMode.Container())
	}
	for _, ref := range refs {
		other, err := c.index.Get(ref)
		if err != nil {
			return nil, err
		}
		others = append(others, other)
	}
	return others, nil
}

// joinUserns makes a container that shares namespaces with others share their user namespace, without which it had no
// rights in them.
func (c *starter) joinUserns(r *container.Record, join map[specs.LinuxNamespaceType]string) error {
	if r.IDs.IsZero() {
		return nil
	}
	others, err := c.joins(r)
	if err != nil || len(others) == 0 {
		return err
	}
	pid, err := c.pidOf(others[0].id, "user")
	if err != nil {
		return err
	}
	join[specs.UserNamespace] = fmt.Sprintf("/proc/%d/ns/user", pid)
	return nil
}
