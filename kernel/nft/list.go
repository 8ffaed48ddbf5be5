package nft

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"sort"
	"strings"

	"github.com/google/nftables"
)

// Entry is an element of a map or set, where it was found.
type Entry struct {
	Table, Map string
	Text       string // as nft(8) lists it
}

// LeadingTo lists the elements that lead to an address, of all tables of its family whose name begins with prefix: those of
// AtAddress and AnyAddress maps and Reachable sets, as the kernel has them now.
func (c *Conn) LeadingTo(prefix string, to netip.Addr) ([]Entry, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.dial(); err != nil {
		return nil, err
	}
	tables, err := c.nl.ListTablesOfFamily(of(to).table("").Family)
	if err != nil {
		return nil, fmt.Errorf("list nftables tables: %w", err)
	}
	var found []Entry
	for _, t := range tables {
		if !strings.HasPrefix(t.Name, prefix) {
			continue
		}
		sets, err := c.nl.GetSets(t)
		if err != nil {
			return nil, fmt.Errorf("list the maps of nftables table %s: %w", t.Name, err)
		}
		for _, s := range sets {
			if s.Anonymous || s.Interval {
				continue
			}
			elements, err := c.wholeSet(s)
			if err != nil {
				return nil, fmt.Errorf("list the elements of %s in nftables table %s: %w", s.Name, t.Name, err)
			}
			for _, e := range elements {
				if text, ok := leadingText(e.Key, e.Val, to); ok {
					found = append(found, Entry{t.Name, s.Name, text})
				}
			}
		}
	}
	sort.Slice(found, func(i, j int) bool {
		return found[i].Table+found[i].Map+found[i].Text < found[j].Table+found[j].Map+found[j].Text
	})
	return found, nil
}

// wholeSet lists the elements of a set, by their keys. The kernel makes the table behind a set larger in the background, some time after elements came, and
// a listing that meets this has some of them twice and others not at all, without a word (seen on Linux 6.18: the listing counts its way back to where
// its last message ended, and the order has changed). So it is read until two listings in a row are the same.
func (c *Conn) wholeSet(s *nftables.Set) (map[string]nftables.SetElement, error) {
	const most = 100 // a table that grows doubles, so that this is never reached while nobody adds elements
	var last map[string]nftables.SetElement
	for range most {
		list, err := c.nl.GetSetElements(s)
		if err != nil {
			return nil, err
		}
		now := make(map[string]nftables.SetElement, len(list))
		for _, e := range list {
			now[string(e.Key)] = e
		}
		same := func(a, b nftables.SetElement) bool { return bytes.Equal(a.Val, b.Val) }
		if len(now) == len(list) && last != nil && maps.EqualFunc(last, now, same) {
			return now, nil
		}
		last = now
	}
	return last, nil
}

// leadingText reads an element that Publish or ReachablePort has made, if it leads to the address.
func leadingText(key, value []byte, to netip.Addr) (string, bool) {
	const port = 8 // bytes of protocol and port
	size := int(of(to).size())
	leads := func(b []byte) bool {
		a, ok := netip.AddrFromSlice(b)
		return ok && a == to
	}
	switch {
	case len(value) == 0 && len(key) == size+port && leads(key[:size]):
		return fmt.Sprintf("%s . %s", to, portText(key[size:])), true
	case len(value) != size+4 || !leads(value[:size]):
		return "", false
	case len(key) == port:
		return fmt.Sprintf("%s : %s . %d", portText(key), to, binary.BigEndian.Uint16(value[size:])), true
	case len(key) == size+port:
		at, _ := netip.AddrFromSlice(key[:size])
		return fmt.Sprintf("%s . %s : %s . %d", at, portText(key[size:]), to, binary.BigEndian.Uint16(value[size:])), true
	}
	return "", false
}

// portText is protocol and port of a key.
func portText(key []byte) string {
	proto := fmt.Sprint(key[0])
	for name, number := range protocols {
		if number == key[0] {
			proto = name
		}
	}
	return fmt.Sprintf("%s . %d", proto, binary.BigEndian.Uint16(key[4:]))
}
