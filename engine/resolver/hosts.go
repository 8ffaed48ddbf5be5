package resolver

import (
	"net/netip"
	"os"
	"slices"
	"strings"

	"berth/container"
	"berth/engine/link"
	"berth/engine/networks"
	"berth/engine/request"
	"berth/network"
)

// Defaults are the daemon's settings for containers that say nothing else.
type Defaults struct {
	Conf    string       // read in the place of the host's resolv.conf; "": /etc/resolv.conf
	Servers []netip.Addr // asked by containers, or for them
	Search  []string
	Options []string
	Host    []netip.Addr // the host as containers find it, at most one of each family; none: at the gateway of their way out
}

// namesOfHost are those of the machine that containers run on. Where names are served, they are answered; elsewhere they stand in the hosts file.
const (
	hostName    = "host.docker.internal"
	gatewayName = "gateway.docker.internal"
)

// host is where a container finds the host that it runs on; none: nowhere.
func (s *Service) host(held *network.Attachment) []netip.Addr {
	switch {
	case len(s.Defaults.Host) > 0:
		return s.Defaults.Host
	case held == nil:
		return nil
	}
	return s.gateways(held)
}

// hostGateway is what host-gateway stands for in --add-host: for a container without a way to the host, the default network's
// gateway, as its own namespace may be the host's.
func (s *Service) hostGateway(held *network.Attachment) []netip.Addr {
	if all := s.host(held); len(all) > 0 {
		return all
	}
	if own := s.Networks.Host.Gateway(); own.IsValid() {
		return []netip.Addr{own}
	}
	return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
}

// Hosts is a container's hosts file; with the host's network it begins as the host's own.
func (s *Service) Hosts(r *container.Record, held *network.Attachment) (string, error) {
	var extra []network.HostEntry
	for _, text := range r.HostConfig.ExtraHosts {
		some, err := request.ExtraHost(text, s.hostGateway(held))
		if err != nil {
			return "", err
		}
		extra = append(extra, some...)
	}
	targets, _ := link.Targets(r, s.Find) // whether one is missing is a start's business
	for _, t := range targets {
		extra = append(extra, t.Host())
	}
	if r.HostConfig.NetworkMode.IsHost() {
		text, err := os.ReadFile("/etc/hosts")
		if err != nil && !os.IsNotExist(err) {
			return "", err
		}
		for _, e := range extra {
			text = append(text, (e.Address.String() + "\t" + e.Names[0] + "\n")...)
		}
		return string(text), nil
	}
	var own []network.HostEntry
	if held != nil {
		if !served(r, held) {
			own = append(own, s.hostLines(held, extra)...)
		}
		own = append(own, ownLines(r, held)...)
	}
	if networks.NoIPv6(r) {
		return network.Hosts4(own, extra), nil
	}
	return network.Hosts(own, extra), nil
}

// hostLines name the host, unless the user says who has those names.
func (s *Service) hostLines(held *network.Attachment, extra []network.HostEntry) (lines []network.HostEntry) {
	names := slices.DeleteFunc([]string{hostName, gatewayName}, func(name string) bool {
		return slices.ContainsFunc(extra, func(e network.HostEntry) bool { return slices.Contains(e.Names, name) })
	})
	if len(names) == 0 {
		return nil
	}
	for _, a := range s.host(held) {
		lines = append(lines, network.HostEntry{Address: a, Names: names})
	}
	return lines
}

// ownLines are the container's own name at each of its addresses.
func ownLines(r *container.Record, held *network.Attachment) (lines []network.HostEntry) {
	names := []string{r.Config.Hostname}
	if d := r.Config.Domainname; d != "" {
		names = []string{r.Config.Hostname + "." + d, r.Config.Hostname}
	} else if short, _, ok := strings.Cut(r.Config.Hostname, "."); ok && short != "" {
		names = append(names, short)
	}
	for _, e := range held.Endpoints {
		for _, p := range []netip.Prefix{e.Address, e.Address6} {
			if p.IsValid() {
				lines = append(lines, network.HostEntry{Address: p.Addr(), Names: names})
			}
		}
	}
	return lines
}

// Stale tells whether is, a file as it stands, is one that we wrote when things were otherwise, where now should be: its writing was broken off, or didn't
// come about. What a container wrote itself is not.
func Stale(is, now string) bool {
	if is == now {
		return false
	}
	return len(is) < len(now) && strings.HasPrefix(now, is) || otherConf(is, now) || otherAddresses(is, now)
}

// otherConf tells whether one of two resolv.conf is for a container that is served, and the other for one that isn't.
func otherConf(a, b string) bool {
	const served, not = " (internal resolver)\n", " (legacy)\n"
	return strings.Contains(a, served) && strings.Contains(b, not) || strings.Contains(a, not) && strings.Contains(b, served)
}

// otherAddresses tells whether a hosts file is of our making and has only names of the other, at other addresses or not all of them.
func otherAddresses(is, now string) bool {
	head := network.Hosts(nil, nil)
	if !strings.HasPrefix(now, head) {
		head = network.Hosts4(nil, nil)
	}
	is, ours := strings.CutPrefix(is, head)
	now, hosts := strings.CutPrefix(now, head)
	if !ours || !hosts {
		return false
	}
	names := map[string]bool{}
	for line := range strings.Lines(now) {
		_, called, _ := strings.Cut(line, "\t")
		names[called] = true
	}
	for line := range strings.Lines(is) {
		if _, called, _ := strings.Cut(line, "\t"); !names[called] && called != hostName+" "+gatewayName+"\n" {
			return false
		}
	}
	return true
}
