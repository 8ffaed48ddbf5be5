package engine

import (
	"berth/engine/mounts"
	"berth/engine/networks"
	"context"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/container"
	"berth/engine/journal"
	"berth/engine/link"
	"berth/engine/view"
	"berth/fault"
	"berth/image"

	"github.com/docker/go-units"
	api "github.com/moby/moby/api/types/container"
	wire "github.com/moby/moby/api/types/network"
	"github.com/opencontainers/go-digest"
)

// List describes those that fit, newest first. It reads snapshots and waits for nothing, unless sizes are wanted.
func (c *views) List(_ context.Context, r ListRequest) ([]api.Summary, error) {
	s, err := c.selection(r)
	if err != nil {
		return nil, err
	}
	records := make([]*container.Record, 0, 16)
	for _, i := range c.index.All() {
		if rec := i.record(); s.fits(rec) {
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
		Health: &api.HealthSummary{Status: healthOf(r)}, ImageManifestDescriptor: r.Manifest,
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

// selection is ps's filters, ready to be asked.
type selection struct {
	tests []func(*container.Record) bool
}

func (s *selection) fits(r *container.Record) bool {
	for _, t := range s.tests {
		if !t(r) {
			return false
		}
	}
	return true
}

// any adds a test that one of the values must pass.
func (s *selection) any(values []string, test func(r *container.Record, value string) bool) {
	s.tests = append(s.tests, func(r *container.Record) bool {
		return slices.ContainsFunc(values, func(v string) bool { return test(r, v) })
	})
}

// selection reads the filters. fault.Invalid for what ps does not know.
func (c *views) selection(r ListRequest) (*selection, error) {
	s := &selection{}
	all := r.All || r.Limit > 0
	for key, values := range r.Filters {
		if len(values) == 0 {
			continue
		}
		var err error
		switch key {
		case "status", "exited", "before", "since", "health":
			all = all || key == "status" || key == "exited"
			err = c.selectState(s, key, values)
		case "publish", "expose", "network", "volume":
			err = c.selectPlace(s, key, values)
		default:
			err = c.selectName(s, key, values)
		}
		if err != nil {
			return nil, err
		}
	}
	if !all {
		s.tests = append(s.tests, func(r *container.Record) bool {
			return r.State.Status.Alive() || r.State.Status == container.Restarting
		})
	}
	return s, nil
}

func (c *views) selectState(s *selection, key string, values []string) error {
	switch key {
	case "status":
		for _, v := range values {
			if err := api.ValidateContainerState(api.ContainerState(v)); err != nil {
				return invalid("invalid filter 'status=%s'", v)
			}
		}
		s.any(values, func(r *container.Record, v string) bool { return string(r.State.Status) == v })
	case "exited":
		for _, v := range values {
			if _, err := strconv.Atoi(v); err != nil {
				return invalid("invalid filter 'exited=%s'", v)
			}
		}
		s.any(values, func(r *container.Record, v string) bool {
			return strconv.Itoa(r.State.ExitCode) == v && r.State.Status == container.Exited
		})
	case "health":
		for _, v := range values {
			if err := api.ValidateHealthStatus(api.HealthStatus(v)); err != nil {
				return invalid("invalid filter 'health=%s'", v)
			}
		}
		s.any(values, func(r *container.Record, v string) bool { return v == string(healthOf(r)) })
	default: // before, since
		for _, ref := range values {
			i, err := c.index.Get(ref)
			if err != nil {
				return fault.Wrap(fault.Invalid, err)
			}
			bound := i.record().Created
			s.tests = append(s.tests, func(r *container.Record) bool {
				if key == "before" {
					return r.Created.Before(bound)
				}
				return r.Created.After(bound)
			})
		}
	}
	return nil
}

func (c *views) selectName(s *selection, key string, values []string) error {
	switch key {
	case "id":
		s.any(values, func(r *container.Record, v string) bool { return strings.HasPrefix(r.ID, v) })
	case "name":
		patterns := make([]*regexp.Regexp, len(values))
		for k, v := range values {
			p, err := regexp.Compile(v)
			if err != nil {
				return invalid("invalid filter 'name=%s'", v)
			}
			patterns[k] = p
		}
		s.tests = append(s.tests, func(r *container.Record) bool {
			return slices.ContainsFunc(patterns, func(p *regexp.Regexp) bool { return p.MatchString(r.Name) || p.MatchString("/"+r.Name) })
		})
	case "label", "annotation":
		s.tests = append(s.tests, func(r *container.Record) bool {
			have := r.Config.Labels
			if key == "annotation" {
				have = r.HostConfig.Annotations
			}
			return !slices.ContainsFunc(values, func(v string) bool { return !journal.HasLabel(have, v) })
		})
	case "ancestor":
		s.tests = append(s.tests, c.descends(values))
	case "isolation", "is-task": // of other systems
		s.any(values, func(_ *container.Record, v string) bool { return v == "default" || v == "" || v == "false" })
	default:
		return invalid("invalid filter '%s'", key)
	}
	return nil
}

// descends is the test for containers whose image is one of refs, or was built upon one: it begins with the same layers.
func (c *views) descends(refs []string) func(*container.Record) bool {
	var bases []*image.Image
	for _, v := range refs {
		if img, err := c.images.Store.Get(v); err == nil {
			bases = append(bases, img)
		}
	}
	known := map[digest.Digest]bool{}
	return func(r *container.Record) bool {
		fits, seen := known[r.Image]
		if seen || len(bases) == 0 {
			return fits
		}
		var layers []digest.Digest
		if img, err := c.images.Store.Get(r.Image.String()); err == nil {
			layers = img.DiffIDs
		}
		fits = slices.ContainsFunc(bases, func(b *image.Image) bool {
			n := len(b.DiffIDs)
			return b.ID == r.Image || n > 0 && len(layers) > n && slices.Equal(layers[:n], b.DiffIDs)
		})
		known[r.Image] = fits
		return fits
	}
}

func (c *views) selectPlace(s *selection, key string, values []string) error {
	switch key {
	case "network":
		s.any(values, func(r *container.Record, v string) bool {
			for name := range networks.Wishes(r) {
				if name == v || v != "" && strings.HasPrefix(c.nets.ID(name), v) {
					return true
				}
			}
			return string(r.HostConfig.NetworkMode) == v
		})
	case "volume":
		s.any(values, func(r *container.Record, v string) bool {
			return slices.ContainsFunc(r.Mounts, func(m container.Mount) bool {
				return m.Name == v || m.Source == v || m.Destination == path.Clean(v)
			})
		})
	default: // publish, expose
		ranges := make([]wire.PortRange, len(values))
		for k, v := range values {
			p, err := wire.ParsePortRange(v)
			if err != nil {
				return invalid("invalid filter '%s=%s': %w", key, v, err)
			}
			ranges[k] = p
		}
		s.tests = append(s.tests, func(r *container.Record) bool {
			return view.HasPort(r.Config, attachmentOf(r), key == "publish", ranges)
		})
	}
	return nil
}
