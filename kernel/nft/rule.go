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

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Table is an IPv4 table (family ip). Its maps and sets start with the elements given.
type Table struct {
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

// FromAny matches packets whose incoming link is an element of the set (key LinkName).
func FromAny(set string) Part {
	return Part{"iifname @" + set, []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Lookup{SourceRegister: 1, SetName: set},
	}}
}

// Source and Destination match addresses in p (IPv4).
func Source(p netip.Prefix) Part      { return address("ip saddr", 12, p) }
func Destination(p netip.Prefix) Part { return address("ip daddr", 16, p) }

func address(text string, offset uint32, p netip.Prefix) Part {
	p = p.Masked()
	bits := make([]byte, 4)
	binary.BigEndian.PutUint32(bits, ^uint32(0)<<(32-p.Bits()))
	return Part{text + " " + p.String(), []expr.Any{
		load(offset, 1),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: bits, Xor: make([]byte, 4)},
		equal(p.Addr().AsSlice()),
	}}
}

func load(offset, register uint32) *expr.Payload {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4}
}

// TranslateAt translates the destination to the element of the map for the
// packet's destination address, protocol and port; without one, the rule ends.
func TranslateAt(m string) Part {
	return Part{"dnat ip to ip daddr . meta l4proto . th dport map @" + m, append([]expr.Any{load(16, 8)}, translate(m, 8, 9)...)}
}

// TranslateAny is TranslateAt for any destination address.
func TranslateAny(m string) Part {
	return Part{"dnat ip to meta l4proto . th dport map @" + m, translate(m, 8, 8)}
}

// translate looks up protocol and port, written to the 4-byte registers from next on, in a key that
// starts at first. Registers 8 to 23 are NFT_REG32_00 and on; the answer, address and port, goes to register 1 (which is 8 and up to 11).
func translate(m string, first, next uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: next},
		&expr.Payload{DestRegister: next + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: first, DestRegister: 8, IsDestRegSet: true, SetName: m},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 8, RegProtoMin: 9},
	}
}

// Jump goes on in another chain and comes back.
func Jump(chain string) Part {
	return Part{"jump " + chain, []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}}
}
