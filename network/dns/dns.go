// Package dns answers containers' questions for names: of each other, on the networks that they share, and by asking
// the name servers outside for everything else.
//
// It is not a cache and not an authority for anybody but the containers whose questions it gets at names.Address, each in
// its own network namespace. Invariant: what a container can ask for, and have wait, is bounded, so that none
// can keep the others from being answered.
package dns

import (
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"

	"berth/network/names"

	"github.com/miekg/dns"
)

const (
	// timeToLive is short, as a container's next life has another address, and asking again costs nothing: the answer is one memory away.
	// In seconds, as Kubernetes' cluster DNS has it. (Docker says 600, which made programs that keep answers talk to the dead.)
	timeToLive = 5
	ourSize    = 4096 // of answers that we take over UDP, in bytes
)

// query is a question as it came.
type query struct {
	raw      []byte
	parsed   dns.Msg
	question dns.Question
	end      int // of the question in raw
	tcp      bool
	room     int // for the answer, in bytes
}

// read takes a packet apart. No answer is due to what is no question at all; otherwise refuse is what to say to one that isn't understood.
func read(raw []byte, tcp bool) (q *query, refuse []byte) {
	const header, response = 12, 1 << 7
	if len(raw) < header || raw[2]&response != 0 {
		return nil, nil
	}
	if opcode := raw[2] >> 3 & 0xf; opcode != dns.OpcodeQuery {
		return nil, refusal(raw, dns.RcodeNotImplemented)
	}
	q = &query{raw: raw, tcp: tcp, room: dns.MinMsgSize}
	var ok bool
	if q.end, ok = questionEnd(raw); !ok || q.parsed.Unpack(raw) != nil || len(q.parsed.Question) != 1 {
		return nil, refusal(raw, dns.RcodeFormatError)
	}
	q.question = q.parsed.Question[0]
	if opt := q.parsed.IsEdns0(); opt != nil {
		q.room = max(q.room, int(opt.UDPSize()))
	}
	if tcp {
		q.room = dns.MaxMsgSize
	}
	return q, nil
}

// questionEnd is where the only question ends; names in it are not compressed, as nothing stands before them.
func questionEnd(raw []byte) (int, bool) {
	if len(raw) < 12 || raw[4] != 0 || raw[5] != 1 {
		return 0, false
	}
	for k := 12; k < len(raw); {
		switch n := int(raw[k]); {
		case n == 0:
			return k + 5, k+5 <= len(raw)
		case n > 63:
			return 0, false
		default:
			k += n + 1
		}
	}
	return 0, false
}

// refusal is an answer that has a code and nothing else.
func refusal(raw []byte, code int) []byte {
	out := make([]byte, 12)
	copy(out, raw[:4])
	out[2] |= 1 << 7
	out[2] &^= 1 << 1                    // not truncated
	out[3] = 1<<7 | byte(code&0xf)       // recursion is to be had
	if end, ok := questionEnd(raw); ok { // who asked wants to see what it was
		out[5] = 1
		out = append(out, raw[12:end]...)
	}
	return out
}

// local answers what m's networks know; nil: they know nothing of it.
func (d *directory) local(m *names.Member, q *query, note func(names.Step)) []byte {
	if q.question.Qclass != dns.ClassINET {
		return nil
	}
	var answers []dns.RR
	head := dns.RR_Header{Name: q.question.Name, Rrtype: q.question.Qtype, Class: dns.ClassINET, Ttl: timeToLive}
	switch q.question.Qtype {
	case dns.TypePTR:
		a, ok := reversed(q.question.Name)
		if !ok {
			return nil
		}
		name, network := d.called(m, a)
		if name == "" {
			return nil
		}
		tell(note, names.Step{Network: network, Asked: a.String(), Result: "has it"})
		answers = append(answers, &dns.PTR{Hdr: head, Ptr: dns.Fqdn(name)})
	default:
		six := q.question.Qtype == dns.TypeAAAA
		found, known := d.find(m, q.question.Name, six, note)
		if owner := serviceOwner(q.question.Name); !known && owner != "" {
			_, known = d.find(m, owner, six, note)
		}
		if !known {
			return nil
		}
		rand.Shuffle(len(found), func(i, j int) { found[i], found[j] = found[j], found[i] })
		// Other types of a name that is ours: there are none, and nobody outside is asked.
		for _, a := range found {
			switch q.question.Qtype {
			case dns.TypeA, dns.TypeANY:
				head.Rrtype = dns.TypeA
				answers = append(answers, &dns.A{Hdr: head, A: a.AsSlice()})
			case dns.TypeAAAA:
				answers = append(answers, &dns.AAAA{Hdr: head, AAAA: a.AsSlice()})
			}
		}
	}
	return q.answer(answers)
}

// serviceOwner is whose service a name such as _http._tcp.web is (RFC 2782, RFC 8552); "": it is no such name.
func serviceOwner(name string) string {
	owner := name
	for strings.HasPrefix(owner, "_") {
		_, owner, _ = strings.Cut(owner, ".")
	}
	if owner == name {
		return ""
	}
	return owner
}

// answer packs records into the room that there is.
func (q *query) answer(records []dns.RR) []byte {
	r := new(dns.Msg).SetReply(&q.parsed)
	r.RecursionAvailable, r.Answer, r.Compress = true, records, true
	if q.parsed.IsEdns0() != nil {
		r.SetEdns0(ourSize, false)
	}
	r.Truncate(q.room)
	out, err := r.Pack()
	if err != nil {
		return refusal(q.raw, dns.RcodeServerFailure)
	}
	return out
}

// reversed reads the name that an address has in the tree of pointers (RFC 1035, 3.5; RFC 3596, 2.5).
func reversed(name string) (a netip.Addr, ok bool) {
	name = strings.ToLower(name)
	if digits, is4 := strings.CutSuffix(name, ".in-addr.arpa."); is4 {
		parts := strings.Split(digits, ".")
		if len(parts) != 4 {
			return a, false
		}
		var b [4]byte
		for k, p := range parts {
			n, err := strconv.ParseUint(p, 10, 8)
			if err != nil {
				return a, false
			}
			b[3-k] = byte(n)
		}
		return netip.AddrFrom4(b), true
	}
	digits, is6 := strings.CutSuffix(name, ".ip6.arpa.")
	parts := strings.Split(digits, ".")
	if !is6 || len(parts) != 32 {
		return a, false
	}
	var b [16]byte
	for k, p := range parts {
		n, err := strconv.ParseUint(p, 16, 4)
		if err != nil || len(p) != 1 {
			return a, false
		}
		k = 31 - k
		b[k/2] |= byte(n) << (4 * (1 - k%2))
	}
	return netip.AddrFrom16(b), true
}
