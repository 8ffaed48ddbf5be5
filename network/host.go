package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"berth/fault"
	"berth/internal/record"
	"berth/kernel/netlink"
	"berth/kernel/nft"
)

const (
	defaultBridge = "berth0"
	noBridge      = "none"
	defaultPool   = 8
)

// Host is the networks of one engine. Its methods may be called from any goroutine.
type Host struct {
	cfg  Config
	warn func(string)

	lock     net.Listener  // one engine per default bridge and network namespace
	links    *netlink.Conn // for all but the pool and the departures
	wall     wall
	pool     *pool
	forward  *forwarding
	departed *departures
	others   others

	background sync.WaitGroup // what an attachment leaves for later

	admin sync.Mutex // held by who makes or removes a network

	mu       sync.Mutex // guards what follows; never held while links change
	restored bool
	closed   bool
	networks networkSet
	ports    *portTable
	attached map[string]*held // by the ID of the attachment
}

// held is what an attachment in use holds.
type held struct {
	attachment Attachment
	ns         *os.File // nil before Take and after a restart
	published  bool
	wired      bool // Take has begun
}

// Open makes the networks and our nftables tables or adopts those that a former
// daemon left; traffic of running containers is not interrupted. Restore must be called once, with all attachments that are in
// use (or none), before Reserve. A second engine on the same default bridge is fault.Conflict. A network that can't be had, but for the default one,
// is told of by Warn and by whoever wants to be on it.
func Open(ctx context.Context, c Config) (h *Host, err error) {
	h = &Host{cfg: c, warn: c.Warn, networks: networkSet{}, attached: map[string]*held{}, ports: newPortTable(),
		others: others{told: map[string]bool{}, shown: map[string]bool{}}}
	if h.warn == nil {
		h.warn = func(string) {}
	}
	if h.cfg.Bridge == "" {
		h.cfg.Bridge = defaultBridge
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open networks: %w", err), h.Close())
			h = nil
		}
	}()
	if len(h.cfg.Bridge) > netlink.NameLimit || strings.ContainsAny(h.cfg.Bridge, "/ \"\\") {
		return h, fault.New(fault.Invalid, "%q is not the name of a link: at most %d bytes, no slash and no blank", h.cfg.Bridge, netlink.NameLimit)
	}
	if err := h.openHost(); err != nil {
		return h, err
	}
	mtu, err := defaultMTU()
	if err != nil {
		return h, err
	}
	wires := h.cfg.Pool
	standard := h.networks.byName(DefaultName)
	switch {
	case standard == nil || wires < 0:
		wires = 0
	case wires == 0:
		wires = defaultPool
	}
	if standard != nil {
		mtu = standard.mtu
	}
	h.pool, err = newPool(wires, plainReady, mtu, h.warn)
	return h, err
}

func (h *Host) openHost() (err error) {
	// A name in the abstract socket space is per network namespace and goes with its owner.
	if h.lock, err = net.Listen("unix", "@berth/network/"+h.Table()); err != nil {
		return fault.New(fault.Conflict, "another engine runs on bridge %s in this network namespace; stop that one or name another bridge (--bridge)", h.cfg.Bridge)
	}
	if err = os.MkdirAll(h.cfg.recordDir(), 0o700); err != nil {
		return err
	}
	if err = errors.Join(record.Sweep(h.cfg.Dir), record.Sweep(h.cfg.recordDir())); err != nil {
		return err
	}
	if h.links, err = netlink.Open(); err != nil {
		return err
	}
	if h.wall.fw, err = nft.Open(); err != nil {
		return err
	}
	_, noIPv6 := os.Stat("/proc/sys/net/ipv6")
	h.wall.table, h.wall.ipv6 = h.Table(), noIPv6 == nil
	h.forward, err = openForwarding(h.cfg.Dir, h.Table(), h.wall.fw, h.warn)
	if err != nil {
		return err
	}
	h.forward.off = h.cfg.NoForwarding
	if h.forward.off && getSysctl("net/ipv4/conf/all/forwarding") == "0" {
		h.warn("this host forwards nothing (net.ipv4.ip_forward=0), and --ip-forward=false leaves that as it is: containers reach each other and this host alone, and ports are published to it alone")
	}
	if err := h.openNetworks(); err != nil {
		return err
	}
	there, err := h.wall.fw.Exists(nft.IPv4, h.Table())
	if err != nil {
		return err
	}
	if !there && len(h.networks) > 0 {
		if err := h.writeTables(); err != nil {
			return err
		}
	}
	h.departed, err = newDepartures(h.warn)
	return err
}

// writeTables puts the whole rule sets in the place of those that stand. The caller holds mu, or is alone.
func (h *Host) writeTables() error {
	h.forward.mu.Lock()
	defer h.forward.mu.Unlock()
	var tables []*nft.Table
	for _, f := range h.wall.families() {
		t := table(f, h.Table())
		with(t, nil, []nft.Map{{Name: openedLinks, Elements: h.forward.opened(f)}})
		for _, n := range h.networks {
			if p, ok := n.policy(f); ok {
				with(t, p.chains(f), p.elements())
			}
		}
		for _, held := range h.attached {
			if held.published {
				maps, err := held.attachment.elements(held.attachment.Ports, f)
				if err != nil {
					return err
				}
				with(t, nil, maps)
			}
		}
		tables = append(tables, t)
	}
	return h.wall.fw.Replace(tables...)
}

// Close ends the pool and gives up the held host ports; networks, tables and the
// links of running containers stay for the next Open.
func (h *Host) Close() (err error) {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil
	}
	h.closed = true
	err = h.ports.closeAll()
	for _, held := range h.attached {
		if held.ns != nil {
			err = errors.Join(err, held.ns.Close())
		}
	}
	clear(h.attached)
	h.mu.Unlock()
	h.background.Wait()
	if h.forward != nil {
		h.forward.close()
	}
	if h.pool != nil {
		err = errors.Join(err, h.pool.close())
	}
	if h.departed != nil {
		err = errors.Join(err, h.departed.close())
	}
	if h.links != nil {
		err = errors.Join(err, h.links.Close())
	}
	if h.wall.fw != nil {
		err = errors.Join(err, h.wall.fw.Close())
	}
	err = errors.Join(err, h.others.close())
	if h.lock != nil {
		err = errors.Join(err, h.lock.Close())
	}
	return err
}

// Cleanup removes the links, our tables and the forwarding settings, and
// closes h. Containers that still run lose their networks. The records stay: the next Open makes the networks again.
func (h *Host) Cleanup() error {
	h.forward.close()
	err := h.forward.restore() // before the rules go that confine it
	err = errors.Join(err, h.wall.fw.Remove(h.Table()))
	links, lerr := netlink.Links()
	err = errors.Join(err, lerr)
	for _, l := range links {
		for _, n := range h.networks {
			ours := strings.HasPrefix(l.Name, linkPrefix) && l.Master == n.index && n.index != 0
			if ours || n.made && l.Index == n.index {
				if derr := h.links.Apply(netlink.Delete(l.Index)); derr != nil && !errors.Is(derr, netlink.ErrNoLink) {
					err = errors.Join(err, derr)
				}
			}
		}
	}
	return errors.Join(err, h.Close())
}

// Table is the name of our nftables tables, one of each family.
func (h *Host) Table() string { return h.cfg.table() }

func (c Config) recordDir() string { return filepath.Join(c.Dir, "networks") }

// usable tells why nobody can be attached. The caller holds mu.
func (h *Host) usable() error {
	switch {
	case h.closed:
		return fault.New(fault.Unavailable, "networks: closed")
	case !h.restored:
		return fault.New(fault.Unavailable, "networks: not restored yet")
	}
	return nil
}

// Gateway is the default network's bridge's own IPv4 address; zero when there is no default network.
func (h *Host) Gateway() netip.Addr {
	if n := h.networks.byName(DefaultName); n != nil && len(n.Pools) > 0 {
		return n.Pools[0].Gateway
	}
	return netip.Addr{}
}
