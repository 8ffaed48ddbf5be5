// Package network connects containers: the default bridge, addresses,
// published ports, and the text of resolv.conf and hosts.
//
// It is not a firewall for the host and knows nothing of processes: it hands
// out a configured network namespace, and what runs in it is the caller's business.
// Invariant: on the host only links, the nftables table and the forwarding
// switches that carry our name or stand in our records are ever written, and
// Cleanup takes all of them back.
package network

import (
	"net/netip"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Config says where and how the default bridge is made.
type Config struct {
	Dir    string       // state directory, made when missing; owned by this package
	Bridge string       // name of the bridge, "" = "berth0"; "none" = no bridge, only Loopback works. An existing foreign bridge is used as it is and never removed
	BIP    netip.Prefix // the bridge's own address and subnet; zero: 172.17.0.1/16 unless taken, then the next free pool
	Pool   int          // namespaces with a veth kept ready; 0 = 8, negative = none

	Warn func(string) // told what works but not as well as it should; nil = silent. Called from any goroutine
}

// Owner is the user namespace that a container's network belongs to, by its maps: one is made with the network, for the
// container to join, so that root in there may change it. The zero value is the host's.
type Owner struct {
	UIDs, GIDs []specs.LinuxIDMapping
}

func (o Owner) host() bool { return len(o.UIDs) == 0 }

// PortRequest asks for a container's port to be published on the host.
type PortRequest struct {
	HostIP      netip.Addr // zero or 0.0.0.0: every address of the host
	HostPort    uint16     // 0 = any free one of 49153–65535
	HostPortEnd uint16     // > HostPort: any free one of HostPort–HostPortEnd
	Port        uint16     // the container's port
	Proto       string     // "tcp" ("" too) or "udp"
}

// Port is a published port.
type Port struct {
	HostIP   netip.Addr // 0.0.0.0: every address of the host
	HostPort uint16
	Port     uint16
	Proto    string // "tcp" or "udp"
}

// Endpoint is one container's place in a network. It is plain data: the
// engine records it after Reserve and again after Attach (which sets Link).
type Endpoint struct {
	ID          string // 64 hex digits
	NetworkID   string // 64 hex digits
	ContainerID string
	Address     netip.Prefix // the container's address with the subnet's length
	Gateway     netip.Addr   // the bridge's address
	MAC         string       // 02:42: and the address, so that a reused address never meets a stale neighbour entry
	Ports       []Port
	Link        string // the host's end of the veth; empty until Attach
}
