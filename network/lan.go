package network

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"berth/fault"
	"berth/kernel/netlink"
)

// macvlanDriver and ipvlanDriver put containers on a wire of the host's: as machines of their own beside it, or with the
// host's hardware address.
var (
	macvlanDriver = driver{shares: true, read: readMacvlan, bare: onlyInternal, open: openParent, close: deleteLink, plug: plugMacvlan}
	ipvlanDriver  = driver{shares: true, read: readIPvlan, bare: bareIPvlan, open: openParent, close: deleteLink, plug: plugIPvlan}
)

func onlyInternal(n *network) bool { return n.Internal }

// In the third layer the link itself is the way: there is no neighbour to ask.
func bareIPvlan(n *network) bool { return n.Internal || n.options.submode != "l2" }

func readMacvlan(s *Spec) (optionSet, error) {
	o := &options{values: s.Options}
	set := readLAN(o)
	set.submode = o.one(optionMacvlan, "bridge", "private", "vepa", "passthru")
	return set, o.err
}

func readIPvlan(s *Spec) (optionSet, error) {
	o := &options{values: s.Options}
	set := readLAN(o)
	set.submode = o.one(optionIPvlan, "l2", "l3", "l3s")
	set.flag = o.one(optionFlag, slices.Sorted(maps.Keys(netlink.IPvlanFlags))...)
	return set, o.err
}

func readLAN(o *options) optionSet {
	return optionSet{link: o.text(optionParent, ""), mtu: o.number(optionMTU, 68, 65535), prefix: o.text(optionPrefix, "eth")}
}

// openParent finds the link that the containers' links stand on. A name such as eth0.10 is the tagged network 10 on eth0, and is
// made when it is missing. An internal network without a parent stands on a link to nowhere.
func openParent(h *Host, n *network) error {
	n.link = n.options.link
	if n.link == "" {
		if !n.Internal && n.Driver == "macvlan" {
			n.Internal = true // as the field has it: without a parent there is no way out
		}
		n.link = "dm-" + n.ID[:12]
	}
	if !goodParent(n.link) {
		return fault.New(fault.Invalid, "parent %q is not the name of a link", n.link)
	}
	link, err := h.links.Link(n.link)
	if errors.Is(err, netlink.ErrNoLink) {
		if err = makeParent(h, n); err == nil {
			link, err = h.links.Link(n.link)
		}
	}
	if err != nil {
		return err
	}
	n.index, n.made = link.Index, link.Alias == h.cfg.mark(n.ID)
	if n.mtu = n.options.mtu; n.mtu == 0 {
		n.mtu = link.MTU
	}
	if n.made && !link.Up {
		return h.links.Apply(netlink.SetUp(n.index))
	}
	return nil
}

func goodParent(name string) bool { return goodLink(name) && name != "lo" }

// makeParent makes a link that is missing, with our mark.
func makeParent(h *Host, n *network) error {
	mark := netlink.SetAliasOf(n.link, h.cfg.mark(n.ID))
	if n.options.link == "" {
		return h.links.Apply(netlink.NewBridge(n.link, nil, 0), mark) // one without ports: more kernels have it than dummy links
	}
	below, tag, ok := strings.Cut(n.link, ".")
	id, err := strconv.ParseUint(tag, 10, 16)
	if !ok || err != nil || id == 0 || id > 4094 {
		return fault.New(fault.Invalid, "parent link %s does not exist; name one of this host's (ip link), or LINK.TAG with a tag from 1 to 4094 for a tagged network", n.link)
	}
	parent, err := h.links.Link(below)
	if err != nil {
		return fault.New(fault.Invalid, "parent link %s does not exist, so %s can't be made on it: %w", below, n.link, err)
	}
	return h.links.Apply(netlink.NewVLAN(n.link, netlink.Lower{Parent: parent.Index}, uint16(id)), mark)
}

func plugMacvlan(_ context.Context, h *Host, n *network, in *inside, e *Endpoint, w wiring) error {
	mode := netlink.MacvlanModes[n.options.submode]
	on := netlink.Lower{Parent: n.index, Inside: in.ns}
	if err := h.links.Apply(netlink.NewMacvlan(e.Interface, on, mode, w.mac, n.mtu)); err != nil {
		return unsupported(n.Driver, err)
	}
	return settleInside(n, in, e, w)
}

func plugIPvlan(_ context.Context, h *Host, n *network, in *inside, e *Endpoint, w wiring) error {
	mode, flag := netlink.IPvlanModes[n.options.submode], netlink.IPvlanFlags[n.options.flag]
	on := netlink.Lower{Parent: n.index, Inside: in.ns}
	if err := h.links.Apply(netlink.NewIPvlan(e.Interface, on, mode, flag, n.mtu)); err != nil {
		return unsupported(n.Driver, err)
	}
	return settleInside(n, in, e, wiring{way: w.way})
}

func unsupported(driver string, err error) error {
	if errors.Is(err, netlink.ErrNoKind) {
		return fault.New(fault.Unsupported, "this kernel has no %s links: %w; load the module (modprobe %s) or use another driver", driver, err, driver)
	}
	return err
}

// settleInside configures a link that was born in the namespace.
func settleInside(n *network, in *inside, e *Endpoint, w wiring) error {
	link, err := in.conn.Link(e.Interface)
	if err != nil {
		return fmt.Errorf("find the link just made: %w", err)
	}
	w.mac, w.ready = nil, nil
	e.MAC = link.MAC.String()
	return configure(n, in, e, link.Index, w)
}
