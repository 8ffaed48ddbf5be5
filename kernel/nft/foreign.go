package nft

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

var familyNames = map[nftables.TableFamily]string{
	nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6", nftables.TableFamilyINet: "inet",
}

// Filters reads what other software does to packets that are forwarded or are for this host: the base chains of those hooks in nftables
// and in iptables-legacy, those of tables that are ours (by name) left out.
func (c *Conn) Filters(ours func(table string) bool) ([]*Filter, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []*Filter
	var err error
	for range 3 { // others may change their rules while they are read
		if all, err = c.foreign(ours); err == nil {
			break
		}
		if c.nl != nil {
			c.nl.CloseLasting()
			c.nl = nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read the packet filter: %w", err)
	}
	old, err := legacyFilters()
	return append(all, old...), err
}

func (c *Conn) foreign(ours func(table string) bool) (all []*Filter, err error) {
	if err := c.dial(); err != nil {
		return nil, err
	}
	chains, err := c.nl.ListChains()
	if err != nil {
		return nil, err
	}
	chains = slices.DeleteFunc(chains, func(ch *nftables.Chain) bool { return familyNames[ch.Table.Family] == "" || ours(ch.Table.Name) })
	r := reader{nl: c.nl, sets: map[string][]nftables.SetElement{}}
	type table struct {
		family nftables.TableFamily
		name   string
	}
	read := map[table]map[string][]Read{}
	for _, base := range chains {
		f := &Filter{Family: familyNames[base.Table.Family], Table: base.Table.Name, Chain: base.Name}
		switch {
		case base.Hooknum == nil || base.Type == nftables.ChainTypeNAT:
			continue
		case *base.Hooknum == *nftables.ChainHookForward:
			f.Hook = "forward"
		case *base.Hooknum == *nftables.ChainHookInput:
			f.Hook = "input"
		default:
			continue
		}
		f.Drops = base.Policy != nil && *base.Policy == nftables.ChainPolicyDrop
		of := table{base.Table.Family, base.Table.Name}
		if f.Rules = read[of]; f.Rules == nil {
			f.Rules = map[string][]Read{}
			read[of] = f.Rules
			for _, ch := range chains {
				if ch.Table.Name == of.name && ch.Table.Family == of.family && (ch.Hooknum == nil || ch == base) {
					f.Rules[ch.Name] = r.chain(ch)
				}
			}
		}
		if _, ok := f.Rules[base.Name]; !ok {
			f.Rules[base.Name] = r.chain(base)
		}
		all = append(all, f)
	}
	return all, r.err
}

// reader reads rules as the kernel has them.
type reader struct {
	nl   *nftables.Conn
	sets map[string][]nftables.SetElement
	err  error
}

func (r *reader) chain(ch *nftables.Chain) (all []Read) {
	rules, err := r.nl.GetRules(ch.Table, ch)
	if err != nil && r.err == nil {
		r.err = fmt.Errorf("list rules of chain %s: %w", ch.Name, err)
	}
	for _, rule := range rules {
		all = append(all, r.rule(ch.Table, rule.Exprs))
	}
	return all
}

// slot is what a register holds.
type slot struct {
	field Field
	mask  []byte
}

// rule reads one. What isn't understood becomes a match that nobody can tell.
func (r *reader) rule(table *nftables.Table, exprs []expr.Any) (out Read) {
	regs := map[uint32]slot{}
	add := func(m Match) { out.Matches = append(out.Matches, m) }
	for _, e := range exprs {
		switch e := e.(type) {
		case *expr.Meta:
			if !e.SourceRegister {
				regs[e.Register] = slot{field: metaFields[e.Key]}
			}
		case *expr.Ct:
			if !e.SourceRegister {
				regs[e.Register] = slot{field: ctFields[e.Key]}
			}
		case *expr.Payload:
			regs[e.DestRegister] = slot{field: payloadField(e)}
		case *expr.Bitwise:
			s := regs[e.SourceRegister]
			if s.mask = e.Mask; slices.ContainsFunc(e.Xor, func(b byte) bool { return b != 0 }) {
				s.field = Unknown
			}
			regs[e.DestRegister] = s
		case *expr.Cmp:
			s := regs[e.Register]
			add(compare(s, e))
			if e.Op != expr.CmpOpGte { // a range ends with a second one
				delete(regs, e.Register)
			}
		case *expr.Range:
			s := regs[e.Register]
			add(Match{Field: s.field, Mask: s.mask, Not: e.Op == expr.CmpOpNeq, Ranges: []Range{{e.FromData, e.ToData}}})
		case *expr.Lookup:
			s := regs[e.SourceRegister]
			switch {
			case e.IsDestRegSet && e.DestRegister == unix.NFT_REG_VERDICT:
				out.Key, out.Cases = s.field, r.cases(table, e.SetName)
			case e.IsDestRegSet: // a value that depends
				regs[e.DestRegister] = slot{}
			default:
				add(Match{Field: s.field, Mask: s.mask, Not: e.Invert, Ranges: r.ranges(table, e.SetName, s.field)})
			}
		case *expr.Verdict:
			out.Then = step(e)
		case *expr.Reject:
			out.Then = Step{Do: Drops}
		case *expr.Queue:
			out.Then = Step{Do: Accepts} // another program decides
		case *expr.Match:
			r.xtables(e, add)
		case *expr.Target:
			if e.Name == "REJECT" {
				out.Then = Step{Do: Drops}
			}
		case *expr.Counter, *expr.Log, *expr.Immediate, *expr.Objref:
		case *expr.Limit, *expr.Quota, *expr.Dynset, *expr.Connlimit:
			add(Match{})
		case *expr.Fib:
			if regs[e.Register] = (slot{}); e.FlagDADDR && !e.FlagSADDR && !e.FlagIIF && !e.FlagOIF && e.ResultADDRTYPE {
				regs[e.Register] = slot{field: KindOfAddress}
			}
		default:
			add(Match{})
		}
	}
	return out
}

var metaFields = map[expr.MetaKey]Field{
	expr.MetaKeyIIFNAME: InLink, expr.MetaKeyOIFNAME: OutLink, expr.MetaKeyIIF: InIndex, expr.MetaKeyOIF: OutIndex,
	expr.MetaKeyL4PROTO: Protocol, expr.MetaKeyNFPROTO: FamilyOf,
}

var ctFields = map[expr.CtKey]Field{expr.CtKeySTATE: State, expr.CtKeySTATUS: Status}

// payloadField tells the headers' fields apart: an IPv4 header has its addresses at 12 and 16, of IPv6 they are at 8 and 24.
func payloadField(e *expr.Payload) Field {
	switch {
	case e.OperationType == expr.PayloadWrite:
		return Unknown
	case e.Base == expr.PayloadBaseTransportHeader && e.Offset == 2 && e.Len == 2:
		return Port
	case e.Base != expr.PayloadBaseNetworkHeader:
		return Unknown
	case e.Offset == 12 && e.Len <= 4, e.Offset == 8 && e.Len > 4:
		return FromAddress
	case e.Offset == 16 && e.Len <= 4, e.Offset == 24 && e.Len > 4:
		return ToAddress
	case e.Offset == 9 && e.Len == 1:
		return Protocol
	}
	return Unknown
}

func compare(s slot, e *expr.Cmp) Match {
	m := Match{Field: s.field, Mask: s.mask, Ranges: []Range{only(e.Data)}}
	least, most := make([]byte, len(e.Data)), slices.Repeat([]byte{0xff}, len(e.Data))
	switch e.Op {
	case expr.CmpOpNeq:
		m.Not = true
	case expr.CmpOpGte:
		m.Ranges[0].High = most
	case expr.CmpOpLte:
		m.Ranges[0].Low = least
	case expr.CmpOpGt:
		m.Ranges[0].Low, m.Not = least, true
	case expr.CmpOpLt:
		m.Ranges[0].High, m.Not = most, true
	}
	return m
}

func step(v *expr.Verdict) Step {
	switch v.Kind {
	case expr.VerdictAccept:
		return Step{Do: Accepts}
	case expr.VerdictDrop:
		return Step{Do: Drops}
	case expr.VerdictJump:
		return Step{Jumps, v.Chain}
	case expr.VerdictGoto:
		return Step{Goes, v.Chain}
	case expr.VerdictReturn:
		return Step{Do: Returns}
	}
	return Step{Do: Next}
}

// elements of a set, read once per look.
func (r *reader) elements(table *nftables.Table, name string) []nftables.SetElement {
	key := fmt.Sprint(table.Family, " ", table.Name, " ", name)
	if all, ok := r.sets[key]; ok {
		return all
	}
	set, err := r.nl.GetSetByName(table, name)
	var all []nftables.SetElement
	if err == nil {
		all, err = r.nl.GetSetElements(set)
	}
	if err != nil && r.err == nil {
		r.err = fmt.Errorf("list elements of set %s: %w", name, err)
	}
	r.sets[key] = all
	return all
}

// ranges are a set's values. One of a field that nobody can tell isn't read.
func (r *reader) ranges(table *nftables.Table, name string, f Field) (all []Range) {
	if f == Unknown {
		return nil
	}
	elements := r.elements(table, name)
	for k, e := range elements {
		if !e.IntervalEnd {
			all = append(all, rangeAt(elements, k))
		}
	}
	return all
}

// rangeAt is the element at k with its end, which is an element of its own: the first value that is not of the range.
func rangeAt(elements []nftables.SetElement, k int) Range {
	low := elements[k].Key
	if elements[k].KeyEnd != nil {
		return Range{low, elements[k].KeyEnd}
	}
	end := []byte(nil)
	interval := false
	for _, e := range elements {
		if !e.IntervalEnd {
			continue
		}
		interval = true
		if string(e.Key) > string(low) && (end == nil || string(e.Key) < string(end)) {
			end = e.Key
		}
	}
	switch {
	case !interval:
		return only(low)
	case end == nil:
		return Range{low, slices.Repeat([]byte{0xff}, len(low))}
	}
	return Range{low, before(end)}
}

// before is the value one less.
func before(v []byte) []byte {
	v = slices.Clone(v)
	for k := len(v) - 1; k >= 0; k-- {
		v[k]--
		if v[k] != 0xff {
			break
		}
	}
	return v
}

func (r *reader) cases(table *nftables.Table, name string) []Case {
	all := []Case{}
	elements := r.elements(table, name)
	for k, e := range elements {
		if !e.IntervalEnd {
			all = append(all, Case{rangeAt(elements, k), step(verdictOf(e.Val))})
		}
	}
	return all
}

// verdictOf reads an element's NFTA_DATA_VERDICT, which the library leaves as it came.
func verdictOf(data []byte) *expr.Verdict {
	v := &expr.Verdict{Kind: expr.VerdictContinue}
	attributes, err := netlink.UnmarshalAttributes(data)
	if err != nil {
		return v
	}
	for _, a := range attributes {
		switch {
		case a.Type == unix.NFTA_VERDICT_CODE && len(a.Data) == 4:
			v.Kind = expr.VerdictKind(int32(binary.BigEndian.Uint32(a.Data)))
		case a.Type == unix.NFTA_VERDICT_CHAIN:
			v.Chain = cstring(a.Data)
		}
	}
	return v
}

// xtables reads a match of iptables-nft that has no form of nftables' own.
func (r *reader) xtables(e *expr.Match, add func(Match)) {
	switch info := e.Info.(type) {
	case *xt.ConntrackMtinfo3:
		add(conntrackMatch(uint16(info.MatchFlags), uint16(info.InvertFlags), info.StateMask))
	case *xt.ConntrackMtinfo2:
		add(conntrackMatch(uint16(info.MatchFlags), uint16(info.InvertFlags), info.StateMask))
	case *xt.ConntrackMtinfo1:
		add(conntrackMatch(uint16(info.MatchFlags), uint16(info.InvertFlags), uint16(info.StateMask)))
	case *xt.AddrTypeV1:
		add(addressMatch(info.Source, info.Dest, uint32(info.Flags)))
	case *xt.Tcp:
		add(Match{Field: Protocol, Ranges: []Range{only([]byte{unix.IPPROTO_TCP})}})
		add(portMatch(info.DstPorts, info.InvFlags&xt.TcpInvDestPorts != 0))
		if info.SrcPorts != [2]uint16{0, 65535} || info.Option != 0 || info.FlagsMask != 0 {
			add(Match{})
		}
	default:
		if !strings.HasPrefix(e.Name, "comment") {
			add(Match{})
		}
	}
}

func portMatch(ports [2]uint16, not bool) Match {
	return Match{Field: Port, Not: not, Ranges: []Range{{binary.BigEndian.AppendUint16(nil, ports[0]), binary.BigEndian.AppendUint16(nil, ports[1])}}}
}

// conntrackMatch is that of xt_conntrack(h), where it asks for the state alone.
func conntrackMatch(flags, inverted, mask uint16) Match {
	const stateOnly, alias = 1, 1 << 13
	if flags&^alias != stateOnly || inverted&^alias > stateOnly {
		return Match{}
	}
	return Match{Field: StateOrNAT, Mask: word(uint32(mask)), Not: inverted&stateOnly == 0, Ranges: []Range{only(word(0))}}
}

// Chain reads one chain of a table as a filter of forwarded packets; nil: it is not there.
func (c *Conn) Chain(f Family, table, name string) (*Filter, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.dial(); err != nil {
		return nil, err
	}
	chains, err := c.nl.ListChainsOfTableFamily(f.table(table).Family)
	if err != nil {
		return nil, fmt.Errorf("list nftables chains: %w", err)
	}
	r := reader{nl: c.nl, sets: map[string][]nftables.SetElement{}}
	var found *Filter
	for _, ch := range chains {
		if ch.Table.Name != table || ch.Hooknum != nil {
			continue
		}
		if found == nil {
			found = &Filter{Family: f.String(), Table: table, Chain: name, Hook: "forward", Rules: map[string][]Read{}}
		}
		if ch.Name == name {
			found.Rules[name] = r.chain(ch)
		}
	}
	if found == nil || found.Rules[name] == nil {
		return nil, r.err
	}
	return found, r.err
}

// addressMatch is that of xt_addrtype(h), revision 1, where it asks for the destination alone: a bit for each kind.
func addressMatch(source, dest uint16, flags uint32) Match {
	const invertDest = 2
	if source != 0 || dest == 0 || flags&^invertDest != 0 {
		return Match{}
	}
	m := Match{Field: KindOfAddress, Not: flags&invertDest != 0}
	for kind := range uint32(16) {
		if dest&(1<<kind) != 0 {
			m.Ranges = append(m.Ranges, only(word(kind)))
		}
	}
	return m
}
