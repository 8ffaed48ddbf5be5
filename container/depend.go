package container

import (
	"slices"
	"strings"

	"berth/fault"

	"github.com/moby/moby/api/types/container"
)

// Condition is what a container waits for with another one before it is started.
type Condition string

// The conditions.
const (
	InOrder Condition = "order"   // only that the other one, if it is to be started too, was tried before
	Started Condition = "started" // that it runs
	Ready   Condition = "healthy" // that it runs and its health check says so
)

// Need is one container that another is started after.
type Need struct {
	Ref   string // name or ID
	Until Condition
	Joins bool // it lives in that container's namespaces, and is cut off when that one is started again
	Told  bool // its user said so by --depends-on
}

// ParseDependency reads NAME, NAME:started or NAME:healthy. fault.Invalid for anything else.
func ParseDependency(s string) (Need, error) {
	name, condition, given := strings.Cut(s, ":")
	n := Need{Ref: strings.TrimPrefix(name, "/"), Until: Condition(condition), Told: true}
	if !given {
		n.Until = Started
	}
	if n.Ref == "" || n.Until != Started && n.Until != Ready {
		return n, fault.New(fault.Invalid, "dependency %q: write NAME, NAME:started or NAME:healthy", s)
	}
	return n, nil
}

// Needs lists what a container is started after: those whose namespaces it joins, those it depends on, is linked to, or has the volumes of.
func Needs(r *Record) []Need {
	var all []Need
	add := func(n Need) {
		if n.Ref != "" {
			all = append(all, n)
		}
	}
	h := r.HostConfig
	for _, joined := range []string{h.NetworkMode.ConnectedContainer(), h.IpcMode.Container(), h.PidMode.Container()} {
		add(Need{Ref: joined, Until: Started, Joins: true})
	}
	for _, s := range r.Settings.DependsOn {
		if n, err := ParseDependency(s); err == nil { // it was checked at creation
			add(n)
		}
	}
	for _, link := range h.Links {
		name, _, _ := strings.Cut(strings.TrimPrefix(link, "/"), ":")
		add(Need{Ref: name, Until: InOrder})
	}
	for _, from := range h.VolumesFrom {
		name, _, _ := strings.Cut(from, ":")
		add(Need{Ref: name, Until: InOrder})
	}
	return all
}

// Meets tells how a container stands to a need of another one: that it is met, or that it is worth waiting for. Neither
// means that nobody is going to meet it: the container rests, or has no health check.
func (n Need) Meets(r *Record) (met, coming bool) {
	s := r.State
	waits := s.Status == Restarting
	switch {
	case n.Until == InOrder:
		return !waits || s.RestartCount > 0, waits
	case !s.Status.Alive():
		return false, waits
	case n.Until == Ready:
		if s.Health == nil {
			return false, false
		}
		return s.Health.Status == container.Healthy, true
	}
	return true, false
}

// Cycle finds a way from a container back to itself along what needs gives, as the names on it; nil when there is none.
func Cycle(from string, needs func(name string) []string) []string {
	seen := map[string]bool{}
	var way []string
	var walk func(string) bool
	walk = func(name string) bool {
		way = append(way, name)
		for _, next := range needs(name) {
			if next == from {
				way = append(way, next)
				return true
			}
			if !seen[next] {
				seen[next] = true
				if walk(next) {
					return true
				}
			}
		}
		way = way[:len(way)-1]
		return false
	}
	if !walk(from) {
		return nil
	}
	return slices.Clip(way)
}
