package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sort"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
)

// Kind is what the elements of a map are.
type Kind int

// The kinds of maps. The last has keys alone: a set.
const (
	AtAddress  Kind = iota // ip daddr . protocol . port : address . port
	AnyAddress             // protocol . port : address . port
	LinkName               // name of a link
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
	text       string
}

// String prints the element as nft(8) reads it.
func (e Element) String() string { return e.text }

// Key tells elements of one map apart.
func (e Element) Key() string { return string(e.key) }

// protocols by their number (RFC 9293, RFC 768) and name in nft(8).
var protocols = map[string]byte{"tcp": 6, "udp": 17}

// Publish is the element that leads a port of the host to one of a container. It belongs to
// an AtAddress map, or to an AnyAddress map when host's address is 0.0.0.0. proto is "tcp" or "udp".
func Publish(host netip.AddrPort, proto string, to netip.AddrPort) (Element, error) {
	number, ok := protocols[proto]
	if !ok || !host.Addr().Is4() || !to.Addr().Is4() {
		return Element{}, fmt.Errorf("publish %s/%s to %s: not an IPv4 tcp or udp port", host, proto, to)
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

// padded is a port in the network's order, filled up to a register of 4 bytes.
func padded(port uint16) []byte {
	return append(binary.BigEndian.AppendUint16(nil, port), 0, 0)
}

// LinkElement is an element of a LinkName set.
func LinkElement(name string) Element {
	return Element{key: LinkKey(name), text: fmt.Sprintf("%q", name)}
}

// LinkKey is a link's name as the kernel compares it: 16 bytes, filled with zeros.
func LinkKey(name string) []byte {
	b := make([]byte, 16)
	copy(b, name)
	return b
}

func (k Kind) set(t *nftables.Table, name string, id uint32) *nftables.Set {
	endpoint := nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)
	s := &nftables.Set{Table: t, Name: name, ID: id}
	switch k {
	case AtAddress:
		s.IsMap, s.Concatenation, s.DataType = true, true, endpoint
		s.KeyType = nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService)
	case AnyAddress:
		s.IsMap, s.Concatenation, s.DataType = true, true, endpoint
		s.KeyType = nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService)
	case LinkName:
		s.KeyType = nftables.TypeIFName
		s.KeyByteOrder = binaryutil.NativeEndian // a remark for nft(8), which prints "" without it
	}
	return s
}

func (k Kind) declaration() (word, types string) {
	switch k {
	case AtAddress:
		return "map", "ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service"
	case AnyAddress:
		return "map", "inet_proto . inet_service : ipv4_addr . inet_service"
	}
	return "set", "ifname"
}

// String prints the table in the language of nft(8); nft -f reads it.
func (t *Table) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table ip %s {\n", t.Name)
	for _, m := range t.Maps {
		word, types := m.Kind.declaration()
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
