package engine

import (
	"fmt"

	"berth/container"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// claimIDs decides the ids of a new container; c.ids.Settle follows.
func (c *maker) claimIDs(rec *container.Record) error {
	var joined []*container.Record
	for _, ref := range rec.Joins() {
		other, err := c.index.Get(ref)
		if err != nil {
			return err
		}
		joined = append(joined, other.record())
	}
	return c.ids.Claim(rec, joined, func() (taken []container.IDs) {
		for _, i := range c.index.All() {
			taken = append(taken, i.record().IDs)
		}
		return taken
	})
}

// joinUserns makes a container that shares namespaces with others share their user namespace, without which it had no
// rights in them.
func (c *starter) joinUserns(r *container.Record, join map[specs.LinuxNamespaceType]string) error {
	joined := r.Joins()
	if r.IDs.IsZero() || len(joined) == 0 {
		return nil
	}
	pid, err := c.pidOf(joined[0], "user")
	join[specs.UserNamespace] = fmt.Sprintf("/proc/%d/ns/user", pid)
	return err
}
