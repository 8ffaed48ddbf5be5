package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
)

// Kind is what the elements of a map are.
type Kind int

// The kinds of maps. Those that say so have keys alone: sets.
const (
	AtAddress     Kind = iota // address . protocol . port : address . port
	AnyAddress                // protocol . port : address . port
	Reachable                 // address . protocol . port; a set
	LinkName                  // name of a link; a set
	LinkVerdict               // name of a link : chain
	SubnetVerdict             // subnet : chain
)

// Map is a named map or set.
type Map struct {
	Name     string
	Kind     Kind
	Elements []Element
}

// Element is one entry of a map.
type Element struct {
	key, value []byte
	end        []byte // the first key after those of a subnet
	chain      string // of a verdict
	text       string
}

// String prints the element as nft(8) reads it.
func (e Element) String() string { return e.text }

// Key tells elements of one map apart.
func (e Element) Key() string { return string(e.key) }

// protocols by their number (RFC 9293, RFC 768, RFC 9260) and name in nft(8).
var protocols = map[string]byte{"tcp": 6, "udp": 17, "sctp": 132}

// Publish is the element that leads a port of the host to one of a container. It belongs to
// an AtAddress map, or to an AnyAddress map when host's address is 0.0.0.0 or ::, in a table of that family. proto is "tcp", "udp" or "sctp".
func Publish(host netip.AddrPort, proto string, to netip.AddrPort) (Element, error) {
	number, ok := protocols[proto]
	if !ok || of(host.Addr()) != of(to.Addr()) || host.Addr().Is4In6() {
		return Element{}, fmt.Errorf("publish %s/%s to %s: not ports of tcp, udp or sctp of one family", host, proto, to)
	}
	e := Element{
		key:   append([]byte{number, 0, 0, 0}, padded(host.Port())...),
		value: append(to.Addr().AsSlice(), padded(to.Port())...),
		text:  fmt.Sprintf("%s . %d : %s . %d", proto, host.Port(), to.Addr(), to.Port()),
	}
	if !host.Addr().IsUnspecified() {
		e.key = append(host.Addr().AsSlice(), e.key...)
		e.text = host.Addr().String() + " . " + e.text
	}
	return e, nil
}

// ReachablePort is an element of a Reachable set: a port that packets may reach untranslated.
func ReachablePort(to netip.AddrPort, proto string) (Element, error) {
	number, ok := protocols[proto]
	if !ok {
		return Element{}, fmt.Errorf("open %s/%s: not a port of tcp, udp or sctp", to, proto)
	}
	return Element{
		key:  append(append(to.Addr().AsSlice(), number, 0, 0, 0), padded(to.Port())...),
		text: fmt.Sprintf("%s . %s . %d", to.Addr(), proto, to.Port()),
	}, nil
}

// padded is a port in the network's order, filled up to a register of 4 bytes.
func padded(port uint16) []byte {
	return append(binary.BigEndian.AppendUint16(nil, port), 0, 0)
}

// LinkElement is an element of a LinkName set.
func LinkElement(name string) Element {
	return Element{key: LinkKey(name), text: fmt.Sprintf("%q", name)}
}

// LinkTo is an element of a LinkVerdict map: packets of that link go on in the chain.
func LinkTo(link, chain string) Element {
	return Element{key: LinkKey(link), chain: chain, text: fmt.Sprintf("%q : jump %s", link, chain)}
}

// SubnetTo is an element of a SubnetVerdict map.
func SubnetTo(p netip.Prefix, chain string) Element {
	p = p.Masked()
	e := Element{key: p.Addr().AsSlice(), chain: chain, text: fmt.Sprintf("%s : jump %s", p, chain)}
	last := slices.Clone(e.key)
	for i := p.Bits(); i < 8*len(last); i++ {
		last[i/8] |= 1 << (7 - i%8)
	}
	if a, _ := netip.AddrFromSlice(last); a.Next().IsValid() { // else it goes on to the end of all addresses
		e.end = a.Next().AsSlice()
	}
	return e
}

// LinkKey is a link's name as the kernel compares it: 16 bytes, filled with zeros.
func LinkKey(name string) []byte {
	b := make([]byte, 16)
	copy(b, name)
	return b
}

func (k Kind) set(t *nftables.Table, name string, id uint32) *nftables.Set {
	address := nftables.TypeIPAddr
	if t.Family == nftables.TableFamilyIPv6 {
		address = nftables.TypeIP6Addr
	}
	s := &nftables.Set{Table: t, Name: name, ID: id}
	switch k {
	case AtAddress, AnyAddress:
		s.IsMap, s.Concatenation, s.DataType = true, true, nftables.MustConcatSetType(address, nftables.TypeInetService)
		s.KeyType = nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService)
		if k == AtAddress {
			s.KeyType = nftables.MustConcatSetType(address, nftables.TypeInetProto, nftables.TypeInetService)
		}
	case Reachable:
		s.Concatenation, s.KeyType = true, nftables.MustConcatSetType(address, nftables.TypeInetProto, nftables.TypeInetService)
	case LinkName, LinkVerdict:
		s.KeyType = nftables.TypeIFName
		s.KeyByteOrder = binaryutil.NativeEndian // a remark for nft(8), which prints "" without it
	case SubnetVerdict:
		s.KeyType, s.Interval = address, true
	}
	if k == LinkVerdict || k == SubnetVerdict {
		s.IsMap, s.DataType = true, nftables.TypeVerdict
	}
	return s
}

func (k Kind) declaration(f Family) (word, types string) {
	address := "ipv4_addr"
	if f == IPv6 {
		address = "ipv6_addr"
	}
	switch k {
	case AtAddress:
		return "map", address + " . inet_proto . inet_service : " + address + " . inet_service"
	case AnyAddress:
		return "map", "inet_proto . inet_service : " + address + " . inet_service"
	case Reachable:
		return "set", address + " . inet_proto . inet_service"
	case LinkVerdict:
		return "map", "ifname : verdict"
	case SubnetVerdict:
		return "map", address + " : verdict\n\t\tflags interval"
	}
	return "set", "ifname"
}

// String prints the table in the language of nft(8); nft -f reads it.
func (t *Table) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table %s %s {\n", t.Family, t.Name)
	for _, m := range t.Maps {
		word, types := m.Kind.declaration(t.Family)
		fmt.Fprintf(&b, "\t%s %s {\n\t\ttype %s\n", word, m.Name, types)
		if len(m.Elements) > 0 {
			lines := make([]string, len(m.Elements))
			for i, e := range m.Elements {
				lines[i] = e.text
			}
			sort.Strings(lines)
			fmt.Fprintf(&b, "\t\telements = { %s }\n", strings.Join(lines, ",\n\t\t             "))
		}
		b.WriteString("\t}\n\n")
	}
	for i, c := range t.Chains {
		if i > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "\tchain %s {\n", c.Name)
		if c.Hook != "" {
			fmt.Fprintf(&b, "\t\ttype %s hook %s priority %d; policy accept;\n", c.Type, c.Hook, c.Priority)
		}
		for _, r := range c.Rules {
			fmt.Fprintf(&b, "\t\t%s\n", r)
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}
