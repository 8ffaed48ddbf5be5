// Package network connects containers: networks and their addresses, the wiring of
// network namespaces, published ports, and the text of resolv.conf and hosts.
//
// It is not a firewall for the host and knows nothing of processes: it hands
// out a configured network namespace, and what runs in it is the caller's business.
// Invariant: on the host only links, the nftables tables and the forwarding
// switches that carry our name or stand in our records are ever written, and
// Cleanup takes all of them back.
package network

import (
	"net/netip"
	"time"

	"berth/network/ipam"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Config says where networks are kept, and how the default one is made.
type Config struct {
	Dir     string                       // state directory, made when missing; owned by this package
	Bridge  string                       // link of the default network, "" = "berth0"; "none" = no default network. An existing foreign bridge is used as it is and never removed
	BIP     netip.Prefix                 // the default bridge's own address and subnet; zero: 172.17.0.1/16 unless taken, then the next free pool
	Default Spec                         // the rest of the default network: Options, IPv6 with its Pool, Labels
	Sources []ipam.Source                // what networks get subnets from; nil: ipam.Sources(), and the default network one of its own
	Options map[string]map[string]string // of networks that do not say otherwise, the default one included, by driver
	Pool    int                          // namespaces with a veth kept ready; 0 = 8, negative = none

	NoForwarding bool // leave the switches of forwarding alone: the host forwards what it forwards

	Warn func(string) // told what works but not as well as it should; nil = silent. Called from any goroutine
}

// DefaultName is the name of the network that containers are on unless they ask for another.
const DefaultName = "bridge"

// Spec is a network as it is recorded: what was asked for, completed.
type Spec struct {
	ID         string // 64 hex digits
	Name       string
	Driver     string // a key of the table of drivers: "bridge", "macvlan", "ipvlan"
	Created    time.Time
	Internal   bool // no way out of it and none in
	IPv4, IPv6 bool
	Pools      []ipam.Pool       // complete once it is made
	Options    map[string]string // the driver's
	Labels     map[string]string
	IPAM       map[string]string `json:",omitempty"` // options of address management; kept for who asks
	Attachable bool              `json:",omitempty"` // kept for who asks
	ConfigOnly bool              `json:",omitempty"` // other networks take their settings from it, and nobody is on it
	ConfigFrom string            `json:",omitempty"` // name of the network whose settings it took
}

// Owner is the user namespace that a container's network belongs to, by its maps: one is made with the network, for the
// container to join, so that root in there may change it. The zero value is the host's.
type Owner struct {
	UIDs, GIDs []specs.LinuxIDMapping
}

func (o Owner) host() bool { return len(o.UIDs) == 0 }

// Join is a container's wish to be on a network.
type Join struct {
	Network   string     // ID
	Address   netip.Addr // IPv4; zero: any free one
	Address6  netip.Addr
	LinkLocal []netip.Addr
	MAC       string // "": made from the address
	Interface string // the link's name in the container; "": ethN
	Priority  int    // the highest has the default route; among equals, the network's name decides
	Sysctls   []Sysctl
	NoIPv6    bool // the container has IPv6 switched off: it gets no address of it, whatever the network has
}

// PortRequest asks for a container's port to be published on the host.
type PortRequest struct {
	HostIP      netip.Addr // zero: the network's own choice, usually every address of the host, of both families; 0.0.0.0 and :: are all of one family
	HostPort    uint16     // 0 = any free one of 49153–65535
	HostPortEnd uint16     // > HostPort: any free one of HostPort–HostPortEnd
	Port        uint16     // the container's port
	Proto       string     // "tcp" ("" too), "udp" or "sctp"
}

// Port is a published port.
type Port struct {
	HostIP   netip.Addr // 0.0.0.0 or ::, every address of the host of that family
	HostPort uint16
	Port     uint16
	Proto    string // "tcp", "udp" or "sctp"
	Direct   bool   `json:",omitempty"` // reached at the container's own address: the network is routed, and HostPort is 0
}

// Endpoint is one container's place in one network. It is plain data.
type Endpoint struct {
	ID        string // 64 hex digits
	NetworkID string
	Network   string         // its name
	Address   netip.Prefix   // IPv4, with the subnet's length; zero: none
	Address6  netip.Prefix   // IPv6
	LinkLocal []netip.Prefix `json:",omitempty"`
	Gateway   netip.Addr     // of the network; zero: none
	Gateway6  netip.Addr
	MAC       string // 02:42: and the address, so that a reused address never meets a stale neighbour entry
	Interface string // the link's name in the container
	Link      string // the host's end of a veth; "" for drivers that have none
	Priority  int
	Sysctls   []Sysctl `json:",omitempty"` // set once it has its addresses
}

// Attachment is a container's places in its networks, and its ports. It is plain data: the engine records it
// after Reserve and again after each change.
type Attachment struct {
	ID          string // 64 hex digits
	ContainerID string
	Endpoints   []Endpoint // by the names of their networks
	Ports       []Port
	Wanted      []PortRequest `json:",omitempty"` // what Ports are of, as far as its networks have a way out
}
