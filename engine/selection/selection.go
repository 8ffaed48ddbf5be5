// Package selection reads the filters by which containers are listed.
//
// It knows records and asks for the rest. Invariant: a container fits or not by its record as it stands; nothing is waited for.
package selection

import (
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/container"
	"berth/engine/journal"
	"berth/engine/networks"
	"berth/engine/view"
	"berth/fault"
	"berth/image"
	"berth/network"

	api "github.com/moby/moby/api/types/container"
	wire "github.com/moby/moby/api/types/network"
	"github.com/opencontainers/go-digest"
)

// World is what filters ask about beside records.
type World struct {
	Created   func(ref string) (time.Time, error) // of a container
	Image     func(ref string) (*image.Image, error)
	NetworkID func(name string) string
	Ports     func(*container.Record) *network.Attachment
}

// selection is filters, ready to be asked.
type selection struct {
	World
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

// Read reads the filters, and gives the test of a container. Without all, one that does not run fits only when a filter asks for its state.
// fault.Invalid for what ps does not know.
func Read(f journal.Filters, all bool, w World) (fits func(*container.Record) bool, err error) {
	s := &selection{World: w}
	for key, values := range f {
		if len(values) == 0 {
			continue
		}
		switch key {
		case "status", "exited", "before", "since", "health":
			all = all || key == "status" || key == "exited"
			err = s.state(key, values)
		case "publish", "expose", "network", "volume":
			err = s.place(key, values)
		default:
			err = s.name(key, values)
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
	return s.fits, nil
}

func (s *selection) state(key string, values []string) error {
	switch key {
	case "status":
		for _, v := range values {
			if err := api.ValidateContainerState(api.ContainerState(v)); err != nil {
				return fault.New(fault.Invalid, "invalid filter 'status=%s'", v)
			}
		}
		s.any(values, func(r *container.Record, v string) bool { return string(r.State.Status) == v })
	case "exited":
		for _, v := range values {
			if _, err := strconv.Atoi(v); err != nil {
				return fault.New(fault.Invalid, "invalid filter 'exited=%s'", v)
			}
		}
		s.any(values, func(r *container.Record, v string) bool {
			return strconv.Itoa(r.State.ExitCode) == v && r.State.Status == container.Exited
		})
	case "health":
		for _, v := range values {
			if err := api.ValidateHealthStatus(api.HealthStatus(v)); err != nil {
				return fault.New(fault.Invalid, "invalid filter 'health=%s'", v)
			}
		}
		s.any(values, func(r *container.Record, v string) bool { return v == string(r.Health()) })
	default: // before, since
		for _, ref := range values {
			bound, err := s.Created(ref)
			if err != nil {
				return fault.Wrap(fault.Invalid, err)
			}
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

func (s *selection) name(key string, values []string) error {
	switch key {
	case "id":
		s.any(values, func(r *container.Record, v string) bool { return strings.HasPrefix(r.ID, v) })
	case "name":
		patterns := make([]*regexp.Regexp, len(values))
		for k, v := range values {
			p, err := regexp.Compile(v)
			if err != nil {
				return fault.New(fault.Invalid, "invalid filter 'name=%s'", v)
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
		s.tests = append(s.tests, s.descends(values))
	case "isolation", "is-task": // of other systems
		s.any(values, func(_ *container.Record, v string) bool { return v == "default" || v == "" || v == "false" })
	default:
		return fault.New(fault.Invalid, "invalid filter '%s'", key)
	}
	return nil
}

// descends is the test for containers whose image is one of refs, or was built upon one: it begins with the same layers.
func (s *selection) descends(refs []string) func(*container.Record) bool {
	var bases []*image.Image
	for _, v := range refs {
		if img, err := s.Image(v); err == nil {
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
		if img, err := s.Image(r.Image.String()); err == nil {
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

func (s *selection) place(key string, values []string) error {
	switch key {
	case "network":
		s.any(values, func(r *container.Record, v string) bool {
			for name := range networks.Wishes(r) {
				if name == v || v != "" && strings.HasPrefix(s.NetworkID(name), v) {
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
				return fault.New(fault.Invalid, "invalid filter '%s=%s': %w", key, v, err)
			}
			ranges[k] = p
		}
		s.tests = append(s.tests, func(r *container.Record) bool {
			return view.HasPort(r.Config, s.Ports(r), key == "publish", ranges)
		})
	}
	return nil
}
