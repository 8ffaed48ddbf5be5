// Package nft writes tables of the kernel's packet filter.
//
// It decides nothing: a Table is data, printed in nft(8)'s own language and sent as one transaction, so that
// packets meet the old rules or the new ones. It is a thin layer over github.com/google/nftables. Invariant: only
// tables that the caller names are written; everything else is only read.
package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Family is the kind of packets that a table is for.
type Family bool

// The families.
const (
	IPv4 Family = false
	IPv6 Family = true
)

// String is nft(8)'s word.
func (f Family) String() string {
	if f == IPv6 {
		return "ip6"
	}
	return "ip"
}

func (f Family) table(name string) *nftables.Table {
	if f == IPv6 {
		return &nftables.Table{Name: name, Family: nftables.TableFamilyIPv6}
	}
	return &nftables.Table{Name: name, Family: nftables.TableFamilyIPv4}
}

// size is that of an address in bytes.
func (f Family) size() uint32 {
	if f == IPv6 {
		return 16
	}
	return 4
}

// of tells an address's family.
func of(a netip.Addr) Family { return Family(a.Is6()) }

// Table is a table of one family. Its maps and sets start with the elements given.
type Table struct {
	Family Family
	Name   string
	Maps   []Map
	Chains []Chain
}

// Chain is a list of rules. One with a Hook is entered by packets; one without by Jump.
type Chain struct {
	Name     string
	Hook     string // "prerouting", "forward", "output", "postrouting"; "" = none
	Type     string // "filter" or "nat"
	Priority int    // -300 raw, -100 dstnat, 0 filter, 100 srcnat (nft(8), priorities)
	Rules    []Rule
	Theirs   bool // its rules are the administrator's: it is made when missing, and never changed
}

// Rule is matches, then a verdict. A match that fails ends the rule, not the chain.
type Rule []Part

// Part is one match or verdict.
type Part struct {
	text  string
	exprs []expr.Any
}

// String prints the rule as nft(8) reads it.
func (r Rule) String() string {
	words := make([]string, len(r))
	for i, p := range r {
		words[i] = p.text
	}
	return strings.Join(words, " ")
}

// Parts that need no argument.
var (
	// ToSelf matches a destination that is an address of this host.
	ToSelf = Part{"fib daddr type local", []expr.Any{
		&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
		equal(word(unix.RTN_LOCAL)),
	}}
	// Translated matches flows whose destination was translated.
	Translated = Part{"ct status dnat", []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: 1},
		mask(1 << 5), // IPS_DST_NAT, nf_conntrack_common.h
		differ(word(0)),
	}}
	// Answer matches packets of known flows and errors that belong to them.
	Answer = Part{"ct state established,related", state(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED)}
	// Stray matches packets that fit no flow.
	Stray = Part{"ct state invalid", state(expr.CtStateBitINVALID)}

	Accept     = Part{"accept", []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}}
	Drop       = Part{"drop", []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}}
	Return     = Part{"return", []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}}}
	Masquerade = Part{"masquerade", []expr.Any{&expr.Masq{}}}
)

// word is a 32-bit value in the host's order, as the kernel keeps its own numbers in registers.
func word(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func equal(v []byte) *expr.Cmp  { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: v} }
func differ(v []byte) *expr.Cmp { return &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: v} }

func mask(bits uint32) *expr.Bitwise {
	return &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: word(bits), Xor: word(0)}
}

func state(bits uint32) []expr.Any {
	return []expr.Any{&expr.Ct{Key: expr.CtKeySTATE, Register: 1}, mask(bits), differ(word(0))}
}

// From and its kin match the link that a packet came from or leaves by.
func From(link string) Part    { return device("iifname", expr.MetaKeyIIFNAME, link, false) }
func NotFrom(link string) Part { return device("iifname", expr.MetaKeyIIFNAME, link, true) }
func Over(link string) Part    { return device("oifname", expr.MetaKeyOIFNAME, link, false) }
func NotOver(link string) Part { return device("oifname", expr.MetaKeyOIFNAME, link, true) }

func device(word string, key expr.MetaKey, link string, not bool) Part {
	cmp, op := equal(LinkKey(link)), ""
	if not {
		cmp, op = differ(LinkKey(link)), "!= "
	}
	return Part{fmt.Sprintf("%s %s%q", word, op, link), []expr.Any{&expr.Meta{Key: key, Register: 1}, cmp}}
}

// FromAny and OverAny match packets whose link is an element of the set (key LinkName).
func FromAny(set string) Part { return anyLink("iifname", expr.MetaKeyIIFNAME, set) }
func OverAny(set string) Part { return anyLink("oifname", expr.MetaKeyOIFNAME, set) }

func anyLink(word string, key expr.MetaKey, set string) Part {
	return Part{word + " @" + set, []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Lookup{SourceRegister: 1, SetName: set},
	}}
}

// OverEach goes on in the chain that the map (kind LinkVerdict) has for the link that a packet leaves by; FromEach for the one
// that it came from. Without an element, the rule ends.
func OverEach(m string) Part { return eachLink("oifname", expr.MetaKeyOIFNAME, m) }
func FromEach(m string) Part { return eachLink("iifname", expr.MetaKeyIIFNAME, m) }

func eachLink(word string, key expr.MetaKey, m string) Part {
	return Part{word + " vmap @" + m, []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Lookup{SourceRegister: 1, DestRegister: verdictRegister, IsDestRegSet: true, SetName: m},
	}}
}

const verdictRegister = 0 // NFT_REG_VERDICT

// The places of addresses in the headers (RFC 791, RFC 8200), in bytes.
func (f Family) source() uint32 {
	if f == IPv6 {
		return 8
	}
	return 12
}

func (f Family) destination() uint32 {
	if f == IPv6 {
		return 24
	}
	return 16
}

// Source and Destination match addresses in p, in a table of its family.
func Source(p netip.Prefix) Part {
	f := of(p.Addr())
	return address(f.String()+" saddr", f.source(), p)
}

func Destination(p netip.Prefix) Part {
	f := of(p.Addr())
	return address(f.String()+" daddr", f.destination(), p)
}

func address(text string, offset uint32, p netip.Prefix) Part {
	p = p.Masked()
	size := of(p.Addr()).size()
	bits := make([]byte, size)
	for i := range p.Bits() {
		bits[i/8] |= 1 << (7 - i%8)
	}
	return Part{text + " " + p.String(), []expr.Any{
		load(offset, size, 1),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: size, Mask: bits, Xor: make([]byte, size)},
		equal(p.Addr().AsSlice()),
	}}
}

func load(offset, size, register uint32) *expr.Payload {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size}
}

// SourceEach goes on in the chain that the map (kind SubnetVerdict) has for the source address.
func SourceEach(f Family, m string) Part {
	return Part{f.String() + " saddr vmap @" + m, []expr.Any{
		load(f.source(), f.size(), 1),
		&expr.Lookup{SourceRegister: 1, DestRegister: verdictRegister, IsDestRegSet: true, SetName: m},
	}}
}

// Registers of 4 bytes, NFT_REG32_00 and on; the first four are also register 1 with 16 bytes.
const first = 8

// words is the number of registers that an address takes.
func (f Family) words() uint32 { return f.size() / 4 }

// ToReachable matches packets whose destination address, protocol and port are an element of the set (kind Reachable).
func ToReachable(f Family, set string) Part {
	exprs := append([]expr.Any{load(f.destination(), f.size(), first)}, port(first+f.words())...)
	return Part{f.String() + " daddr . meta l4proto . th dport @" + set, append(exprs, &expr.Lookup{SourceRegister: first, SetName: set})}
}

// port loads protocol and destination port to two registers.
func port(register uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register},
		&expr.Payload{DestRegister: register + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
	}
}

// TranslateAt translates the destination to the element of the map for the
// packet's destination address, protocol and port; without one, the rule ends.
func TranslateAt(f Family, m string) Part {
	exprs := append([]expr.Any{load(f.destination(), f.size(), first)}, port(first+f.words())...)
	return Part{fmt.Sprintf("dnat %s to %s daddr . meta l4proto . th dport map @%s", f, f, m), append(exprs, translate(f, m)...)}
}

// TranslateAny is TranslateAt for any destination address.
func TranslateAny(f Family, m string) Part {
	return Part{fmt.Sprintf("dnat %s to meta l4proto . th dport map @%s", f, m), append(port(first), translate(f, m)...)}
}

// translate looks up the key that starts at the first register; the answer, address and port, takes its place.
func translate(f Family, m string) []expr.Any {
	family := uint32(unix.NFPROTO_IPV4)
	if f == IPv6 {
		family = unix.NFPROTO_IPV6
	}
	return []expr.Any{
		&expr.Lookup{SourceRegister: first, DestRegister: first, IsDestRegSet: true, SetName: m},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: family, RegAddrMin: first, RegProtoMin: first + f.words()},
	}
}

// SourceAddress gives packets that leave another source address.
func SourceAddress(a netip.Addr) Part {
	family := uint32(unix.NFPROTO_IPV4)
	if a.Is6() {
		family = unix.NFPROTO_IPV6
	}
	return Part{"snat to " + a.String(), []expr.Any{
		&expr.Immediate{Register: 1, Data: a.AsSlice()},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: family, RegAddrMin: 1},
	}}
}

// Jump goes on in another chain and comes back.
func Jump(chain string) Part {
	return Part{"jump " + chain, []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}}
}
