package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
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
	bridgeAlias   = "berth bridge" // tells a bridge that we made from anybody else's
)

// Bridge is the default network. Its methods may be called from any goroutine.
type Bridge struct {
	cfg   Config
	state state
	index int
	warn  func(string)

	lock     net.Listener  // one engine per bridge and network namespace
	host     *netlink.Conn // for Attach
	fw       *nft.Conn
	pool     *pool
	forward  *forwarding
	departed *departures

	background sync.WaitGroup // what Attach leaves for later

	mu        sync.Mutex // guards what follows; never held while links change
	restored  bool
	closed    bool
	ledger    *ledger
	ports     *portTable
	endpoints map[string]*held // by endpoint ID
}

// state is on disk: what must be the same after a restart.
type state struct {
	ID     string // of the network
	Bridge string
	Made   bool // by us
	Subnet netip.Prefix
	MTU    int
}

// held is what an endpoint in use holds.
type held struct {
	endpoint  Endpoint
	ns        *os.File // nil before Attach and after a restart
	published bool
}

// Open makes the bridge and our nftables table or adopts those that a former
// daemon left; traffic of running containers is not interrupted. Restore must be called once, with all endpoints that are in
// use (or none), before Reserve and Attach. A second engine on the same bridge is fault.Conflict.
func Open(ctx context.Context, c Config) (b *Bridge, err error) {
	b = &Bridge{cfg: c, warn: c.Warn, endpoints: map[string]*held{}, ports: newPortTable()}
	if b.warn == nil {
		b.warn = func(string) {}
	}
	if b.cfg.Bridge == "" {
		b.cfg.Bridge = defaultBridge
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open network bridge %s: %w", b.cfg.Bridge, err), b.Close())
			b = nil
		}
	}()
	if len(b.cfg.Bridge) > netlink.NameLimit || strings.ContainsAny(b.cfg.Bridge, "/ \"\\") {
		return b, fault.New(fault.Invalid, "%q is not the name of a link: at most %d bytes, no slash and no blank", b.cfg.Bridge, netlink.NameLimit)
	}
	wires := b.cfg.Pool
	switch {
	case b.cfg.Bridge == noBridge || wires < 0:
		wires = 0
	case wires == 0:
		wires = defaultPool
	}
	if b.cfg.Bridge != noBridge {
		if err := b.openBridge(); err != nil {
			return b, err
		}
	}
	b.pool, err = newPool(wires, plainReady, b.state.MTU, b.warn)
	return b, err
}

func (b *Bridge) openBridge() (err error) {
	// A name in the abstract socket space is per network namespace and goes with its owner.
	if b.lock, err = net.Listen("unix", "@berth/network/"+b.cfg.Bridge); err != nil {
		return fault.New(fault.Conflict, "another engine runs on it in this network namespace; stop that one or name another bridge (--bridge)")
	}
	if err = os.MkdirAll(b.cfg.Dir, 0o700); err != nil {
		return err
	}
	if err = record.Sweep(b.cfg.Dir); err != nil {
		return err
	}
	if b.host, err = netlink.Open(); err != nil {
		return err
	}
	if b.fw, err = nft.Open(); err != nil {
		return err
	}
	if err = b.makeBridge(); err != nil {
		return err
	}
	b.ledger = newLedger(b.state.Subnet)
	b.forward, err = openForwarding(b.cfg.Dir, b.cfg.Bridge, b.Table(), b.fw, b.warn)
	if err != nil {
		return err
	}
	there, err := b.fw.Exists(b.Table())
	if err != nil {
		return err
	}
	if !there {
		if err := b.writeTable(nil, nil); err != nil {
			return err
		}
	}
	if err := b.localnet(); err != nil {
		return err
	}
	b.departed, err = newDepartures(b.freeAddress, b.warn)
	return err
}

func (b *Bridge) statePath() string { return filepath.Join(b.cfg.Dir, "bridge.json") }

// makeBridge makes or adopts the link and gives it its address.
func (b *Bridge) makeBridge() error {
	had := state{}
	if err := record.Load(b.statePath(), &had); err != nil && !errors.Is(err, fault.NotFound) {
		return err
	}
	if had.Bridge != b.cfg.Bridge {
		had = state{ID: had.ID}
	}
	if had.ID == "" {
		had.ID = randomHex(32)
	}
	link, err := b.host.Link(b.cfg.Bridge)
	exists := err == nil
	if err != nil && !errors.Is(err, netlink.ErrNoLink) {
		return err
	}
	if exists && link.Kind != "bridge" {
		return fault.New(fault.Conflict, "a link of that name exists and is no bridge but a %s; name another bridge (--bridge)", link.Kind)
	}
	b.state = state{ID: had.ID, Bridge: b.cfg.Bridge, Made: !exists || link.Alias == bridgeAlias}
	b.index = link.Index
	if !b.state.Made {
		err = b.adoptForeign(link)
	} else {
		err = b.shapeOwn(link, exists, had)
	}
	if err != nil {
		return err
	}
	return record.Save(b.statePath(), b.state)
}

// adoptForeign takes a bridge that the administrator made, as it is.
func (b *Bridge) adoptForeign(link netlink.Link) error {
	addresses, err := b.addresses()
	if err != nil {
		return err
	}
	if len(addresses) == 0 {
		return fault.New(fault.Invalid, "this bridge was not made by us and has no IPv4 address; give it one (ip address add ADDRESS/BITS dev %s)", b.cfg.Bridge)
	}
	if b.cfg.BIP.IsValid() && b.cfg.BIP != addresses[0] {
		return fault.New(fault.Invalid, "this bridge was not made by us and has address %s; an address of its own (--bip %s) needs a bridge of ours", addresses[0], b.cfg.BIP)
	}
	b.state.Subnet, b.state.MTU = addresses[0], link.MTU
	return nil
}

// shapeOwn brings our bridge to what is wanted, whatever a killed start left of it.
func (b *Bridge) shapeOwn(link netlink.Link, exists bool, had state) error {
	has, err := b.pickSubnet(exists, had.Subnet)
	if err != nil {
		return err
	}
	if b.state.MTU, err = defaultMTU(); err != nil {
		return err
	}
	if !exists {
		err := b.host.Apply( // one system call, so that no kill leaves a bridge that isn't marked
			netlink.NewBridge(b.cfg.Bridge, macOf(b.state.Subnet.Addr()), b.state.MTU),
			netlink.SetAliasOf(b.cfg.Bridge, bridgeAlias))
		if err != nil {
			return err
		}
		if link, err = b.host.Link(b.cfg.Bridge); err != nil {
			return err
		}
		b.index = link.Index
	}
	var changes []netlink.Change
	for _, a := range has {
		if a != b.state.Subnet {
			changes = append(changes, netlink.RemoveAddress(b.index, a))
		}
	}
	if !slices.Contains(has, b.state.Subnet) {
		changes = append(changes, netlink.AddAddress(b.index, b.state.Subnet))
	}
	if link.Alias != bridgeAlias { // NewBridge's alias is for newer kernels: 6.18 still ignores it at creation
		changes = append(changes, netlink.SetAlias(b.index, bridgeAlias))
	}
	if link.MTU != b.state.MTU {
		changes = append(changes, netlink.SetMTU(b.index, b.state.MTU))
	}
	// No addresses of IPv6 where the containers have none.
	if err := setSysctl("net/ipv6/conf/"+b.cfg.Bridge+"/disable_ipv6", "1"); err != nil {
		return err
	}
	return b.host.Apply(append(changes, netlink.SetUp(b.index))...)
}

// pickSubnet decides the bridge's address and returns those that it has. Containers that run keep theirs.
func (b *Bridge) pickSubnet(exists bool, had netip.Prefix) (has []netip.Prefix, err error) {
	own := -1
	if exists {
		own = b.index
		if has, err = b.addresses(); err != nil {
			return nil, err
		}
	}
	taken, err := uses(own)
	if err != nil {
		return nil, err
	}
	if len(has) > 0 {
		had = has[0]
		n, err := b.portCount()
		if err != nil {
			return nil, err
		}
		if n > 0 && !b.cfg.BIP.IsValid() {
			if what := clash(had, taken); what != "" {
				b.warn(fmt.Sprintf("bridge %s keeps address %s as containers run on it, but its subnet overlaps with the %s", b.cfg.Bridge, had, what))
			}
			b.state.Subnet = had
			return has, nil
		}
		if n > 0 && b.cfg.BIP != had {
			return nil, fault.New(fault.Conflict, "it has address %s, which running containers use; stop them, or keep that address (--bip %s)", had, had)
		}
	}
	b.state.Subnet, err = choose(b.cfg.BIP, had, taken)
	return has, err
}

// localnet lets 127.0.0.1 lead to a container's port; the table's guard closes what this opens.
func (b *Bridge) localnet() error {
	name := "net/ipv4/conf/" + b.cfg.Bridge + "/route_localnet"
	if b.state.Made {
		return setSysctl(name, "1")
	}
	return errors.Join(b.forward.set(name, "1"), b.forward.set(forwardSwitch(b.cfg.Bridge), "1"))
}

// addresses are the bridge's IPv4 addresses.
func (b *Bridge) addresses() (own []netip.Prefix, err error) {
	all, err := netlink.Addresses()
	for _, a := range all {
		if a.Link == b.index && a.Prefix.Addr().Is4() {
			own = append(own, a.Prefix)
		}
	}
	return own, err
}

// portCount is how many links are attached.
func (b *Bridge) portCount() (n int, err error) {
	links, err := netlink.Links()
	for _, l := range links {
		if l.Master == b.index {
			n++
		}
	}
	return n, err
}

// macOf derives a hardware address (locally administered) from an IPv4 address: unique on the bridge, and the same
// whenever that address is used again, so that no neighbour's table is ever wrong.
func macOf(a netip.Addr) net.HardwareAddr {
	ip := a.As4()
	return append(net.HardwareAddr{0x02, 0x42}, ip[:]...)
}

// Close ends the pool and gives up the held host ports; bridge, table and the
// links of running containers stay for the next Open.
func (b *Bridge) Close() (err error) {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	err = b.ports.closeAll()
	for _, h := range b.endpoints {
		if h.ns != nil {
			err = errors.Join(err, h.ns.Close())
		}
	}
	clear(b.endpoints)
	b.mu.Unlock()
	b.background.Wait()
	if b.forward != nil {
		b.forward.close()
	}
	if b.pool != nil {
		err = errors.Join(err, b.pool.close())
	}
	if b.departed != nil {
		err = errors.Join(err, b.departed.close())
	}
	if b.host != nil {
		err = errors.Join(err, b.host.Close())
	}
	if b.fw != nil {
		err = errors.Join(err, b.fw.Close())
	}
	if b.lock != nil {
		err = errors.Join(err, b.lock.Close())
	}
	return err
}

// Cleanup removes the bridge, our table and the forwarding settings, and
// closes b. Containers that still run lose their network.
func (b *Bridge) Cleanup() error {
	if b.cfg.Bridge == noBridge {
		return b.Close()
	}
	b.forward.close()
	err := b.forward.restore() // before the rules go that confine it
	err = errors.Join(err, b.fw.Remove(b.Table()))
	links, lerr := netlink.Links()
	err = errors.Join(err, lerr)
	for _, l := range links {
		ours := strings.HasPrefix(l.Name, linkPrefix) && l.Master == b.index
		if ours || (b.state.Made && l.Index == b.index) {
			if derr := b.host.Apply(netlink.Delete(l.Index)); derr != nil && !errors.Is(derr, netlink.ErrNoLink) {
				err = errors.Join(err, derr)
			}
		}
	}
	if rerr := os.Remove(b.statePath()); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	return errors.Join(err, b.Close())
}

// ID is the network's own, 64 hex digits, stable over restarts.
func (b *Bridge) ID() string { return b.state.ID }

// Name is the bridge's link, such as "berth0"; empty when there is none.
func (b *Bridge) Name() string { return b.state.Bridge }

// Table is the name of our nftables table.
func (b *Bridge) Table() string { return tableName(b.cfg.Bridge) }

// Subnet is the bridge's address and prefix length, such as 172.17.0.1/16.
func (b *Bridge) Subnet() netip.Prefix { return b.state.Subnet }

// MTU is that of the bridge and of every container's eth0, in bytes.
func (b *Bridge) MTU() int { return b.state.MTU }
