package networks

import (
	"net"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"berth/container"
	"berth/engine/request"
	"berth/fault"
	"berth/network"
	"berth/network/ipam"

	api "github.com/moby/moby/api/types/container"
	wire "github.com/moby/moby/api/types/network"
)

// Options of an endpoint: how the link in the container is called, and what is set of it, by commas.
const (
	optionInterface = "com.docker.network.endpoint.ifname"
	optionSysctls   = "com.docker.network.endpoint.sysctls"
)

// Wishes are the networks that a container is on when it runs, by name.
func Wishes(r *container.Record) map[string]*wire.EndpointSettings {
	switch mode := r.HostConfig.NetworkMode; {
	case mode.IsContainer() || r.Config.NetworkDisabled:
		return nil
	case r.Networks != nil:
		return r.Networks
	default:
		return map[string]*wire.EndpointSettings{Main(mode): {}}
	}
}

// Main is the network that a mode names.
func Main(mode api.NetworkMode) string {
	if mode == "" || mode.IsDefault() {
		return Bridge
	}
	return string(mode)
}

// Own tells whether a container has a network namespace of its own that networks can be put into, though it may be on none now.
func Own(r *container.Record) bool {
	m := r.HostConfig.NetworkMode
	if r.Config.NetworkDisabled || m.IsHost() || m.IsContainer() {
		return false
	}
	return !m.IsNone()
}

// Joins are a container's wishes in the words of package network. fault.NotFound: a network is not there.
func (s *Service) Joins(r *container.Record) ([]network.Join, error) {
	if !Own(r) {
		return nil, nil
	}
	var all []network.Join
	for name, e := range Wishes(r) {
		j, err := s.Join(r, name, e)
		if err != nil {
			return nil, err
		}
		all = append(all, j)
	}
	return all, nil
}

// Join is one wish.
func (s *Service) Join(r *container.Record, name string, e *wire.EndpointSettings) (j network.Join, err error) {
	if j.Network = s.ID(name); j.Network == "" {
		return j, fault.New(fault.NotFound, "network %s not found", name)
	}
	j.NoIPv6 = NoIPv6(r)
	if e == nil {
		return j, nil
	}
	if a := e.IPAMConfig; a != nil {
		j.Address, j.Address6, j.LinkLocal = a.IPv4Address, a.IPv6Address, a.LinkLocalIPs
	}
	if len(e.MacAddress) > 0 {
		j.MAC = e.MacAddress.String()
	}
	j.Priority, j.Interface = e.GwPriority, e.DriverOpts[optionInterface]
	j.Sysctls, err = sysctls(e)
	return j, err
}

// sysctls are those of an endpoint's link.
func sysctls(e *wire.EndpointSettings) (all []network.Sysctl, err error) {
	text, given := e.DriverOpts[optionSysctls]
	if !given {
		return nil, nil
	}
	for _, one := range strings.Split(text, ",") {
		s, err := network.ParseSysctl(one)
		if err != nil {
			return nil, fault.New(fault.Invalid, "invalid endpoint settings:\n%w", err)
		}
		all = append(all, s)
	}
	return all, nil
}

// NoIPv6 tells whether a container switches IPv6 off for its whole network namespace, its loopback included.
func NoIPv6(r *container.Record) bool {
	for key, value := range r.HostConfig.Sysctls {
		switch strings.ReplaceAll(key, "/", ".") {
		case "net.ipv6.conf.all.disable_ipv6", "net.ipv6.conf.lo.disable_ipv6":
			if n, err := strconv.Atoi(strings.TrimSpace(value)); err == nil && n != 0 {
				return true
			}
		}
	}
	return false
}

// Settle takes over what a create request wants of networks. A missing network is fault.Invalid: clients take fault.NotFound for
// a missing image, and pull.
func (s *Service) Settle(r *container.Record, wishes map[string]*wire.EndpointSettings) error {
	mode := r.HostConfig.NetworkMode
	if mode.IsContainer() || mode.IsHost() {
		for _, e := range wishes {
			if e != nil && len(e.MacAddress) > 0 {
				return invalid("conflicting options: mac-address and the network mode")
			}
		}
		return nil
	}
	own := map[string]*wire.EndpointSettings{}
	plain := true // nothing but what the mode says
	main := Main(mode)
	if len(wishes) == 0 && !mode.IsNone() { // who names networks is on those alone, as the field has it
		own[main] = &wire.EndpointSettings{}
	}
	for ref, e := range wishes {
		if ref == "default" {
			ref = Bridge
		}
		d, err := s.find(ref)
		if err != nil {
			return fault.Wrap(fault.Invalid, err)
		}
		if e == nil {
			e = &wire.EndpointSettings{}
		}
		if err := s.CheckWish(d.Name, e); err != nil {
			return err
		}
		wish := Wish(e)
		if d.Name == main && len(wish.MacAddress) > 0 {
			r.Settings.MAC = wish.MacAddress.String()
		}
		plain = plain && d.Name == main && reflect.DeepEqual(wish, &wire.EndpointSettings{})
		own[d.Name] = wish
	}
	for name := range own {
		if name == Host || name == None && len(own) > 1 {
			return invalid("conflicting options: network %s can't be used with others", name)
		}
		if s.ID(name) == "" {
			d, err := s.find(name) // by its ID
			if err != nil {
				return fault.Wrap(fault.Invalid, err)
			}
			own[d.Name], plain = own[name], false
			delete(own, name)
		}
	}
	if !plain && !mode.IsNone() {
		r.Networks = own
	}
	return nil
}

// Wish is the part of an endpoint's settings that a user chooses; the rest is told.
func Wish(e *wire.EndpointSettings) *wire.EndpointSettings {
	return &wire.EndpointSettings{IPAMConfig: e.IPAMConfig, Links: e.Links, Aliases: e.Aliases, DriverOpts: e.DriverOpts, GwPriority: e.GwPriority, MacAddress: e.MacAddress}
}

// CheckWish tells what is wrong with what a container wants of a network, in the field's words; nil: nothing.
func (s *Service) CheckWish(name string, e *wire.EndpointSettings) error {
	if e == nil {
		return nil
	}
	if _, err := sysctls(e); err != nil {
		return err
	}
	if a := e.IPAMConfig; a != nil && (a.IPv4Address.IsValid() || a.IPv6Address.IsValid() || len(a.LinkLocalIPs) > 0) {
		if builtin(name) {
			return invalid("invalid endpoint settings:\nuser specified IP address is supported on user defined networks only")
		}
		for _, n := range s.Host.List() {
			if n.Name != name {
				continue
			}
			fits := func(v6 bool) bool {
				want := a.IPv4Address
				if v6 {
					want = a.IPv6Address
				}
				return !want.IsValid() || slices.ContainsFunc(n.Pools, func(p ipam.Pool) bool { return p.Subnet.Contains(want) })
			}
			if !fits(false) || !fits(true) {
				return invalid("invalid endpoint settings:\nno configured subnet contains IP address %s", firstOf(a, fits))
			}
		}
	}
	if len(e.Aliases) > 0 && builtin(name) {
		return invalid("invalid endpoint settings:\nnetwork-scoped aliases are only supported for user-defined networks")
	}
	return nil
}

func firstOf(a *wire.EndpointIPAMConfig, fits func(bool) bool) string {
	if !fits(false) {
		return a.IPv4Address.String()
	}
	return a.IPv6Address.String()
}

// Shown are a container's networks as inspect has them.
func (s *Service) Shown(r *container.Record, a *network.Attachment) map[string]*wire.EndpointSettings {
	shown := map[string]*wire.EndpointSettings{}
	for name, wish := range Wishes(r) {
		e := &wire.EndpointSettings{}
		if wish != nil {
			*e = *wish
		}
		e.NetworkID = s.ID(name)
		e.DNSNames = Names(r, name)
		shown[name] = e
		if a == nil {
			continue
		}
		p := a.On(e.NetworkID)
		if p == nil {
			continue
		}
		e.EndpointID, e.Gateway, e.IPAddress = p.ID, p.Gateway, p.Address.Addr()
		e.IPv6Gateway, e.GlobalIPv6Address = p.Gateway6, p.Address6.Addr()
		if p.Address.IsValid() {
			e.IPPrefixLen = p.Address.Bits()
		}
		if p.Address6.IsValid() {
			e.GlobalIPv6PrefixLen = p.Address6.Bits()
		}
		if mac, err := net.ParseMAC(p.MAC); err == nil {
			e.MacAddress = wire.HardwareAddr(mac)
		}
	}
	return shown
}

// Names are those that a container has on a network: its name, aliases, short ID and host name. None on a network without names.
func Names(r *container.Record, network string) []string {
	if builtin(network) {
		return nil
	}
	all := []string{r.Name}
	if e := Wishes(r)[network]; e != nil {
		all = append(all, e.Aliases...)
	}
	all = append(all, container.ShortID(r.ID))
	if r.Config.Hostname != "" {
		all = append(all, r.Config.Hostname)
	}
	var once []string
	for _, n := range all {
		if !slices.Contains(once, n) {
			once = append(once, n)
		}
	}
	return once
}

// PortNotes tells what a user should know of the ports that a container publishes: what the host's firewalls do with them.
func (s *Service) PortNotes(r *container.Record) []string {
	if len(r.HostConfig.PortBindings) == 0 && !r.HostConfig.PublishAllPorts || !Own(r) {
		return nil
	}
	ports, err := request.Ports(r.Config, r.HostConfig)
	if err != nil || len(ports) == 0 {
		return nil
	}
	var on []string
	for name := range Wishes(r) {
		on = append(on, s.ID(name))
	}
	return s.Host.Firewalls().PortNotes(on, ports)
}
