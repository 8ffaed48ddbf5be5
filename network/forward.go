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

// forwarding sees to it that packets to and from the bridge are forwarded.
// Where the host is no router (net.ipv4.ip_forward is 0), it switches on the bridge and those links that have an address,
// one by one, and the table lets them forward nothing but our flows. What it switched is on disk before, and put
// back by restore. Where the host is a router, it writes nothing.
type forwarding struct {
	path   string // of the record
	bridge string
	fw     *nft.Conn
	table  string

	mu       sync.Mutex
	switched switched
	watched  map[int]bool // indexes of the links that must forward
	watch    *netlink.Watch
	done     sync.WaitGroup
	warn     func(string)
}

// switched is the record of switches that were 0 before us. A reboot makes it void.
type switched struct {
	Boot  string
	Links map[string]bool   // links that forward for our sake
	Were  map[string]string // other switches, by name below /proc/sys, and what they were; of a bridge that is not ours
}

func getSysctl(name string) string {
	data, _ := os.ReadFile("/proc/sys/" + name)
	return strings.TrimSpace(string(data))
}

func forwardSwitch(link string) string { return "net/ipv4/conf/" + link + "/forwarding" }

func openForwarding(dir, bridge, table string, fw *nft.Conn, warn func(string)) (*forwarding, error) {
	f := &forwarding{path: filepath.Join(dir, "forwarding.json"), bridge: bridge, table: table, fw: fw, warn: warn}
	err := record.Load(f.path, &f.switched)
	boot := getSysctl("kernel/random/boot_id")
	if errors.Is(err, fault.NotFound) || (err == nil && f.switched.Boot != boot) {
		f.switched, err = switched{Boot: boot}, nil
	}
	if f.switched.Links == nil {
		f.switched.Links = map[string]bool{}
	}
	if f.switched.Were == nil {
		f.switched.Were = map[string]string{}
	}
	return f, err
}

// opened are the elements of the table's set. The caller holds mu.
func (f *forwarding) opened() (all []nft.Element) {
	for _, l := range slices.Sorted(maps.Keys(f.switched.Links)) {
		all = append(all, nft.LinkElement(l))
	}
	return all
}

// ensure brings the switches to what is needed now.
func (f *forwarding) ensure() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if getSysctl("net/ipv4/conf/all/forwarding") == "1" {
		// The administrator or another program wants a router: then every link forwards at their wish.
		return errors.Join(f.forget(), setSysctl(forwardSwitch(f.bridge), "1"))
	}
	f.watched = map[int]bool{}
	links, err := f.needed()
	if err != nil {
		return err
	}
	var open []string
	for _, l := range links {
		f.watched[l.Index] = true
		if getSysctl(forwardSwitch(l.Name)) == "0" {
			open = append(open, l.Name)
		}
	}
	if len(open) > 0 {
		if err := f.open(open); err != nil {
			return err
		}
	}
	return setSysctl(forwardSwitch(f.bridge), "1")
}

// needed lists the links over which clients and answers come: those with an IPv4 address, less lo and the bridge. The caller holds mu.
func (f *forwarding) needed() (all []netlink.Link, err error) {
	links, err := netlink.Links()
	if err != nil {
		return nil, err
	}
	addresses, err := netlink.Addresses()
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		if l.Name == f.bridge {
			f.watched[l.Index] = true
		}
		// The bridge of another engine is that one's to switch.
		if l.Index == loopback || l.Name == f.bridge || l.Alias == bridgeAlias || strings.HasPrefix(l.Name, linkPrefix) {
			continue
		}
		if slices.ContainsFunc(addresses, func(a netlink.Address) bool { return a.Link == l.Index && a.Prefix.Addr().Is4() }) {
			all = append(all, l)
		}
	}
	return all, nil
}

// open switches links on: record, then the rule that confines them, then the switch.
func (f *forwarding) open(links []string) error {
	set := nft.Map{Name: openedLinks, Kind: nft.LinkName}
	for _, l := range links {
		f.switched.Links[l] = true
		set.Elements = append(set.Elements, nft.LinkElement(l))
	}
	if err := record.Put(f.path, f.switched); err != nil {
		return err
	}
	if err := f.fw.Update(f.table, []nft.Map{set}, nil); err != nil {
		return err
	}
	var all error
	for _, l := range links {
		all = errors.Join(all, setSysctl(forwardSwitch(l), "1"))
	}
	return all
}

// forget lets go of links that forward at somebody else's wish now.
func (f *forwarding) forget() error {
	if len(f.switched.Links) == 0 {
		return nil
	}
	set := nft.Map{Name: openedLinks, Kind: nft.LinkName, Elements: f.opened()}
	if err := f.fw.Update(f.table, nil, []nft.Map{set}); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	clear(f.switched.Links)
	return record.Put(f.path, f.switched)
}

// set changes a switch of a bridge that is not ours, and remembers what it was.
func (f *forwarding) set(name, value string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
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
	for name, was := range f.switched.Were {
		all = errors.Join(all, setSysctl(name, was))
	}
	if err := os.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		all = errors.Join(all, err)
	}
	clear(f.switched.Links)
	clear(f.switched.Were)
	return all
}
