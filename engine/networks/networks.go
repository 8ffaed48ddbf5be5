// Package networks serves networks to those who ask for them in the API's words, and tells the journal of it.
//
// It does not wire anything (package network) and changes no container: it says what a container's wishes are and
// what is to be seen of a network. Invariant: host, none and the default network are always there under their names, and are never made or removed.
package networks

import (
	"crypto/sha256"
	"encoding/hex"
	"net"
	"slices"
	"strings"
	"time"

	"berth/container"
	"berth/engine/journal"
	"berth/fault"
	"berth/network"

	"github.com/moby/moby/api/types/events"
	wire "github.com/moby/moby/api/types/network"
)

// The names that are always there.
const (
	Bridge = network.DefaultName
	Host   = "host"
	None   = "none"
)

// Service is all that can be done with networks.
type Service struct {
	Host    *network.Host
	Events  *journal.Journal
	Created time.Time // of host and none
	// Members are all containers, with what they hold of networks.
	Members func() []Member
}

// Member is a container as networks see it.
type Member struct {
	Record     *container.Record
	Attachment *network.Attachment // nil: it does not run, or has no network of its own
}

func invalid(format string, args ...any) error { return fault.New(fault.Invalid, format, args...) }

// constID is the ID of a network that is the same everywhere.
func constID(name string) string {
	sum := sha256.Sum256([]byte("berth network " + name))
	return hex.EncodeToString(sum[:])
}

// ID is that of a network by its full name; "" when there is none.
func (s *Service) ID(name string) string {
	switch name {
	case Host, None:
		return constID(name)
	case "default", "":
		name = Bridge
	}
	return s.Host.ID(name)
}

// builtin tells whether a network is always there.
func builtin(name string) bool { return name == Bridge || name == Host || name == None }

// all describes every network, without its containers.
func (s *Service) all() []wire.Inspect {
	list := []wire.Inspect{}
	for _, n := range s.Host.List() {
		list = append(list, s.describe(n))
	}
	for _, name := range []string{Host, None} {
		d := blank(name, constID(name), s.Created)
		d.Driver, d.EnableIPv4 = name, true
		if name == None {
			d.Driver = "null"
		}
		list = append(list, d)
	}
	return list
}

func blank(name, id string, created time.Time) wire.Inspect {
	d := wire.Inspect{Containers: map[string]wire.EndpointResource{}}
	d.Name, d.ID, d.Created, d.Scope = name, id, created, "local"
	d.IPAM = wire.IPAM{Driver: "default", Config: []wire.IPAMConfig{}}
	d.Options, d.Labels = map[string]string{}, map[string]string{}
	return d
}

// describe shows a network in the API's words.
func (s *Service) describe(n network.Spec) wire.Inspect {
	d := blank(n.Name, n.ID, n.Created)
	d.Driver, d.EnableIPv4, d.EnableIPv6, d.Internal, d.Attachable, d.ConfigOnly = n.Driver, n.IPv4, n.IPv6, n.Internal, n.Attachable, n.ConfigOnly
	d.ConfigFrom.Network = n.ConfigFrom
	for _, p := range n.Pools {
		d.IPAM.Config = append(d.IPAM.Config, wire.IPAMConfig{Subnet: p.Subnet, IPRange: p.Range, Gateway: p.Gateway, AuxAddress: p.Aux})
	}
	d.IPAM.Options = n.IPAM
	for k, v := range n.Options {
		d.Options[k] = v
	}
	for k, v := range n.Labels {
		d.Labels[k] = v
	}
	return d
}

// List describes the networks that fit; as the field has it, without their containers.
func (s *Service) List(f journal.Filters) ([]wire.Inspect, error) {
	for key := range f {
		if !slices.Contains([]string{"dangling", "driver", "id", "label", "name", "scope", "type"}, key) {
			return nil, invalid("invalid filter '%s'", key)
		}
	}
	used := s.used(nil)
	list := s.all()
	for _, values := range f["dangling"] {
		if _, err := truth(values); err != nil {
			return nil, err
		}
	}
	return slices.DeleteFunc(list, func(d wire.Inspect) bool { return !fits(d, f, used[d.Name]) }), nil
}

func truth(s string) (bool, error) {
	switch s {
	case "1", "true":
		return true, nil
	case "0", "false":
		return false, nil
	}
	return false, invalid("invalid filter 'dangling=[%s]'", s)
}

// used are the names of the networks that a container is on, or will be, those in gone left out.
func (s *Service) used(gone map[string]bool) map[string]bool {
	used := map[string]bool{}
	for _, m := range s.Members() {
		if gone[m.Record.ID] {
			continue
		}
		for name := range Wishes(m.Record) {
			used[name] = true
		}
	}
	return used
}

func fits(d wire.Inspect, f journal.Filters, used bool) bool {
	for key, values := range f {
		ok := len(values) == 0
		for _, v := range values {
			switch key {
			case "driver":
				ok = ok || d.Driver == v
			case "id":
				ok = ok || strings.HasPrefix(d.ID, v)
			case "name":
				ok = ok || strings.Contains(d.Name, v)
			case "scope":
				ok = ok || d.Scope == v
			case "type":
				ok = ok || v == "builtin" && builtin(d.Name) || v == "custom" && !builtin(d.Name)
			case "label":
				ok = ok || journal.HasLabel(d.Labels, v)
			case "dangling":
				want, _ := truth(v)
				ok = ok || want == (!used && !builtin(d.Name))
			}
		}
		if !ok {
			return false
		}
	}
	return true
}

// find looks a network up by name, ID or unique prefix. fault.NotFound "network x not found".
func (s *Service) find(ref string) (wire.Inspect, error) {
	if ref == "default" {
		ref = Bridge
	}
	all := s.all()
	for _, d := range all {
		if d.ID == ref {
			return d, nil
		}
	}
	var found []wire.Inspect
	for _, d := range all {
		if d.Name == ref {
			return d, nil
		}
		if ref != "" && strings.HasPrefix(d.ID, ref) {
			found = append(found, d)
		}
	}
	switch len(found) {
	case 0:
		return wire.Inspect{}, fault.New(fault.NotFound, "network %s not found", ref)
	case 1:
		return found[0], nil
	}
	return wire.Inspect{}, invalid("network %s is ambiguous (%d matches found on ID prefix)", ref, len(found))
}

// Inspect describes one, with the containers that run on it.
func (s *Service) Inspect(ref string) (wire.Inspect, error) {
	d, err := s.find(ref)
	if err != nil {
		return d, err
	}
	for _, m := range s.Members() {
		switch {
		case m.Attachment != nil:
			e := m.Attachment.On(d.ID)
			if e == nil {
				continue
			}
			r := wire.EndpointResource{Name: m.Record.Name, EndpointID: e.ID, IPv4Address: e.Address, IPv6Address: e.Address6}
			if mac, err := net.ParseMAC(e.MAC); err == nil {
				r.MacAddress = wire.HardwareAddr(mac)
			}
			d.Containers[m.Record.ID] = r
		case m.Record.State.Status.Alive() && (d.Name == Host || d.Name == None) && string(m.Record.HostConfig.NetworkMode) == d.Name:
			d.Containers[m.Record.ID] = wire.EndpointResource{Name: m.Record.Name}
		}
	}
	return d, nil
}

// Remove removes one that no container is on. fault.Denied: it is built in, or in use.
func (s *Service) Remove(ref string) error {
	d, err := s.find(ref)
	if err != nil {
		return err
	}
	if builtin(d.Name) {
		return fault.New(fault.Denied, "%s is a pre-defined network and cannot be removed", d.Name)
	}
	if err := s.Host.Remove(d.ID); err != nil {
		return err
	}
	s.tell(events.ActionDestroy, d.ID, d.Name, d.Driver)
	return nil
}

// Prune removes the networks that no container is on or will be, and names them; with dry, it only names them.
func (s *Service) Prune(f journal.Filters, dry bool) (report wire.PruneReport, err error) {
	list, err := s.Spare(f, nil)
	if err != nil {
		return report, err
	}
	report.NetworksDeleted = []string{}
	for _, n := range list {
		if !dry {
			if err := s.Host.Remove(n.ID); err != nil {
				continue // somebody has got on it meanwhile
			}
			s.tell(events.ActionDestroy, n.ID, n.Name, n.Driver)
		}
		report.NetworksDeleted = append(report.NetworksDeleted, n.Name)
	}
	if !dry {
		s.Events.Publish(events.NetworkEventType, events.ActionPrune, "", map[string]string{"reclaimed": "0"})
	}
	return report, nil
}

// Spare are the networks that a prune under f would remove, if the containers in gone, by ID, were not there.
func (s *Service) Spare(f journal.Filters, gone map[string]bool) (list []network.Spec, err error) {
	until, err := pruneFilters(f, time.Now())
	if err != nil {
		return nil, err
	}
	used := s.used(gone)
	for _, n := range s.Host.List() {
		if !builtin(n.Name) && !used[n.Name] && (until.IsZero() || !n.Created.After(until)) && labelsFit(n.Labels, f) {
			list = append(list, n)
		}
	}
	return list, nil
}

func labelsFit(labels map[string]string, f journal.Filters) bool {
	for _, want := range f["label"] {
		if !journal.HasLabel(labels, want) {
			return false
		}
	}
	for _, no := range f["label!"] {
		if journal.HasLabel(labels, no) {
			return false
		}
	}
	return true
}

func (s *Service) tell(action events.Action, id, name, driver string) {
	s.Events.Publish(events.NetworkEventType, action, id, map[string]string{"name": name, "type": driver})
}

// TellMember says that a container got on its networks, or off them.
func (s *Service) TellMember(containerID string, action events.Action, a *network.Attachment, only string) {
	if a == nil {
		return
	}
	for _, e := range a.Endpoints {
		if only != "" && e.NetworkID != only {
			continue
		}
		driver := "bridge"
		if n, ok := s.Host.Get(e.NetworkID); ok {
			driver = n.Driver
		}
		s.Events.Publish(events.NetworkEventType, action, e.NetworkID, map[string]string{"container": containerID, "name": e.Network, "type": driver})
	}
}
