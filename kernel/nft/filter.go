package nft

import "bytes"

// Filter is a base chain of other software as it was read, with all that it leads to.
type Filter struct {
	Legacy bool   // of iptables-legacy
	Family string // "ip", "ip6" or "inet"
	Table  string
	Chain  string
	Hook   string // "forward" or "input"
	Drops  bool   // its policy
	Rules  map[string][]Read
}

// Read is a rule as it was read: where all Matches fit, Then is done; with a Key, the first of Cases that has its value says what.
type Read struct {
	Matches []Match
	Key     Field
	Cases   []Case
	Then    Step
}

// Case is an element of a verdict map.
type Case struct {
	Values Range
	Then   Step
}

// Step is what a rule does.
type Step struct {
	Do Do
	To string // the chain of Jump and Goto
}

// Do is the kind of a Step.
type Do int

// The kinds; Next goes on with the next rule.
const (
	Next Do = iota
	Accepts
	Drops
	Jumps
	Goes
	Returns
)

// Field is what a Match looks at. Unknown is what nobody here can tell.
type Field int

// The fields, and their values' form.
const (
	Unknown       Field = iota
	InLink              // name, 16 bytes
	OutLink             // name, 16 bytes
	InIndex             // 4 bytes in the host's order
	OutIndex            // the same
	State               // of the connection: NFT_CT_STATE bits, 4 bytes in the host's order
	StateOrNAT          // the same, and xt_conntrack's bits for translated ones
	Status              // enum ip_conntrack_status, 4 bytes in the host's order
	Protocol            // of transport, 1 byte
	FamilyOf            // NFPROTO_IPV4 or NFPROTO_IPV6, 1 byte
	FromAddress         // address, 4 or 16 bytes
	ToAddress           // address
	Port                // the destination's, 2 bytes
	KindOfAddress       // of the destination: RTN_UNICAST, RTN_LOCAL, … (rtnetlink(7)), 4 bytes in the host's order
)

// Range is the values from Low to High, both included. Shorter ones than a packet's are compared with its beginning.
type Range struct{ Low, High []byte }

func only(v []byte) Range { return Range{v, v} }

// Match is a condition: that the field's value, after the mask, is in one of the ranges, or, with Not, in none.
type Match struct {
	Field  Field
	Mask   []byte // nil: all of it
	Ranges []Range
	Not    bool
}

// Packet is the values that are known of one; those of fields that aren't there can be anything.
type Packet map[Field][]byte

// answer is what is known of a condition.
type answer int

const (
	no answer = iota
	maybe
	yes
)

func (r Range) has(v []byte) (fits, comparable bool) {
	if len(r.Low) == 0 || len(r.Low) > len(v) || len(r.High) != len(r.Low) {
		return false, false
	}
	v = v[:len(r.Low)]
	return bytes.Compare(r.Low, v) <= 0 && bytes.Compare(v, r.High) <= 0, true
}

func (m Match) fits(p Packet) answer {
	v, known := p[m.Field]
	if !known || m.Field == Unknown {
		return maybe
	}
	if m.Mask != nil {
		masked := make([]byte, min(len(v), len(m.Mask)))
		for k := range masked {
			masked[k] = v[k] & m.Mask[k]
		}
		v = masked
	}
	found := false
	for _, r := range m.Ranges {
		fits, comparable := r.has(v)
		if !comparable {
			return maybe
		}
		found = found || fits
	}
	if found != m.Not {
		return yes
	}
	return no
}

// names tells whether a match speaks of the very links or addresses of a packet.
func (m Match) names() bool {
	switch m.Field {
	case InLink, OutLink, InIndex, OutIndex, FromAddress, ToAddress:
		return !m.Not
	}
	return false
}

// Place is where a packet ends.
type Place struct {
	Chain  string // with the rule that drops it
	Policy bool   // it is the base chain's policy
}

// Fate tells whether a packet is dropped or rejected, and where. Where a rule has conditions that can't be told, it is taken to
// apply if it accepts and speaks of the packet's own link or address, and else not to.
func (f *Filter) Fate(p Packet) (Place, bool) {
	budget := 10000 // rules; a longer way is no way
	do, at := f.walk(f.Chain, p, &budget, 0)
	switch do {
	case Drops:
		return Place{Chain: at}, true
	case Accepts:
		return Place{}, false
	}
	return Place{Chain: f.Chain, Policy: true}, f.Drops
}

func (f *Filter) walk(chain string, p Packet, budget *int, depth int) (do Do, at string) {
	if depth > 32 {
		return Accepts, chain
	}
	for _, r := range f.Rules[chain] {
		if *budget--; *budget < 0 {
			return Accepts, chain
		}
		step, ok := r.step(p)
		if !ok {
			continue
		}
		switch step.Do {
		case Accepts, Drops:
			return step.Do, chain
		case Returns:
			return Next, chain
		case Jumps, Goes:
			do, at := f.walk(step.To, p, budget, depth+1)
			if do == Accepts || do == Drops || step.Do == Goes {
				return do, at
			}
		}
	}
	return Next, chain
}

// step is what a rule does with a packet; false: nothing.
func (r Read) step(p Packet) (Step, bool) {
	sure, named := true, false
	for _, m := range r.Matches {
		switch m.fits(p) {
		case no:
			return Step{}, false
		case maybe:
			sure = false
		case yes:
			named = named || m.names()
		}
	}
	then := r.Then
	if r.Cases != nil {
		v, known := p[r.Key]
		if !known {
			return Step{}, false
		}
		found := false
		for _, c := range r.Cases {
			if fits, _ := c.Values.has(v); fits {
				then, found = c.Then, true
				break
			}
		}
		if !found {
			return Step{}, false
		}
	}
	return then, sure || named && then.Do == Accepts
}
