package engine

import (
	"context"
	"errors"
	"strings"

	"berth/container"
	"berth/fault"
)

// referVolume makes the containers that have the volume from have to instead. With to "" it only asks: fault.Conflict when one of them runs.
func (c *shared) referVolume(from, to string) (err error) {
	for _, i := range c.index.All() {
		err = errors.Join(err, c.referTo(i, from, to))
	}
	return err
}

func (c *shared) referTo(i *instance, from, to string) error {
	i.op.Lock() // who starts it just now is waited for
	defer i.op.Unlock()
	r := i.record().Clone()
	has := false
	for k := range r.Mounts {
		if m := &r.Mounts[k]; m.Name == from {
			m.Name, has = to, true
		}
	}
	switch {
	case !has || r.State.Status == container.Removing:
		return nil
	case r.State.Status.Alive() && to == "":
		return fault.New(fault.Conflict, "rename %s: volume is in use by running containers - [%s]; stop them first (%s)", from, r.ID, r.Name)
	case to == "":
		return nil
	}
	host := *r.HostConfig
	host.Binds, host.Mounts = append([]string(nil), host.Binds...), append(host.Mounts[:0:0], host.Mounts...)
	for k, b := range host.Binds {
		if rest, is := strings.CutPrefix(b, from+":"); is {
			host.Binds[k] = to + ":" + rest
		}
	}
	for k := range host.Mounts {
		if host.Mounts[k].Source == from {
			host.Mounts[k].Source = to
		}
	}
	r.HostConfig = &host
	if err := c.store.Save(r); err != nil {
		return err
	}
	i.snap.Store(r)
	return nil
}

// freezeAll pauses containers by ID; resume lets those run on that ran.
func (c *insides) freezeAll(ctx context.Context, ids []string) (resume func(), err error) {
	var thaws []func()
	resume = func() {
		for _, thaw := range thaws {
			thaw()
		}
	}
	for _, id := range ids {
		i, err := c.index.Get(id)
		if err != nil {
			continue // it has just gone
		}
		thaw, err := c.freeze(ctx, i)
		if err != nil {
			resume()
			return nil, err
		}
		thaws = append(thaws, thaw)
	}
	return resume, nil
}
