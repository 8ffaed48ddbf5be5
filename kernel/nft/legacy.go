package nft

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The old packet filter, beside nftables (linux/netfilter_ipv4/ip_tables.h and ip6_tables.h): getsockopt(2) options, the same for both
// families, and the layout of their answers in bytes.
const (
	getInfo    = 64 // IPT_SO_GET_INFO: struct ipt_getinfo
	getEntries = 65 // IPT_SO_GET_ENTRIES: struct ipt_get_entries

	infoSize, infoHooks, infoUnderflows, infoBytes = 84, 36, 56, 80
	entriesAt                                      = 40
	extensionHead                                  = 32 // struct xt_entry_match and xt_entry_target: size, name, revision
	inputHook, forwardHook                         = 1, 2
)

// layout is where things are in an entry of a family, in bytes.
type layout struct {
	family                            string
	names                             string // file with the tables that are loaded
	domain, protocol, level           int
	address                           int // length
	in, out, inMask, outMask          int
	proto, flags, inverted            int
	target, next, size                int
	protoFlag, gotoFlag               byte
	invIn, invOut, invSource, invDest byte
	invProto                          byte
}

var (
	layout4 = layout{family: "ip", names: "/proc/net/ip_tables_names", domain: unix.AF_INET, protocol: unix.IPPROTO_RAW, level: unix.SOL_IP, address: 4,
		in: 16, out: 32, inMask: 48, outMask: 64, proto: 80, flags: 82, inverted: 83, target: 88, next: 90, size: 112,
		gotoFlag: 2, invIn: 1, invOut: 2, invSource: 8, invDest: 16, invProto: 64}
	layout6 = layout{family: "ip6", names: "/proc/net/ip6_tables_names", domain: unix.AF_INET6, protocol: unix.IPPROTO_RAW, level: unix.SOL_IPV6, address: 16,
		in: 64, out: 80, inMask: 96, outMask: 112, proto: 128, flags: 131, inverted: 132, target: 140, next: 142, size: 168,
		protoFlag: 1, gotoFlag: 4, invIn: 1, invOut: 2, invSource: 8, invDest: 16, invProto: 64}
)

// legacyFilters reads the chains FORWARD and INPUT of the tables "filter" of iptables-legacy. A table that nobody has loaded is not loaded by looking.
func legacyFilters() (all []*Filter, err error) {
	for _, l := range []*layout{&layout4, &layout6} {
		found, lerr := l.filters()
		all, err = append(all, found...), errors.Join(err, lerr)
	}
	return all, err
}

func (l *layout) filters() ([]*Filter, error) {
	names, err := os.ReadFile(l.names)
	if errors.Is(err, fs.ErrNotExist) || (err == nil && !slices.ContainsFunc(bytes.Fields(names), func(n []byte) bool { return string(n) == "filter" })) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s, err := unix.Socket(l.domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, l.protocol)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer unix.Close(s)
	for try := 0; ; try++ {
		info := make([]byte, infoSize)
		copy(info, "filter")
		if err = getsockopt(s, l.level, getInfo, info); err != nil {
			break
		}
		size := binary.NativeEndian.Uint32(info[infoBytes:])
		table := make([]byte, entriesAt+int(size))
		copy(table, "filter")
		binary.NativeEndian.PutUint32(table[32:], size)
		if err = getsockopt(s, l.level, getEntries, table); errors.Is(err, unix.EAGAIN) && try < 3 { // it changed in between
			continue
		}
		if err != nil {
			break
		}
		return l.read(table[entriesAt:], info), nil
	}
	return nil, fmt.Errorf("read the iptables-legacy table filter (%s): %w", l.family, err)
}

// read takes a table apart. Every rule is a chain's member by the offset where the chain begins.
func (l *layout) read(table, info []byte) (all []*Filter) {
	word := func(at int) int { return int(binary.NativeEndian.Uint32(info[at:])) }
	for hook, name := range map[int]string{inputHook: "INPUT", forwardHook: "FORWARD"} {
		first, policy := word(infoHooks+4*hook), word(infoUnderflows+4*hook)
		f := &Filter{Legacy: true, Family: l.family, Table: "filter", Chain: name, Hook: map[string]string{"INPUT": "input", "FORWARD": "forward"}[name], Rules: map[string][]Read{}}
		todo := []int{first}
		for len(todo) > 0 {
			at := todo[0]
			todo = todo[1:]
			key := l.chainName(table, at, first, name)
			if _, done := f.Rules[key]; done {
				continue
			}
			f.Rules[key] = []Read{}
			for at >= 0 && at+l.size <= len(table) {
				e := table[at:]
				next := int(binary.NativeEndian.Uint16(e[l.next:]))
				r, to, end := l.rule(e, next, at)
				if at == policy {
					f.Drops = r.Then.Do == Drops
					break
				}
				if next < l.size || end {
					break
				}
				if to >= 0 {
					r.Then.To = l.chainName(table, to, first, name)
					todo = append(todo, to)
				}
				f.Rules[key] = append(f.Rules[key], r)
				at += next
			}
		}
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b *Filter) int { return bytes.Compare([]byte(a.Chain), []byte(b.Chain)) })
	return all
}

// chainName is the chain's that begins at an offset: its head stands before, an entry with the target ERROR and the name.
func (l *layout) chainName(table []byte, at, first int, base string) string {
	if at == first {
		return base
	}
	const errorName = 32 // XT_FUNCTION_MAXNAMELEN 30, and the padding
	if head := at - l.size - extensionHead - errorName; head >= 0 && cstring(table[head+l.size+2:head+l.size+2+29]) == "ERROR" {
		text := table[head+l.size+extensionHead:]
		return cstring(text[:min(30, len(text))])
	}
	return strconv.Itoa(at)
}

func cstring(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}

// rule reads an entry; to is the offset that it jumps to, or -1; end: it is the head of the next chain.
func (l *layout) rule(e []byte, next, at int) (r Read, to int, end bool) {
	to = -1
	inverted := e[l.inverted]
	mask := func(f Field, value, mask []byte, not byte) {
		if slices.ContainsFunc(mask, func(b byte) bool { return b != 0 }) {
			r.Matches = append(r.Matches, Match{Field: f, Mask: mask, Ranges: []Range{only(value)}, Not: inverted&not != 0})
		}
	}
	a := l.address
	mask(FromAddress, e[:a], e[2*a:3*a], l.invSource)
	mask(ToAddress, e[a:2*a], e[3*a:4*a], l.invDest)
	mask(InLink, e[l.in:l.in+16], e[l.inMask:l.inMask+16], l.invIn)
	mask(OutLink, e[l.out:l.out+16], e[l.outMask:l.outMask+16], l.invOut)
	if p := binary.NativeEndian.Uint16(e[l.proto:]); p != 0 && (l.protoFlag == 0 || e[l.flags]&l.protoFlag != 0) {
		r.Matches = append(r.Matches, Match{Field: Protocol, Ranges: []Range{only([]byte{byte(p)})}, Not: inverted&l.invProto != 0})
	}
	target := int(binary.NativeEndian.Uint16(e[l.target:]))
	for m := l.size; m+extensionHead <= target && target <= len(e); {
		size := int(binary.NativeEndian.Uint16(e[m:]))
		if size < extensionHead || m+size > target {
			break
		}
		r.Matches = append(r.Matches, legacyMatch(cstring(e[m+2:m+31]), e[m+31], e[m+extensionHead:m+size])...)
		m += size
	}
	if target+extensionHead+4 > len(e) {
		return r, to, true
	}
	switch name := cstring(e[target+2 : target+31]); name {
	case "ERROR":
		return r, to, true
	case "REJECT":
		r.Then = Step{Do: Drops}
	case "NFQUEUE":
		r.Then = Step{Do: Accepts}
	case "":
		verdict := int(int32(binary.NativeEndian.Uint32(e[target+extensionHead:])))
		switch {
		case verdict == -1: // -NF_DROP - 1
			r.Then = Step{Do: Drops}
		case verdict == -2: // -NF_ACCEPT - 1
			r.Then = Step{Do: Accepts}
		case verdict == -4: // -NF_QUEUE - 1
			r.Then = Step{Do: Accepts}
		case verdict < 0: // XT_RETURN
			r.Then = Step{Do: Returns}
		case verdict == at+next: // the next rule
		case e[l.flags]&l.gotoFlag != 0:
			r.Then, to = Step{Do: Goes}, verdict
		default:
			r.Then, to = Step{Do: Jumps}, verdict
		}
	}
	return r, to, false
}

// legacyMatch reads a match's data (xt_conntrack.h, xt_state.h, xt_tcpudp.h).
func legacyMatch(name string, revision byte, data []byte) []Match {
	const flags, inverted, states = 146, 148, 150
	switch {
	case name == "comment":
		return nil
	case name == "conntrack" && revision >= 2 && len(data) >= states+2:
		u := binary.NativeEndian.Uint16
		return []Match{conntrackMatch(u(data[flags:]), u(data[inverted:]), u(data[states:]))}
	case name == "state" && len(data) >= 4:
		return []Match{conntrackMatch(1, 0, uint16(binary.NativeEndian.Uint32(data)))}
	case name == "addrtype" && revision == 1 && len(data) >= 8:
		u := binary.NativeEndian.Uint16
		return []Match{addressMatch(u(data), u(data[2:]), binary.NativeEndian.Uint32(data[4:]))}
	case name == "tcp" && len(data) >= 12:
		u := binary.NativeEndian.Uint16
		all := []Match{{Field: Protocol, Ranges: []Range{only([]byte{unix.IPPROTO_TCP})}}, portMatch([2]uint16{u(data[4:]), u(data[6:])}, data[11]&2 != 0)}
		if u(data) != 0 || u(data[2:]) != 65535 || data[8] != 0 || data[9] != 0 {
			all = append(all, Match{})
		}
		return all
	}
	return []Match{{}}
}

func getsockopt(s, level, option int, buf []byte) error {
	size := uint32(len(buf))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(s), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return os.NewSyscallError("getsockopt", errno)
	}
	return nil
}
