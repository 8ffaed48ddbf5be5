package seccomp

import (
	"math"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/fault"
)

// section is the part of a program for one audit architecture: every call number lies in exactly one of its ranges.
type section struct {
	audit  uint32
	ranges []callRange // sorted; each goes up to the next one's first number
}

// callRange is a run of numbers with the same verdict.
type callRange struct {
	first  uint32
	weight int // how much a short path to it is worth
	verdict
}

// verdict is what becomes of a call.
type verdict struct {
	action uint32 // when no case holds
	cases  []conditional
}

type conditional struct {
	action uint32
	when   condition
}

// newSections resolves the rules for each architecture that s allows; the native one always is, and comes first.
func newSections(s *specs.LinuxSeccomp, native specs.Arch, r rules) ([]section, error) {
	wanted := []specs.Arch{native}
	known := architectures()
	for _, name := range s.Architectures {
		if !slices.ContainsFunc(known, func(a architecture) bool { return a.name == name }) && !slices.Contains(withoutTable(), name) {
			return nil, fault.New(fault.Invalid, "seccomp profile: unknown architecture %q", name)
		}
		if !slices.Contains(wanted, name) {
			wanted = append(wanted, name)
		}
	}
	has := func(name specs.Arch) bool { return slices.Contains(wanted, name) }
	var sections []section
	for _, a := range known {
		switch {
		case a.name == specs.ArchX32 || !has(a.name) && !(a.name == specs.ArchX86_64 && has(specs.ArchX32)):
			continue
		case a.audit == unix.AUDIT_ARCH_X86_64:
			sections = append(sections, amd64Section(known[0], known[1], has(a.name), has(specs.ArchX32), r))
		default:
			sections = append(sections, section{a.audit, merge(r.ranges(a, 0, math.MaxUint32))})
		}
		if a.name == native {
			last := len(sections) - 1
			sections[0], sections[last] = sections[last], sections[0]
		}
	}
	return sections, nil
}

// amd64Section covers two ABIs with one audit number, told apart by a bit of the call's number.
func amd64Section(amd64, x32 architecture, plain, marked bool, r rules) section {
	low := []callRange{{verdict: verdict{action: unix.SECCOMP_RET_KILL_PROCESS}}}
	if plain {
		low = r.ranges(amd64, 0, x32Bit-1)
	}
	high := []callRange{{first: x32Bit, verdict: verdict{action: unix.SECCOMP_RET_KILL_PROCESS}}}
	if marked {
		high = r.ranges(x32, x32Bit, math.MaxUint32)
	} else if plain {
		// -1 is no x32 call: tracers put it in place of a number to skip a call.
		high = append(high, callRange{first: math.MaxUint32, verdict: low[len(low)-1].verdict})
	}
	return section{amd64.audit, merge(append(low, high...))}
}

// ranges lays out the numbers from first to last.
func (r rules) ranges(a architecture, first, last uint32) []callRange {
	calls, newest := r.resolve(a)
	all := make([]callRange, 0, 2*len(calls))
	// gap covers the numbers from at up to, not including, end, of which no rule speaks.
	gap := func(at, end uint64) {
		if at < end && at <= uint64(newest) {
			all = append(all, callRange{first: uint32(at), verdict: verdict{action: r.fallback}})
			at = uint64(newest) + 1
		}
		if at < end {
			all = append(all, callRange{first: uint32(at), verdict: verdict{action: r.missing}})
		}
	}
	next := uint64(first) // the first number that has no range yet
	for i := range calls {
		c := &calls[i]
		if !c.spoken {
			continue
		}
		gap(next, uint64(c.first))
		all = append(all, c.callRange)
		next = uint64(c.first) + 1
	}
	gap(next, uint64(last)+1)
	return all
}

// merge joins neighbours with the same verdict.
func merge(ranges []callRange) []callRange {
	merged := ranges[:1]
	for _, next := range ranges[1:] {
		last := &merged[len(merged)-1]
		if len(last.cases) == 0 && len(next.cases) == 0 && last.action == next.action {
			last.weight += next.weight
			continue
		}
		merged = append(merged, next)
	}
	return merged
}

// resolved is what the rules say about one call.
type resolved struct {
	callRange
	spoken bool // a rule was seen
	final  bool // one without conditions was
}

// resolve collects the rules for each call of one architecture, by number, and the newest number that the profile names there. A
// profile that names none says nothing about age: all numbers are old.
func (r rules) resolve(a architecture) (calls []resolved, newest uint32) {
	table := a.table()
	calls = make([]resolved, len(table.numbers))
	for i, n := range table.numbers {
		calls[i].first, calls[i].action = n, r.fallback
	}
	named := false
	for _, rule := range r.calls {
		for _, name := range rule.names {
			at, ok := table.index[name]
			if !ok {
				continue
			}
			if n := table.numbers[at]; a.private == 0 || n < a.private {
				newest, named = max(newest, n), true
			}
			if rule.action == r.fallback {
				continue
			}
			calls[at].apply(name, rule.action, rule.any)
			if via, arg, ok := multiplexed(a.name, name); ok && len(rule.any) == 0 {
				// ipc's upper half is a version number, which the kernel ignores.
				same := condition{{Index: 0, Value: 0xffff, ValueTwo: arg, Op: specs.OpMaskedEqual}}
				calls[table.index[via]].apply(via, rule.action, []condition{same})
			}
		}
	}
	if !named {
		newest = math.MaxUint32
	}
	return calls, newest
}

func (c *resolved) apply(name string, action uint32, any []condition) {
	if c.final {
		return
	}
	c.spoken, c.weight = true, weight(name)
	if len(any) == 0 {
		c.verdict, c.final = verdict{action: action}, true
		return
	}
	for _, when := range any {
		c.cases = append(c.cases, conditional{action, when})
	}
}

// weight says how frequent a call is in usual programs. Kernels since 5.11 remember which calls a filter always allows and don't
// run it for them, so among those that are left the ones with conditions count most; they are in the list for what they are.
func weight(name string) int {
	switch name {
	case "read", "write", "futex", "futex_time64", "epoll_wait", "epoll_pwait", "clock_gettime", "clock_gettime64", "recvfrom", "sendto", "socketcall":
		return 32
	case "openat", "open", "close", "fstat", "newfstatat", "fstatat64", "stat", "stat64", "statx", "lseek", "mmap", "mmap2", "munmap", "mprotect",
		"poll", "ppoll", "recvmsg", "sendmsg", "ioctl", "fcntl", "fcntl64", "readv", "writev", "pread64", "pwrite64", "epoll_ctl",
		"rt_sigprocmask", "nanosleep", "clock_nanosleep", "socket", "clone", "accept4", "getpid", "sched_yield":
		return 8
	}
	return 0
}

// split finds where to cut ranges so that both sides weigh about the same; it is never at an end.
func split(ranges []callRange) int {
	total := 0
	for _, r := range ranges {
		total += r.weight + 1
	}
	left, best, at := 0, math.MaxInt, 1
	for i := 1; i < len(ranges); i++ {
		left += ranges[i-1].weight + 1
		if d := distance(left, total-left); d < best {
			best, at = d, i
		}
	}
	return at
}

func distance(a, b int) int { return max(a, b) - min(a, b) }
