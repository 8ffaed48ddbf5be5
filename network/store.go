package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"berth/fault"
	"berth/internal/record"
	"berth/kernel/netlink"
	"berth/kernel/nft"
	"berth/network/ipam"
)

// network is one as it stands. Its Spec never changes.
type network struct {
	Spec
	driver  driver
	options optionSet
	link    string // the bridge or the parent on the host; "" when there is none
	index   int    // of the link
	made    bool   // the link is ours
	mtu     int    // bytes
	ledgers []*ipam.Ledger
	broken  error // why nobody can be on it; nil: all is well
}

// kept is the record of a network.
type kept struct {
	Version int
	Spec    Spec
	Made    bool // its link is ours, to be removed with it
}

const keptVersion = 1

func (c Config) path(id string) string { return filepath.Join(c.recordDir(), id+".json") }

// networkSet is networks by their IDs.
type networkSet map[string]*network

// byName finds a network by its full name.
func (s networkSet) byName(name string) *network {
	for _, n := range s {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// openNetworks makes or adopts all that are recorded, and the default one.
func (h *Host) openNetworks() error {
	files, err := os.ReadDir(h.cfg.recordDir())
	if err != nil {
		return err
	}
	var standard *kept
	var others []*kept
	for _, f := range files {
		k := &kept{}
		if err := record.Load(filepath.Join(h.cfg.recordDir(), f.Name()), k); err != nil {
			h.warn(fmt.Sprintf("a network is left out: %v", err))
			continue
		}
		switch {
		case k.Version != keptVersion:
			return fault.New(fault.Unsupported, "%s has format %d, this program reads %d", f.Name(), k.Version, keptVersion)
		case k.Spec.Name == DefaultName:
			standard = k
		default:
			others = append(others, k)
		}
	}
	if h.cfg.Bridge != noBridge {
		if err := openDefault(h, standard); err != nil {
			return fmt.Errorf("bridge %s: %w", h.cfg.Bridge, err)
		}
	}
	for _, k := range others {
		n, err := newNetwork(k.Spec)
		if err == nil && !n.ConfigOnly {
			n.made = k.Made
			err = n.driver.open(h, n)
		}
		if n == nil {
			h.warn(fmt.Sprintf("network %s is left out: %v", k.Spec.Name, err))
			continue
		}
		if n.broken = err; err != nil {
			h.warn(fmt.Sprintf("network %s can't be used: %v", n.Name, err))
		}
		h.networks[n.ID] = n
	}
	return sweepLinks(h)
}

// sweepLinks removes links that a killed removal left: ours by their mark, and of no network.
func sweepLinks(h *Host) error {
	links, err := netlink.Links()
	if err != nil {
		return err
	}
	for _, l := range links {
		id, ours := strings.CutPrefix(l.Alias, h.cfg.mark(""))
		if !ours || h.networks[id] != nil {
			continue
		}
		if err := h.links.Apply(netlink.Delete(l.Index)); err != nil && !errors.Is(err, netlink.ErrNoLink) {
			h.warn(fmt.Sprintf("remove link %s of a network that is gone: %v", l.Name, err))
		}
	}
	return nil
}

// ourMark begins the remark on every link that we make for a network, of whatever engine.
const ourMark = "berth network "

// mark tells a link that we made for a network from anybody else's, and from another engine's.
func (c Config) mark(id string) string { return ourMark + c.table() + " " + id }

// newNetwork reads what a recorded network is; its links are the driver's business.
func newNetwork(s Spec) (*network, error) {
	n := &network{Spec: s}
	if s.ConfigOnly {
		return n, nil
	}
	d, ok := drivers[s.Driver]
	if !ok {
		return nil, fault.New(fault.NotFound, "could not find plugin %s in v1 plugin registry: plugin not found; the drivers for networks are %s",
			s.Driver, strings.Join(slices.Sorted(maps.Keys(drivers)), ", "))
	}
	n.driver = d
	var err error
	if n.options, err = d.read(&n.Spec); err != nil {
		return nil, err
	}
	for _, p := range s.Pools {
		n.ledgers = append(n.ledgers, ipam.NewLedger(p))
	}
	return n, nil
}

// Create makes a network of what is asked for and returns it completed; ID and Created are set. What it needs is on disk
// before anything is made. fault.Conflict: the name is taken, or the subnet, and by what; fault.Invalid: an option; fault.NotFound: no such driver.
func (h *Host) Create(ctx context.Context, s Spec) (*Spec, error) {
	h.admin.Lock()
	defer h.admin.Unlock()
	h.mu.Lock()
	err := h.usable()
	taken := h.networks.byName(s.Name) != nil || s.Name == "host" || s.Name == "none"
	h.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if taken {
		return nil, fault.New(fault.Conflict, "network with name %s already exists", s.Name) // these words alone: tools compare them
	}
	made, err := h.make(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("create network %s: %w", s.Name, err)
	}
	return made, nil
}

func (h *Host) make(ctx context.Context, s Spec) (*Spec, error) {
	if s.Driver == "" {
		s.Driver = "bridge"
	}
	s.Options = h.cfg.withDefaults(s.Driver, s.Options)
	s.ID, s.Created = randomHex(32), time.Now().UTC()
	n, err := newNetwork(s)
	if err != nil {
		return nil, err
	}
	if n.ConfigOnly {
		return h.admit(n)
	}
	if err := addressed(h, n); err != nil {
		return nil, err
	}
	k := kept{Version: keptVersion, Spec: n.Spec, Made: true}
	// From here on a kill leaves a record, and the next Open makes the rest.
	if err := record.Save(h.cfg.path(n.ID), k); err != nil {
		return nil, err
	}
	n.made = true
	undo := func(err error) error {
		return errors.Join(err, h.forget(n))
	}
	if err := n.driver.open(h, n); err != nil {
		return nil, undo(err)
	}
	if n.made != k.Made {
		k.Made = n.made
		if err := record.Save(h.cfg.path(n.ID), k); err != nil {
			return nil, undo(err)
		}
	}
	if err := errors.Join(haveTables(h, n), enter(h, n)); err != nil {
		return nil, undo(err)
	}
	made, err := h.admit(n)
	if err == nil && n.driver.forwards {
		err = errors.Join(h.forward.ensure(), h.forward.follow())
		if h.others.look().withFirewalld() {
			if zerr := joinZone(ctx, n.link); zerr != nil {
				h.warn(fmt.Sprintf("put %s into the zone %s of firewalld: %v", n.link, zone, zerr))
			}
		}
	}
	return made, err
}

// withDefaults adds the options that networks of a driver get unless they say otherwise.
func (c Config) withDefaults(driver string, options map[string]string) map[string]string {
	all := maps.Clone(c.Options[driver])
	if all == nil {
		return options
	}
	maps.Copy(all, options)
	return all
}

// admit shows a network to others.
func (h *Host) admit(n *network) (*Spec, error) {
	if n.ConfigOnly {
		if err := record.Save(h.cfg.path(n.ID), kept{Version: keptVersion, Spec: n.Spec}); err != nil {
			return nil, err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.networks[n.ID] = n
	made := n.Spec
	return &made, nil
}

// haveTables writes the tables for the first network that needs them.
func haveTables(h *Host, n *network) error {
	if !n.driver.forwards {
		return nil
	}
	there, err := h.wall.fw.Exists(nft.IPv4, h.Table())
	if err != nil || there {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.writeTables()
}

// enter writes a network's rules.
func enter(h *Host, n *network) error {
	var changes []nft.Change
	for _, f := range h.wall.families() {
		if p, ok := n.policy(f); ok {
			changes = append(changes, p.enter(f, h.Table()))
		}
	}
	if len(changes) == 0 {
		return nil
	}
	return h.update(changes...)
}

// forget takes everything of a network away; the record goes last.
func (h *Host) forget(n *network) error {
	var changes []nft.Change
	for _, f := range h.wall.families() {
		if p, ok := n.policy(f); ok {
			changes = append(changes, p.leave(f, h.Table()))
		}
	}
	var err error
	if len(changes) > 0 {
		if err = h.wall.fw.Update(changes...); errors.Is(err, fs.ErrNotExist) {
			err = nil // another program took them, or they never came to be
		}
	}
	if n.driver.forwards && n.link != "" && h.others.recent(&h.background, true).withFirewalld() {
		leaveZone(context.Background(), n.link)
	}
	if n.made && n.driver.close != nil {
		err = errors.Join(err, n.driver.close(h, n))
	}
	h.forward.drop(n.link)
	if err != nil {
		return err
	}
	if err := os.Remove(h.cfg.path(n.ID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Remove removes a network that nobody is on. fault.NotFound; fault.Denied: containers are on it, by their IDs, or it is the default one.
func (h *Host) Remove(id string) error {
	h.admin.Lock()
	defer h.admin.Unlock()
	h.mu.Lock()
	n := h.networks[id]
	err := h.usable()
	var users []string
	for _, held := range h.attached {
		if held.attachment.On(id) != nil {
			users = append(users, short(held.attachment.ContainerID))
		}
	}
	switch {
	case err != nil:
	case n == nil:
		err = fault.New(fault.NotFound, "network %s not found", id)
	case n.Name == DefaultName:
		err = fault.New(fault.Denied, "%s is a pre-defined network and cannot be removed", n.Name)
	case len(users) > 0:
		slices.Sort(users)
		err = fault.New(fault.Denied, "error while removing network: network %s has active endpoints (containers %s): disconnect or stop them first", n.Name, strings.Join(users, ", "))
	default:
		delete(h.networks, id) // nobody gets on it any more
	}
	h.mu.Unlock()
	if err != nil {
		return err
	}
	if err := h.forget(n); err != nil {
		h.mu.Lock()
		h.networks[id] = n
		h.mu.Unlock()
		return fmt.Errorf("remove network %s: %w", n.Name, err)
	}
	return nil
}

// List returns all networks of ours, the oldest first.
func (h *Host) List() []Spec {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]Spec, 0, len(h.networks))
	for _, n := range h.networks {
		all = append(all, n.Spec)
	}
	slices.SortFunc(all, func(a, b Spec) int { return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID)) })
	return all
}

// ID is that of the network with a full name; "" when there is none.
func (h *Host) ID(name string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := h.networks.byName(name); n != nil {
		return n.ID
	}
	return ""
}

// Get returns a network by its ID; false: there is none.
func (h *Host) Get(id string) (Spec, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := h.networks[id]; n != nil {
		return n.Spec, true
	}
	return Spec{}, false
}

// Default returns the network that containers are on unless they ask for another; false: it is switched off.
func (h *Host) Default() (Spec, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := h.networks.byName(DefaultName); n != nil {
		return n.Spec, true
	}
	return Spec{}, false
}

// Link is the name of a network's link on the host, its bridge or parent; "" when it has none.
func (h *Host) Link(id string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := h.networks[id]; n != nil {
		return n.link
	}
	return ""
}

// addressed gives a network the subnets that it did not ask for, and checks those that it did against everything that is known.
func addressed(h *Host, n *network) error {
	taken, err := uses(0)
	if err != nil {
		return err
	}
	h.mu.Lock()
	for _, other := range h.networks {
		if other.ConfigOnly {
			continue
		}
		for _, p := range other.Pools {
			taken = append(taken, ipam.Use{Subnet: p.Subnet, What: "network " + other.Name})
		}
	}
	h.mu.Unlock()
	bare := n.driver.bare(n)
	var has [2]bool
	for k, p := range n.Pools {
		has[family(p.Subnet.Addr())] = true
		// A network of a host's own wire is where that wire's addresses are.
		if what := ipam.Clash(p.Subnet, taken); what != "" && (!n.driver.shares || strings.HasPrefix(what, "network ")) {
			return fault.New(fault.Denied, "invalid pool request: Pool overlaps with other one on this address space: subnet %s overlaps with the %s; choose another one (--subnet)", p.Subnet, what)
		}
		if n.Pools[k], err = p.Complete(bare); err != nil {
			return err
		}
	}
	if n.IPv4 && !has[0] {
		p, err := ipam.Cut(h.cfg.sources(), taken)
		if err != nil {
			return err
		}
		n.Pools = append(n.Pools, ipam.Pool{Subnet: p})
	}
	if n.IPv6 && !has[1] {
		n.Pools = append(n.Pools, ipam.Pool{Subnet: ipam.Local(machineID(), n.ID)})
	}
	n.ledgers = nil
	for k, p := range n.Pools {
		if n.Pools[k], err = p.Complete(bare); err != nil {
			return err
		}
		n.ledgers = append(n.ledgers, ipam.NewLedger(n.Pools[k]))
	}
	return nil
}

func family(a netip.Addr) int {
	if a.Is6() {
		return 1
	}
	return 0
}

// machineID is the machine's own (machine-id(5)); else its name.
func machineID() string {
	data, err := os.ReadFile("/etc/machine-id")
	if id := strings.TrimSpace(string(data)); err == nil && id != "" {
		return id
	}
	name, _ := os.Hostname() // its failure leaves "", a seed as good as another
	return name
}
