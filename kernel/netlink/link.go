package netlink

import (
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"berth/kernel"
)

// NameLimit is the longest name of a link in bytes (IFNAMSIZ less the final zero).
const NameLimit = unix.IFNAMSIZ - 1

// BridgePorts is how many links one bridge takes (BR_MAX_PORTS, net/bridge/br_private.h,
// less port number 0). The next one is refused with EXFULL.
const BridgePorts = 1023

// Link is what we know of a link.
type Link struct {
	Index  int
	Name   string
	Kind   string // "bridge", "veth", …; "device" for hardware and lo
	Alias  string
	MTU    int
	Up     bool
	Master int // index of the bridge it is a port of; 0 = none
	Peer   int // index of a veth's other end, in that end's namespace; 0 = none
	MAC    net.HardwareAddr
}

func known(l netlink.Link) Link {
	a := l.Attrs()
	return Link{Index: a.Index, Name: a.Name, Kind: l.Type(), Alias: a.Alias, MTU: a.MTU,
		Up: a.RawFlags&unix.IFF_UP != 0, Master: a.MasterIndex, Peer: a.ParentIndex, MAC: a.HardwareAddr}
}

// Link finds a link by its name; ENODEV when there is none.
func (c *Conn) Link(name string) (Link, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	data, err := c.get("find link "+name, req)
	if err != nil {
		return Link{}, err
	}
	l, err := netlink.LinkDeserialize(nil, data)
	if err != nil {
		return Link{}, fmt.Errorf("read link %s: %w", name, err)
	}
	return known(l), nil
}

// Links lists the links of the calling thread's namespace.
func Links() ([]Link, error) {
	found, err := whole(netlink.LinkList)
	links := make([]Link, len(found))
	for i, l := range found {
		links[i] = known(l)
	}
	return links, err
}

// whole repeats a listing that a change made incomplete (NLM_F_DUMP_INTR), a bounded number of times.
func whole[T any](list func() ([]T, error)) (found []T, err error) {
	for range 10 {
		if found, err = list(); err == nil || err != netlink.ErrDumpInterrupted {
			break
		}
	}
	return found, err
}

func setLink(what string, index int) (Change, *nl.IfInfomsg) {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, 0)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	req.AddData(msg)
	return Change{what, req}, msg
}

func newLink(what, kind, name string, mtu int) (Change, *nl.RtAttr) {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	if mtu > 0 {
		req.AddData(nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(mtu))))
	}
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(kind))
	req.AddData(info)
	return Change{what, req}, info
}

// NewBridge makes a bridge that is down. A MAC that is given stays; otherwise the bridge takes its ports' lowest.
// mtu in bytes, 0 = the lowest of its ports; EEXIST when the name is taken.
func NewBridge(name string, mac net.HardwareAddr, mtu int) Change {
	c, _ := newLink("make bridge "+name, "bridge", name, mtu)
	if mac != nil {
		c.req.AddData(nl.NewRtAttr(unix.IFLA_ADDRESS, mac))
	}
	return c
}

// NewVeth makes a pair, down at both ends. The end called peer is born in the namespace ns: moving it there later
// takes 16 ms and more. mtu in bytes.
func NewVeth(name, peer string, ns *os.File, mtu int) Change {
	c, info := newLink("make veth "+name, "veth", name, mtu)
	data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	other := data.AddRtAttr(nl.VETH_INFO_PEER, nil)
	nl.NewIfInfomsgChild(other, unix.AF_UNSPEC)
	other.AddRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(peer))
	other.AddRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(mtu)))
	other.AddRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(kernel.FD(ns))))
	return c
}

// Lower is the link that a macvlan, ipvlan or VLAN link stands on: by its index, in the namespace of the Conn.
type Lower struct {
	Parent int
	Inside *os.File // the namespace that the new link is born in; nil: the Conn's
}

func (l Lower) add(c *Change, mac net.HardwareAddr) {
	c.req.AddData(nl.NewRtAttr(unix.IFLA_LINK, nl.Uint32Attr(uint32(l.Parent))))
	if l.Inside != nil {
		c.req.AddData(nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(kernel.FD(l.Inside)))))
	}
	if mac != nil {
		c.req.AddData(nl.NewRtAttr(unix.IFLA_ADDRESS, mac))
	}
}

// Modes of macvlan and ipvlan links, by their names for users (ip-link(8)).
var (
	MacvlanModes = map[string]uint32{
		"private": nl.MACVLAN_MODE_PRIVATE, "vepa": nl.MACVLAN_MODE_VEPA, "bridge": nl.MACVLAN_MODE_BRIDGE, "passthru": nl.MACVLAN_MODE_PASSTHRU,
	}
	IPvlanModes = map[string]uint16{"l2": 0, "l3": 1, "l3s": 2}
	IPvlanFlags = map[string]uint16{"bridge": 0, "private": 1, "vepa": 2}
)

// NewMacvlan makes a link with a hardware address of its own on its parent's wire; it is down.
func NewMacvlan(name string, on Lower, mode uint32, mac net.HardwareAddr, mtu int) Change {
	c, info := newLink("make macvlan "+name, "macvlan", name, mtu)
	info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.IFLA_MACVLAN_MODE, nl.Uint32Attr(mode))
	on.add(&c, mac)
	return c
}

// NewIPvlan makes a link that shares its parent's hardware address; it is down. EOPNOTSUPP: the kernel has none.
func NewIPvlan(name string, on Lower, mode, flag uint16, mtu int) Change {
	c, info := newLink("make ipvlan "+name, "ipvlan", name, mtu)
	data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	data.AddRtAttr(nl.IFLA_IPVLAN_MODE, nl.Uint16Attr(mode))
	data.AddRtAttr(nl.IFLA_IPVLAN_FLAG, nl.Uint16Attr(flag))
	on.add(&c, nil)
	return c
}

// NewVLAN makes the link of a tagged network (802.1Q) on a parent.
func NewVLAN(name string, on Lower, id uint16) Change {
	c, info := newLink("make VLAN link "+name, "vlan", name, 0)
	info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.IFLA_VLAN_ID, nl.Uint16Attr(id))
	on.add(&c, nil)
	return c
}

// SetUp brings the link up.
func SetUp(index int) Change {
	c, msg := setLink(fmt.Sprintf("bring link %d up", index), index)
	msg.Flags, msg.Change = unix.IFF_UP, unix.IFF_UP
	return c
}

// SetMTU sets the link's MTU in bytes.
func SetMTU(index, mtu int) Change {
	c, _ := setLink(fmt.Sprintf("set the MTU of link %d to %d", index, mtu), index)
	c.req.AddData(nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(mtu))))
	return c
}

// SetMAC gives the link a hardware address; a veth may be up meanwhile.
func SetMAC(index int, mac net.HardwareAddr) Change {
	c, _ := setLink(fmt.Sprintf("set the address of link %d to %s", index, mac), index)
	c.req.AddData(nl.NewRtAttr(unix.IFLA_ADDRESS, mac))
	return c
}

// SetAlias writes a remark that ip link shows; 255 bytes at most.
func SetAlias(index int, alias string) Change {
	c, _ := setLink(fmt.Sprintf("set the alias of link %d", index), index)
	c.req.AddData(nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(alias)))
	return c
}

// SetAliasOf is SetAlias for a link whose index is not known yet, such as one made by the Change before.
func SetAliasOf(name, alias string) Change {
	c, _ := setLink("set the alias of link "+name, 0)
	c.req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	c.req.AddData(nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(alias)))
	return c
}

// SetMaster makes the link a port of the bridge; 0 takes it off. EXFULL when the bridge has BridgePorts already.
func SetMaster(index, bridge int) Change {
	c, _ := setLink(fmt.Sprintf("attach link %d to bridge %d", index, bridge), index)
	c.req.AddData(nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(bridge))))
	return c
}

// SetHairpin lets the bridge send a frame back to the port that it came from.
func SetHairpin(index int) Change {
	return bridgePort(fmt.Sprintf("set hairpin mode of link %d", index), index, nl.IFLA_BRPORT_MODE)
}

// SetIsolated lets the bridge send no frame between this port and others that are isolated (since Linux 4.18).
func SetIsolated(index int) Change {
	const isolated = 33 // IFLA_BRPORT_ISOLATED, linux/if_link.h
	return bridgePort(fmt.Sprintf("isolate link %d", index), index, isolated)
}

// bridgePort switches a property of a bridge's port on.
func bridgePort(what string, index, property int) Change {
	req := nl.NewNetlinkRequest(unix.RTM_SETLINK, 0)
	msg := nl.NewIfInfomsg(unix.AF_BRIDGE)
	msg.Index = int32(index)
	req.AddData(msg)
	port := nl.NewRtAttr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
	port.AddRtAttr(property, []byte{1})
	req.AddData(port)
	return Change{what, req}
}

// Delete removes a link; that of a veth takes its peer along, and 16 ms or more.
func Delete(index int) Change {
	req := nl.NewNetlinkRequest(unix.RTM_DELLINK, 0)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	req.AddData(msg)
	return Change{fmt.Sprintf("delete link %d", index), req}
}
