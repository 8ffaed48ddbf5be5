package networks

import (
	"context"
	"regexp"
	"strconv"
	"time"

	"berth/engine/journal"
	"berth/engine/request"
	"berth/fault"
	"berth/network"
	"berth/network/ipam"

	"github.com/moby/moby/api/types/events"
	wire "github.com/moby/moby/api/types/network"
)

var goodName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// Create makes a network and returns its ID, and what a user should know. Errors are in the field's words.
func (s *Service) Create(ctx context.Context, r wire.CreateRequest) (id string, warnings []string, err error) {
	spec, err := s.spec(r)
	if err != nil {
		return "", nil, err
	}
	made, err := s.Host.Create(ctx, spec)
	if err != nil {
		return "", nil, err
	}
	s.tell(events.ActionCreate, made.ID, made.Name, made.Driver)
	return made.ID, s.Host.Firewalls().Obstacles(made.ID), nil
}

// spec reads what is asked for.
func (s *Service) spec(r wire.CreateRequest) (spec network.Spec, err error) {
	switch {
	case builtin(r.Name) || r.Name == "default":
		return spec, fault.New(fault.Denied, "operation is not permitted on predefined %s network ", r.Name)
	case r.Name == "":
		return spec, invalid("invalid network name: name is empty")
	case !goodName.MatchString(r.Name):
		return spec, invalid("invalid network name %q: only [a-zA-Z0-9][a-zA-Z0-9_.-]* are allowed", r.Name)
	case r.Scope != "" && r.Scope != "local":
		return spec, invalid("network %s: scope %s needs a swarm, and this engine is in none; leave it out", r.Name, r.Scope)
	case r.Ingress:
		return spec, invalid("network %s: an ingress network needs a swarm, and this engine is in none", r.Name)
	case r.Driver == "host" || r.Driver == "null" || r.Driver == "none":
		return spec, fault.New(fault.Denied, "only one instance of %q network is allowed", r.Driver)
	case r.Driver == "overlay":
		return spec, fault.New(fault.Unavailable, "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.")
	}
	spec = network.Spec{
		Name: r.Name, Driver: r.Driver, Internal: r.Internal, Attachable: r.Attachable, ConfigOnly: r.ConfigOnly,
		IPv4: r.EnableIPv4 == nil || *r.EnableIPv4, IPv6: r.EnableIPv6 != nil && *r.EnableIPv6, Options: r.Options, Labels: r.Labels,
	}
	if spec.Driver == "" || spec.Driver == "default" {
		spec.Driver = "bridge"
	}
	if v, ok := r.Options["com.docker.network.enable_ipv6"]; ok && r.EnableIPv6 == nil {
		if spec.IPv6, err = strconv.ParseBool(v); err != nil {
			return spec, invalid("network option com.docker.network.enable_ipv6=%s: true or false is wanted", v)
		}
	}
	if !spec.IPv4 && !spec.IPv6 {
		return spec, invalid("IPv4 or IPv6 must be enabled")
	}
	if err := s.addresses(&spec, r.IPAM); err != nil {
		return spec, err
	}
	if r.ConfigFrom != nil && r.ConfigFrom.Network != "" {
		return s.configured(spec, r)
	}
	return spec, nil
}

// addresses reads what is asked of address management.
func (s *Service) addresses(spec *network.Spec, m *wire.IPAM) error {
	if m == nil {
		return nil
	}
	if m.Driver != "" && m.Driver != "default" {
		return fault.New(fault.NotFound, "could not find IPAM plugin %s: plugin not found; leave it out for the built-in one", m.Driver)
	}
	spec.IPAM = m.Options
	seen := map[bool]bool{}
	for _, c := range m.Config {
		if !c.Subnet.IsValid() {
			if c.Gateway.IsValid() || c.IPRange.IsValid() || len(c.AuxAddress) > 0 {
				return invalid("invalid network config:\ninvalid subnet: the range, gateway or auxiliary addresses need one (--subnet)")
			}
			continue
		}
		v6 := c.Subnet.Addr().Is6()
		switch {
		case v6 && !spec.IPv6:
			return invalid("invalid network config:\nsubnet %s is of IPv6, which is not enabled for network %s (--ipv6)", c.Subnet, spec.Name)
		case !v6 && !spec.IPv4:
			return invalid("invalid network config:\nsubnet %s is of IPv4, which is not enabled for network %s", c.Subnet, spec.Name)
		case seen[v6] && spec.Driver == "bridge":
			return invalid("bridge driver: a network has one subnet of each family, %s is one too many", c.Subnet)
		}
		seen[v6] = true
		spec.Pools = append(spec.Pools, ipam.Pool{Subnet: c.Subnet, Range: c.IPRange, Gateway: c.Gateway, Aux: c.AuxAddress})
	}
	return nil
}

// configured takes the settings of another network, which is there for that alone.
func (s *Service) configured(spec network.Spec, r wire.CreateRequest) (network.Spec, error) {
	if spec.ConfigOnly {
		return spec, fault.New(fault.Denied, "a configuration network cannot depend on another configuration network")
	}
	if len(r.Options) > 0 || r.IPAM != nil && len(r.IPAM.Config) > 0 || r.EnableIPv6 != nil && *r.EnableIPv6 || r.Internal {
		return spec, fault.New(fault.Denied, "user specified configurations are not supported if the network depends on a configuration network")
	}
	for _, n := range s.Host.List() {
		if n.Name != r.ConfigFrom.Network && n.ID != r.ConfigFrom.Network {
			continue
		}
		if !n.ConfigOnly {
			return spec, fault.New(fault.Denied, "network %q is not a configuration network", n.Name)
		}
		spec.ConfigFrom, spec.Options, spec.Pools, spec.IPAM = n.Name, n.Options, n.Pools, n.IPAM
		spec.IPv4, spec.IPv6, spec.Internal = n.IPv4, n.IPv6, n.Internal
		return spec, nil
	}
	return spec, fault.New(fault.NotFound, "network %s not found", r.ConfigFrom.Network)
}

// pruneFilters reads what a prune is limited to: created before the time returned, which is zero for always.
func pruneFilters(f journal.Filters, now time.Time) (until time.Time, err error) {
	for key, values := range f {
		switch key {
		case "label", "label!":
		case "until":
			if len(values) != 1 {
				return until, invalid("more than one until filter specified")
			}
			if until, err = request.ParseUntil(values[0], now); err != nil {
				return until, err
			}
		default:
			return until, invalid("invalid filter '%s'", key)
		}
	}
	return until, nil
}
