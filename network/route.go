package network

import (
	"cmp"
	"net/netip"
)

// Way tells which endpoint has the default route of a family: the one of the highest priority whose network has a gateway. nil: none.
func (a *Attachment) Way(v6 bool) *Endpoint {
	var best *Endpoint
	for k := range a.Endpoints {
		e := &a.Endpoints[k]
		if !e.gateway(v6).IsValid() || !e.address(v6).IsValid() {
			continue
		}
		if best == nil || cmp.Or(cmp.Compare(e.Priority, best.Priority), cmp.Compare(best.Network, e.Network)) > 0 {
			best = e
		}
	}
	return best
}

// On is the endpoint in a network, by its ID; nil: none.
func (a *Attachment) On(networkID string) *Endpoint {
	for k := range a.Endpoints {
		if a.Endpoints[k].NetworkID == networkID {
			return &a.Endpoints[k]
		}
	}
	return nil
}

func (e *Endpoint) gateway(v6 bool) netip.Addr {
	if v6 {
		return e.Gateway6
	}
	return e.Gateway
}

func (e *Endpoint) address(v6 bool) netip.Prefix {
	if v6 {
		return e.Address6
	}
	return e.Address
}
