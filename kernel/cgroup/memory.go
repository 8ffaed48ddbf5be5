package cgroup

import (
	"github.com/opencontainers/runtime-spec/specs-go"

	"berth/fault"
)

// memory plans the memory section (v1: the kernel's cgroup-v1/memory.rst, v2: cgroup-v2.rst). Zero means unset, -1 unlimited.
func (p *plan) memory(m *specs.LinuxMemory) error {
	if m == nil {
		return nil
	}
	limit, swap := value(m.Limit), value(m.Swap)
	if swap > 0 && limit > 0 && swap < limit {
		return fault.New(fault.Invalid, "memory and swap together (%d) must not be less than memory alone (%d)", swap, limit)
	}
	wanted := false
	for _, v := range []int64{limit, swap, value(m.Reservation), kernelLimit(m), value(m.KernelTCP)} {
		wanted = wanted || v != 0
	}
	if !wanted && m.Swappiness == nil && !isTrue(m.DisableOOMKiller) {
		return nil
	}
	d, version := p.in("memory", "memory", "memory limit")
	switch version {
	case 1:
		p.memoryV1(d, m, limit, swap)
	case 2:
		return p.memoryV2(d, m, limit, swap)
	}
	return nil
}

func (p *plan) memoryV1(d string, m *specs.LinuxMemory, limit, swap int64) {
	if limit == -1 && swap == 0 && exists(d+"/memory.memsw.limit_in_bytes") {
		swap = -1 // an unlimited memory can't sit under a limit of both
	}
	if limit != 0 {
		s := p.set(d, "memory.limit_in_bytes", itoa(limit), "memory limit")
		s.hint = "it can be neither above the limit of memory and swap together, set both at once, nor below what is in use and can't be reclaimed"
	}
	if swap != 0 {
		s := p.set(d, "memory.memsw.limit_in_bytes", itoa(swap), "limit of memory and swap")
		s.optional = true
		s.hint = "it can't be below the memory limit or what is in use"
	}
	if r := value(m.Reservation); r != 0 {
		p.set(d, "memory.soft_limit_in_bytes", itoa(r), "memory reservation").optional = true
	}
	if k := kernelLimit(m); k != 0 {
		p.set(d, "memory.kmem.limit_in_bytes", itoa(k), "kernel memory limit").optional = true
	}
	if k := value(m.KernelTCP); k != 0 {
		p.set(d, "memory.kmem.tcp.limit_in_bytes", itoa(k), "kernel TCP memory limit").optional = true
	}
	if m.Swappiness != nil {
		p.set(d, "memory.swappiness", utoa(*m.Swappiness), "memory swappiness").optional = true
	}
	if isTrue(m.DisableOOMKiller) {
		p.set(d, "memory.oom_control", "1", "switching the OOM killer off").optional = true
	} else if m.DisableOOMKiller != nil && !p.fresh {
		p.set(d, "memory.oom_control", "0", "switching the OOM killer on").optional = true
	}
}

func (p *plan) memoryV2(d string, m *specs.LinuxMemory, limit, swap int64) error {
	if limit != 0 {
		p.set(d, "memory.max", orMax(limit), "memory limit")
	}
	switch {
	case swap == -1, swap == 0 && limit == -1:
		p.set(d, "memory.swap.max", "max", "swap limit").optional = true
	case swap > 0 && limit > 0:
		p.set(d, "memory.swap.max", itoa(swap-limit), "swap limit").optional = true
	case swap > 0:
		// v2 limits swap by itself: the memory limit that it is counted on top of must be known.
		now, ok := readUint(d, "memory.max")
		if !ok || now > uint64(swap) {
			return fault.New(fault.Invalid, "a limit of memory and swap together (%d) needs a memory limit that is not above it", swap)
		}
		p.set(d, "memory.swap.max", utoa(uint64(swap)-now), "swap limit").optional = true
	}
	if r := value(m.Reservation); r != 0 { // what is protected: no limit there is no protection here
		p.set(d, "memory.low", itoa(max(r, 0)), "memory reservation")
	}
	for _, v1Only := range []struct {
		what string
		set  bool
	}{
		{"kernel memory limit", kernelLimit(m) != 0},
		{"kernel TCP memory limit", value(m.KernelTCP) != 0},
		{"memory swappiness", m.Swappiness != nil},
		{"switching the OOM killer off", isTrue(m.DisableOOMKiller)},
	} {
		if v1Only.set {
			p.discard(v1Only.what, "cgroup v2 has no such setting")
		}
	}
	return nil
}

func (p *plan) pids(s *specs.LinuxPids) error {
	if s == nil || s.Limit == nil {
		return nil
	}
	if d, _ := p.in("pids", "pids", "pids limit"); d != "" {
		limit := *s.Limit
		if limit == 0 {
			limit = -1 // as Docker's command line means it
		}
		p.set(d, "pids.max", orMax(limit), "pids limit")
	}
	return nil
}

// kernelLimit reads a field that old callers still send and that may not get lost without a word.
func kernelLimit(m *specs.LinuxMemory) int64 {
	//lint:ignore SA1019 kernels before 5.16 hold it, later ones make a warning
	return value(m.Kernel)
}

// value is what an optional number says; zero is unset.
func value(n *int64) int64 {
	if n == nil {
		return 0
	}
	return *n
}

func isTrue(b *bool) bool { return b != nil && *b }

// orMax prints a limit for v2 (and for pids, everywhere), where no limit is a word.
func orMax(n int64) string {
	if n < 0 {
		return "max"
	}
	return itoa(n)
}
