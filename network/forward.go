package network

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
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

// forwarding sees to it that packets to and from our bridges are forwarded.
// Where the host is no router (forwarding is 0 for all), it switches on the bridges and those links that have an address,
// one by one, and the tables let them forward nothing but our flows. What it switched is on disk before, and put
// back by restore. Where the host is a router, it writes nothing.
type forwarding struct {
	path  string // of the record
	fw    *nft.Conn
	table string

	mu       sync.Mutex
	bridges  map[string]bool // ours by name; true: with IPv6
	switched switched
	watched  map[int]bool // indexes of the links that must forward
	watch    *netlink.Watch
	done     sync.WaitGroup
	warn     func(string)
	off      bool // nothing is switched
}

// switched is the record of switches that were 0 before us. A reboot makes it void.
type switched struct {
	Boot   string
	Links  map[string]bool   // links that forward IPv4 for our sake
	Links6 map[string]bool   // and IPv6
	Were   map[string]string // other switches, by name below /proc/sys, and what they were
}

func getSysctl(name string) string {
	data, _ := os.ReadFile("/proc/sys/" + name)
	return strings.TrimSpace(string(data))
}

func forwardSwitch(link string) string { return "net/ipv4/conf/" + link + "/forwarding" }

// The switches of IPv6. The one for all makes every link a router's, which then ignores what routers tell; the forced one (since
// Linux 6.17) lets single links forward without that.
const (
	forward6 = "net/ipv6/conf/all/forwarding"
	forced6  = "net/ipv6/conf/all/force_forwarding"
)

func forceSwitch(link string) string    { return "net/ipv6/conf/" + link + "/force_forwarding" }
func acceptRASwitch(link string) string { return "net/ipv6/conf/" + link + "/accept_ra" }

func openForwarding(dir, table string, fw *nft.Conn, warn func(string)) (*forwarding, error) {
	f := &forwarding{path: filepath.Join(dir, "forwarding.json"), table: table, fw: fw, warn: warn, bridges: map[string]bool{}}
	err := record.Load(f.path, &f.switched)
	boot := getSysctl("kernel/random/boot_id")
	if errors.Is(err, fault.NotFound) || (err == nil && f.switched.Boot != boot) {
		f.switched, err = switched{Boot: boot}, nil
	}
	s := &f.switched
	for _, m := range []*map[string]bool{&s.Links, &s.Links6} {
		if *m == nil {
			*m = map[string]bool{}
		}
	}
	if s.Were == nil {
		s.Were = map[string]string{}
	}
	return f, err
}

// add makes a bridge one of ours, and drop no more.
func (f *forwarding) add(bridge string, v6 bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bridges[bridge] = v6
}

func (f *forwarding) drop(bridge string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.bridges, bridge)
}

// opened are the elements of a family's set. The caller holds mu.
func (f *forwarding) opened(family nft.Family) (all []nft.Element) {
	links := f.switched.Links
	if family == nft.IPv6 {
		links = f.switched.Links6
	}
	for _, l := range slices.Sorted(maps.Keys(links)) {
		all = append(all, nft.LinkElement(l))
	}
	return all
}

// ensure brings the switches to what is needed now.
func (f *forwarding) ensure() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watched = map[int]bool{}
	if f.off {
		return f.leave()
	}
	v4, v6, err := f.needed()
	if err != nil {
		return err
	}
	return errors.Join(f.ensure4(v4), f.ensure6(v6))
}

// leave takes back what an engine before this one switched, for a host that is to forward at its own wish alone. The caller holds mu.
func (f *forwarding) leave() error {
	router := getSysctl("net/ipv4/conf/all/forwarding")
	var all error
	for l := range f.switched.Links {
		all = errors.Join(all, setSysctl(forwardSwitch(l), router))
	}
	for l := range f.switched.Links6 {
		all = errors.Join(all, setSysctl(forceSwitch(l), "0"))
	}
	for bridge := range f.bridges {
		all = errors.Join(all, setSysctl(forwardSwitch(bridge), router), setSysctl(forceSwitch(bridge), "0"))
	}
	if was, ours := f.switched.Were[forward6]; ours {
		if all = errors.Join(all, setSysctl(forward6, was)); all == nil {
			delete(f.switched.Were, forward6)
			all = record.Put(f.path, f.switched)
		}
	}
	return errors.Join(all, f.forget(nft.IPv4, f.switched.Links), f.forget(nft.IPv6, f.switched.Links6))
}

func (f *forwarding) ensure4(links []netlink.Link) error {
	var all error
	if getSysctl("net/ipv4/conf/all/forwarding") == "1" {
		// The administrator or another program wants a router: then every link forwards at their wish.
		all = f.forget(nft.IPv4, f.switched.Links)
	} else {
		var open []string
		for _, l := range links {
			if getSysctl(forwardSwitch(l.Name)) == "0" {
				open = append(open, l.Name)
			}
		}
		if all = f.note(nft.IPv4, f.switched.Links, open); all == nil {
			for _, l := range open {
				all = errors.Join(all, setSysctl(forwardSwitch(l), "1"))
			}
		}
	}
	for bridge := range f.bridges {
		all = errors.Join(all, setSysctl(forwardSwitch(bridge), "1"))
	}
	return all
}

func (f *forwarding) ensure6(links []netlink.Link) error {
	wanted := slices.Collect(maps.Values(f.bridges))
	if !slices.Contains(wanted, true) {
		return nil
	}
	_, ours := f.switched.Were[forward6]
	if getSysctl(forward6) == "1" && !ours {
		return f.forget(nft.IPv6, f.switched.Links6)
	}
	var open []string
	for _, l := range links {
		if !f.switched.Links6[l.Name] {
			open = append(open, l.Name)
		}
	}
	if err := f.note(nft.IPv6, f.switched.Links6, open); err != nil {
		return err
	}
	if _, err := os.Stat("/proc/sys/" + forced6); err == nil {
		var all error
		for bridge, v6 := range f.bridges {
			if v6 {
				all = errors.Join(all, setSysctl(forceSwitch(bridge), "1"))
			}
		}
		for _, l := range links {
			all = errors.Join(all, setSysctl(forceSwitch(l.Name), "1"))
		}
		return all
	}
	// A router would not listen to other routers any more: 2 is to listen all the same (ip-sysctl.rst, accept_ra).
	for _, l := range links {
		if name := acceptRASwitch(l.Name); getSysctl(name) == "1" {
			if err := f.turn(name, "2"); err != nil {
				return err
			}
		}
	}
	return f.turn(forward6, "1")
}

// needed lists the links over which clients and answers come: those with an address, less lo and the bridges. The caller holds mu.
func (f *forwarding) needed() (v4, v6 []netlink.Link, err error) {
	links, err := netlink.Links()
	if err != nil {
		return nil, nil, err
	}
	addresses, err := netlink.Addresses()
	if err != nil {
		return nil, nil, err
	}
	for _, l := range links {
		_, own := f.bridges[l.Name]
		if own {
			f.watched[l.Index] = true
		}
		// The bridge of another engine is that one's to switch.
		if l.Index == loopback || own || strings.HasPrefix(l.Alias, ourMark) || strings.HasPrefix(l.Name, linkPrefix) {
			continue
		}
		for _, want := range []bool{false, true} {
			has := slices.ContainsFunc(addresses, func(a netlink.Address) bool {
				return a.Link == l.Index && a.Prefix.Addr().Is6() == want && !a.Prefix.Addr().IsLinkLocalUnicast()
			})
			switch {
			case has && want:
				v6 = append(v6, l)
			case has:
				v4 = append(v4, l)
				f.watched[l.Index] = true
			}
		}
	}
	return v4, v6, nil
}

// note remembers links that are about to be switched on: the record first, then the rule that confines them.
func (f *forwarding) note(family nft.Family, known map[string]bool, links []string) error {
	if len(links) == 0 {
		return nil
	}
	set := nft.Map{Name: openedLinks, Kind: nft.LinkName}
	for _, l := range links {
		known[l] = true
		set.Elements = append(set.Elements, nft.LinkElement(l))
	}
	if err := record.Put(f.path, f.switched); err != nil {
		return err
	}
	return f.fw.Update(nft.Change{Family: family, Table: f.table, Add: []nft.Map{set}})
}

// forget lets go of links that forward at somebody else's wish now.
func (f *forwarding) forget(family nft.Family, known map[string]bool) error {
	if len(known) == 0 {
		return nil
	}
	set := nft.Map{Name: openedLinks, Kind: nft.LinkName, Elements: f.opened(family)}
	if err := f.fw.Update(nft.Change{Family: family, Table: f.table, Remove: []nft.Map{set}}); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	clear(known)
	return record.Put(f.path, f.switched)
}

// adopt sets the switches of a bridge that is not ours, and remembers what they were.
func (f *forwarding) adopt(bridge string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.turn("net/ipv4/conf/"+bridge+"/route_localnet", "1")
	if f.off {
		return err
	}
	return errors.Join(err, f.turn(forwardSwitch(bridge), "1"))
}

// turn changes a switch, and remembers what it was. The caller holds mu.
func (f *forwarding) turn(name, value string) error {
	was := getSysctl(name)
	if was == value {
		return nil
	}
	if _, ok := f.switched.Were[name]; !ok {
		f.switched.Were[name] = was
		if err := record.Put(f.path, f.switched); err != nil {
			return err
		}
	}
	return setSysctl(name, value)
}

// follow keeps up with addresses and switches that change while we run.
func (f *forwarding) follow() error {
	if f.watch != nil {
		return nil
	}
	w, err := netlink.OpenWatch()
	if err != nil {
		return err
	}
	f.watch = w
	f.done.Go(func() {
		for {
			events, err := w.Next()
			if err != nil {
				if !errors.Is(err, os.ErrClosed) {
					f.warn(fmt.Sprintf("watch the host's addresses: %v", err))
				}
				return
			}
			if !slices.ContainsFunc(events, f.matters) {
				continue
			}
			if err := f.ensure(); err != nil {
				f.warn(fmt.Sprintf("forward packets of the containers: %v", err))
			}
		}
	})
	return nil
}

// matters tells events from those that every new link of a container causes.
func (f *forwarding) matters(e netlink.Event) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !e.Forwarding || e.Link == netlink.AllLinks || f.watched[e.Link]
}

// close stops following; the switches stay.
func (f *forwarding) close() {
	if f.watch != nil {
		f.watch.Close()
		f.done.Wait()
		f.watch = nil
	}
}

// restore puts back what was switched.
func (f *forwarding) restore() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all error
	if getSysctl("net/ipv4/conf/all/forwarding") == "0" {
		for l := range f.switched.Links {
			all = errors.Join(all, setSysctl(forwardSwitch(l), "0"))
		}
	}
	for l := range f.switched.Links6 {
		all = errors.Join(all, setSysctl(forceSwitch(l), "0"))
	}
	for name, was := range f.switched.Were {
		all = errors.Join(all, setSysctl(name, was))
	}
	if err := os.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		all = errors.Join(all, err)
	}
	clear(f.switched.Links)
	clear(f.switched.Links6)
	clear(f.switched.Were)
	return all
}
