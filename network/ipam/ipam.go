// Package ipam decides addresses: which subnet a network gets, and which
// address in it a container.
//
// It makes no system calls and keeps nothing on disk: what is taken is told to it by those who know. Invariant: an
// address or subnet is given to one at a time, and never one that it was told of as taken.
package ipam

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"

	"berth/fault"
)

// Pool is a subnet of a network, and what is special in it.
type Pool struct {
	Subnet  netip.Prefix
	Range   netip.Prefix          // addresses that are given without being asked for; zero: all of Subnet
	Gateway netip.Addr            // zero: the first one, unless the network needs none
	Aux     map[string]netip.Addr // addresses that others use, by a name that means nothing to us
}

// Source is a block of addresses that subnets of 2^(32-Size) addresses (128 for IPv6) are cut from.
type Source struct {
	Base netip.Prefix
	Size int // bits of a subnet
}

// Sources are those of a machine that was told of none: private addresses (RFC 1918) that home and office networks use
// least, in subnets of as many addresses as a bridge has ports.
func Sources() []Source {
	const bits = 22
	var all []Source
	for second := 18; second < 32; second++ {
		all = append(all, Source{netip.PrefixFrom(netip.AddrFrom4([4]byte{172, byte(second), 0, 0}), 16), bits})
	}
	return append(all, Source{netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, 0, 0}), 16), bits})
}

// Check tells what is wrong with a source; nil: nothing.
func (s Source) Check() error {
	switch most := s.Base.Addr().BitLen(); {
	case !s.Base.IsValid():
		return fault.New(fault.Invalid, "address pool: the base is no subnet")
	case s.Size < s.Base.Bits():
		return fault.New(fault.Invalid, "address pool %s: subnets of size %d are larger than it", s.Base, s.Size)
	case s.Size > most-2:
		return fault.New(fault.Invalid, "address pool %s: subnets of size %d have no room for a gateway and a container, %d is the smallest", s.Base, s.Size, most-2)
	}
	return nil
}

// Use is a subnet that is taken, and by what, such as "route to 10.0.0.0/8 over tun0".
type Use struct {
	Subnet netip.Prefix
	What   string
}

// Clash tells what occupies a part of p; "" is nothing.
func Clash(p netip.Prefix, taken []Use) string {
	for _, u := range taken {
		if u.Subnet.Overlaps(p.Masked()) {
			return u.What
		}
	}
	return ""
}

// Cut gives the first subnet of the sources that overlaps with nothing taken. fault.Unavailable: there is none.
func Cut(sources []Source, taken []Use) (netip.Prefix, error) {
	for _, s := range sources {
		// What lies in the way is skipped as a whole, or a pool of millions of subnets below one route would be walked through.
		for p := netip.PrefixFrom(s.Base.Masked().Addr(), s.Size); s.Base.Contains(p.Addr()); {
			k := slices.IndexFunc(taken, func(u Use) bool { return u.Subnet.Overlaps(p) })
			if k < 0 {
				return p, nil
			}
			end := Last(p)
			if past := Last(taken[k].Subnet); past.Compare(end) > 0 {
				end = past
			}
			next := end.Next()
			if !next.IsValid() {
				break
			}
			p = netip.PrefixFrom(next, s.Size).Masked()
		}
	}
	why := ""
	if len(sources) > 0 {
		if what := Clash(sources[0].Base, taken); what != "" {
			why = ", such as the " + what
		}
	}
	return netip.Prefix{}, fault.New(fault.Unavailable, "all predefined address pools have been fully subnetted: every subnet of them overlaps with a network, a route or an address of this host%s; "+
		"name a subnet (--subnet), remove networks that are not needed (network prune), or give the daemon more (--default-address-pool)", why)
}

// Local gives the subnet of 64 bits that a network has among the unique local addresses (RFC 4193), always the same for a seed.
// It begins with the machine's own 40 bits, as the RFC wants, and has the network's in the next 16.
func Local(machine, network string) netip.Prefix {
	m, n := sha256.Sum256([]byte("berth ula "+machine)), sha256.Sum256([]byte(network))
	a := [16]byte{0xfd}
	copy(a[1:6], m[:])
	copy(a[6:8], n[:])
	return netip.PrefixFrom(netip.AddrFrom16(a), 64)
}

// Last is the last address of a subnet; of an IPv4 one, the broadcast address.
func Last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// Complete checks a pool and fills its gateway in, unless bare is set: then one without a gateway stays so. Errors are fault.Invalid.
func (p Pool) Complete(bare bool) (Pool, error) {
	bad := func(format string, args ...any) (Pool, error) {
		return p, fault.New(fault.Invalid, "subnet %s: %s", p.Subnet, fmt.Sprintf(format, args...))
	}
	if !p.Subnet.IsValid() {
		return p, fault.New(fault.Invalid, "a subnet is missing")
	}
	if p.Subnet != p.Subnet.Masked() {
		return p, fault.New(fault.Invalid, "invalid subnet %s: it should be %s", p.Subnet, p.Subnet.Masked())
	}
	if most := p.Subnet.Addr().BitLen() - 2; p.Subnet.Bits() > most && !bare {
		return bad("it has no room for a gateway and a container, %d bits are the most", most)
	}
	if p.Range.IsValid() && (p.Range.Bits() < p.Subnet.Bits() || !p.Subnet.Contains(p.Range.Addr())) {
		return bad("the range of addresses %s is not part of it", p.Range)
	}
	if p.Gateway.IsValid() && !p.Subnet.Contains(p.Gateway) {
		return bad("the gateway %s is not part of it", p.Gateway)
	}
	for name, a := range p.Aux {
		if !p.Subnet.Contains(a) {
			return bad("the auxiliary address %s (%s) is not part of it", a, name)
		}
		if a == p.Gateway {
			return bad("the auxiliary address %s (%s) is the gateway's", a, name)
		}
	}
	if p.Gateway.IsValid() || bare {
		return p, nil
	}
	l := newLedger(p)
	a, err := l.Next()
	if err != nil {
		return p, err
	}
	p.Gateway = a
	return p, nil
}

// Ledger knows which addresses of a pool are taken. The caller locks.
type Ledger struct {
	pool  Pool
	give  netip.Prefix // the part that Next gives from
	taken map[netip.Addr]bool
	from  netip.Addr // all before it that Next might give are taken
}

// NewLedger starts a ledger of a complete pool. The gateway, auxiliary addresses, the network's own and the broadcast address are taken.
func NewLedger(p Pool) *Ledger { return newLedger(p) }

func newLedger(p Pool) *Ledger {
	l := &Ledger{pool: p, give: p.Subnet, taken: map[netip.Addr]bool{}}
	if p.Range.IsValid() {
		l.give = p.Range
	}
	l.give = l.give.Masked()
	l.from = l.give.Addr()
	reserve := []netip.Addr{p.Gateway}
	// A subnet of two addresses or one has neither (RFC 3021). An IPv6 subnet's first one means any router of it (RFC 4291, 2.6.1).
	if p.Subnet.Addr().BitLen()-p.Subnet.Bits() > 1 {
		reserve = append(reserve, p.Subnet.Masked().Addr())
		if p.Subnet.Addr().Is4() {
			reserve = append(reserve, Last(p.Subnet))
		}
	}
	for _, a := range p.Aux {
		reserve = append(reserve, a)
	}
	for _, a := range reserve {
		if a.IsValid() {
			l.taken[a] = true
		}
	}
	return l
}

// Subnet is the ledger's.
func (l *Ledger) Subnet() netip.Prefix { return l.pool.Subnet }

// Gateway is the pool's; the zero address when it has none.
func (l *Ledger) Gateway() netip.Addr { return l.pool.Gateway }

// Take takes one address. fault.Invalid: not of this subnet; fault.Conflict, in the field's words: taken.
func (l *Ledger) Take(a netip.Addr) error {
	if !l.pool.Subnet.Contains(a) {
		return fault.New(fault.Invalid, "address %s is not in the subnet %s", a, l.pool.Subnet)
	}
	if l.taken[a] {
		return fault.New(fault.Conflict, "Address already in use: %s is taken in %s", a, l.pool.Subnet)
	}
	l.taken[a] = true
	return nil
}

// Next takes the lowest free address of the range. fault.Unavailable: none is left.
func (l *Ledger) Next() (netip.Addr, error) {
	for a := l.from; a.IsValid() && l.give.Contains(a); a = a.Next() {
		if !l.taken[a] {
			l.taken[a] = true
			l.from = a.Next()
			return a, nil
		}
	}
	return netip.Addr{}, fault.New(fault.Unavailable, "no available IPv%d addresses on this network's address pools: all of %s are taken; remove containers that are not needed, or make the network with a larger subnet",
		4+2*btoi(l.give.Addr().Is6()), l.give)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Free gives an address back.
func (l *Ledger) Free(a netip.Addr) {
	if !l.taken[a] {
		return
	}
	delete(l.taken, a)
	if l.give.Contains(a) && (!l.from.IsValid() || a.Compare(l.from) < 0) {
		l.from = a
	}
}

// Taken counts the addresses that are not free, those that nobody may have included.
func (l *Ledger) Taken() int { return len(l.taken) }

// Sorted orders uses by their subnets, for people.
func Sorted(all []Use) []Use {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b Use) int {
		return cmp.Or(a.Subnet.Addr().Compare(b.Subnet.Addr()), cmp.Compare(a.Subnet.Bits(), b.Subnet.Bits()), cmp.Compare(a.What, b.What))
	})
	return all
}
