package engine

import (
	"context"
	"fmt"
	"slices"
	"time"

	"berth/container"
	"berth/engine/link"
	"berth/engine/mounts"
	"berth/engine/selection"
	"berth/engine/view"

	"github.com/docker/go-units"
	api "github.com/moby/moby/api/types/container"
)

// List describes those that fit, newest first. It reads snapshots and waits for nothing, unless sizes are wanted.
func (c *views) List(_ context.Context, r ListRequest) ([]api.Summary, error) {
	fits, err := selection.Read(r.Filters, r.All || r.Limit > 0, selection.World{
		Created:   c.createdAt,
		Image:     c.images.Store.Get,
		NetworkID: c.nets.ID,
		Ports:     attachmentOf,
	})
	if err != nil {
		return nil, err
	}
	records := make([]*container.Record, 0, 16)
	for _, i := range c.index.All() {
		if rec := i.record(); fits(rec) {
			records = append(records, rec)
		}
	}
	slices.SortFunc(records, func(a, b *container.Record) int { return b.Created.Compare(a.Created) })
	if r.Limit > 0 && len(records) > r.Limit {
		records = records[:r.Limit]
	}
	all := make([]api.Summary, 0, len(records))
	now := time.Now()
	names, aliases := c.images.Names(), c.aliases()
	for _, rec := range records {
		sum := c.summary(rec, now, names)
		sum.Names = append(sum.Names, aliases[rec.ID]...)
		if r.Size {
			sum.SizeRw, sum.SizeRootFs = c.sizes(rec)
		}
		all = append(all, sum)
	}
	return all, nil
}

// aliases are the names that containers have by the links of others, by ID: /linking/alias.
func (c *views) aliases() map[string][]string {
	all := map[string][]string{}
	for _, i := range c.index.All() {
		r := i.record()
		for _, s := range r.HostConfig.Links {
			if l, err := link.Parse(s); err == nil {
				all[l.Container] = append(all[l.Container], "/"+r.Name+"/"+l.Alias)
			}
		}
	}
	for _, names := range all {
		slices.Sort(names)
	}
	return all
}

func (c *views) summary(r *container.Record, now time.Time, names map[string]string) api.Summary {
	held := attachmentOf(r)
	s := api.Summary{
		ID: r.ID, Names: []string{"/" + r.Name}, Image: r.ImageName, ImageID: r.Image.String(), Command: r.CommandLine(), Created: r.Created.Unix(),
		Ports: view.PortList(r.Config, held), Labels: r.Config.Labels, State: api.ContainerState(r.State.Status), Status: statusText(r.State, now),
		NetworkSettings: &api.NetworkSettingsSummary{Networks: c.nets.Shown(r, held)}, Mounts: mounts.Points(c.volumes.Store, r),
		Health: &api.HealthSummary{Status: r.Health()}, ImageManifestDescriptor: r.Manifest,
	}
	if r.State.Health != nil {
		s.Health.FailingStreak = r.State.Health.FailingStreak
	}
	if s.Labels == nil {
		s.Labels = map[string]string{}
	}
	// A name that means another image by now, or none, would mislead.
	id, known := names[r.ImageName]
	if !known {
		id, _ = c.images.ID(r.ImageName)
		names[r.ImageName] = id
	}
	if id != r.Image.String() {
		s.Image = r.Image.String()
	}
	s.HostConfig.NetworkMode = string(r.HostConfig.NetworkMode)
	s.HostConfig.Annotations = r.HostConfig.Annotations
	return s
}

// statusText is the phrase of ps, such as "Up 5 minutes" or "Exited (0) 2 hours ago".
func statusText(s container.State, now time.Time) string {
	since := func(t time.Time) string { return units.HumanDuration(now.Sub(t)) }
	switch s.Status {
	case container.Running:
		return "Up " + since(s.StartedAt) + healthText(s.Health)
	case container.Paused:
		return "Up " + since(s.StartedAt) + " (Paused)"
	case container.Restarting:
		return fmt.Sprintf("Restarting (%d) %s ago", s.ExitCode, since(s.FinishedAt))
	case container.Exited:
		return fmt.Sprintf("Exited (%d) %s ago", s.ExitCode, since(s.FinishedAt))
	case container.Removing:
		return "Removal In Progress"
	case container.Dead:
		return "Dead"
	}
	return "Created"
}

// createdAt is when a container was made.
func (c *views) createdAt(ref string) (time.Time, error) {
	i, err := c.index.Get(ref)
	if err != nil {
		return time.Time{}, err
	}
	return i.record().Created, nil
}
