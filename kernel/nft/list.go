package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sort"
	"strings"

	"github.com/google/nftables"
)

// Entry is an element of a map, where it was found.
type Entry struct {
	Table, Map string // of the ip family
	Text       string // as nft(8) lists it
}

// LeadingTo lists the elements that lead to an address, of all tables whose name begins with prefix: those of
// AtAddress and AnyAddress maps, as the kernel has them now.
func (c *Conn) LeadingTo(prefix string, to netip.Addr) ([]Entry, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.dial(); err != nil {
		return nil, err
	}
	tables, err := c.nl.ListTablesOfFamily(nftables.TableFamilyIPv4)
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
			if !s.IsMap {
				continue
			}
			elements, err := c.nl.GetSetElements(s)
			if err != nil {
				return nil, fmt.Errorf("list the elements of %s in nftables table %s: %w", s.Name, t.Name, err)
			}
			for _, e := range elements {
				if text, ok := publishedText(e.Key, e.Val, to); ok {
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

// publishedText reads an element that Publish has made, if it leads to the address.
func publishedText(key, value []byte, to netip.Addr) (string, bool) {
	if len(value) != 8 || len(key) != 8 && len(key) != 12 {
		return "", false
	}
	if a, _ := netip.AddrFromSlice(value[:4]); a != to {
		return "", false
	}
	at := ""
	if len(key) == 12 {
		a, _ := netip.AddrFromSlice(key[:4])
		at, key = a.String()+" . ", key[4:]
	}
	proto := fmt.Sprint(key[0])
	for name, number := range protocols {
		if number == key[0] {
			proto = name
		}
	}
	return fmt.Sprintf("%s%s . %d : %s . %d", at, proto, binary.BigEndian.Uint16(key[4:]), to, binary.BigEndian.Uint16(value[4:])), true
}
