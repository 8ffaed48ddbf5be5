package cgroup

import (
	"strconv"
	"strings"
)

// Stats is what a group has used since it was made, and what it may use. A part whose controller is missing is zero.
type Stats struct {
	CPU    CPUStats
	Memory MemoryStats
	Pids   PidsStats
	IO     []IOStats
}

// CPUStats counts processor time in nanoseconds.
type CPUStats struct {
	Total, User, System uint64
	PerCPU              []uint64 // v1 only
	Periods, Throttled  uint64   // periods of the quota, and how many of them ran into it
	ThrottledTime       uint64   // nanoseconds
}

// MemoryStats counts bytes. Limit 0 is unlimited.
type MemoryStats struct {
	Usage, MaxUsage, Limit uint64
	SwapUsage              uint64            // v1: of memory and swap together, minus memory
	Failures               uint64            // times that the limit was hit
	Detail                 map[string]uint64 // memory.stat as the kernel prints it
}

// PidsStats counts processes and threads. Limit 0 is unlimited.
type PidsStats struct{ Current, Limit uint64 }

// IOStats counts what one block device did.
type IOStats struct {
	Major, Minor                                       uint64
	ReadBytes, WriteBytes, ReadRequests, WriteRequests uint64
}

// Stats reads the group's counters; of a group that is gone they are zero.
func (g *Group) Stats() Stats {
	var s Stats
	g.cpuStats(&s.CPU)
	g.memoryStats(&s.Memory)
	for version := 1; version <= 2; version++ {
		if d := g.in("pids", version); d != "" {
			s.Pids.Current, _ = readUint(d, "pids.current")
			s.Pids.Limit, _ = readUint(d, "pids.max")
			break
		}
	}
	s.IO = g.ioStats()
	return s
}

func (g *Group) cpuStats(s *CPUStats) {
	if d := g.in("cpuacct", 1); d != "" {
		s.Total, _ = readUint(d, "cpuacct.usage")
		perCPU, _ := read(d, "cpuacct.usage_percpu")
		for f := range strings.FieldsSeq(perCPU) {
			n, _ := strconv.ParseUint(f, 10, 64)
			s.PerCPU = append(s.PerCPU, n)
		}
		const tick = 1e9 / 100 // USER_HZ is 100 wherever Linux runs Go
		k := readKeyed(d, "cpuacct.stat")
		s.User, s.System = k["user"]*tick, k["system"]*tick
	}
	if d := g.in("cpu", 1); d != "" {
		k := readKeyed(d, "cpu.stat")
		s.Periods, s.Throttled, s.ThrottledTime = k["nr_periods"], k["nr_throttled"], k["throttled_time"]
	}
	if d := g.v2(); d != "" && g.in("cpuacct", 1) == "" {
		k := readKeyed(d, "cpu.stat")
		s.Total, s.User, s.System = k["usage_usec"]*1000, k["user_usec"]*1000, k["system_usec"]*1000
		s.Periods, s.Throttled, s.ThrottledTime = k["nr_periods"], k["nr_throttled"], k["throttled_usec"]*1000
	}
}

func (g *Group) memoryStats(s *MemoryStats) {
	if d := g.in("memory", 1); d != "" {
		s.Usage, _ = readUint(d, "memory.usage_in_bytes")
		s.MaxUsage, _ = readUint(d, "memory.max_usage_in_bytes")
		s.Limit, _ = readUint(d, "memory.limit_in_bytes")
		s.Failures, _ = readUint(d, "memory.failcnt")
		if both, ok := readUint(d, "memory.memsw.usage_in_bytes"); ok {
			s.SwapUsage = max(both, s.Usage) - s.Usage
			failures, _ := readUint(d, "memory.memsw.failcnt") // an equal limit of both is the one that is hit
			s.Failures = max(s.Failures, failures)
		}
		s.Detail = readKeyed(d, "memory.stat")
		return
	}
	if d := g.in("memory", 2); d != "" {
		s.Usage, _ = readUint(d, "memory.current")
		s.MaxUsage, _ = readUint(d, "memory.peak") // Linux 5.19
		s.Limit, _ = readUint(d, "memory.max")
		s.SwapUsage, _ = readUint(d, "memory.swap.current")
		s.Failures = readKeyed(d, "memory.events")["max"]
		s.Detail = readKeyed(d, "memory.stat")
	}
}

func (g *Group) ioStats() []IOStats {
	if d := g.in("blkio", 1); d != "" {
		bytes, _ := read(d, "blkio.throttle.io_service_bytes_recursive")
		requests, _ := read(d, "blkio.throttle.io_serviced_recursive")
		return parseBlkio(bytes, requests)
	}
	if d := g.in("io", 2); d != "" {
		s, _ := read(d, "io.stat")
		return parseIOStat(s)
	}
	return nil
}

// parseBlkio reads v1's "8:0 Read 4096" lines of two files.
func parseBlkio(bytes, requests string) []IOStats {
	var all []IOStats
	at := func(major, minor uint64) *IOStats {
		for i := range all {
			if all[i].Major == major && all[i].Minor == minor {
				return &all[i]
			}
		}
		all = append(all, IOStats{Major: major, Minor: minor})
		return &all[len(all)-1]
	}
	for i, text := range []string{bytes, requests} {
		for line := range strings.Lines(text) {
			f := strings.Fields(line)
			if len(f) != 3 {
				continue
			}
			major, minor, ok := parseDevice(f[0])
			n, err := strconv.ParseUint(f[2], 10, 64)
			if !ok || err != nil {
				continue
			}
			s := at(major, minor)
			switch {
			case f[1] == "Read" && i == 0:
				s.ReadBytes = n
			case f[1] == "Write" && i == 0:
				s.WriteBytes = n
			case f[1] == "Read":
				s.ReadRequests = n
			case f[1] == "Write":
				s.WriteRequests = n
			}
		}
	}
	return all
}

// parseIOStat reads v2's "8:0 rbytes=4096 wbytes=0 rios=1 wios=0 …" lines.
func parseIOStat(text string) []IOStats {
	var all []IOStats
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		major, minor, ok := parseDevice(f[0])
		if !ok {
			continue
		}
		s := IOStats{Major: major, Minor: minor}
		for _, pair := range f[1:] {
			name, value, _ := strings.Cut(pair, "=")
			n, _ := strconv.ParseUint(value, 10, 64)
			switch name {
			case "rbytes":
				s.ReadBytes = n
			case "wbytes":
				s.WriteBytes = n
			case "rios":
				s.ReadRequests = n
			case "wios":
				s.WriteRequests = n
			}
		}
		all = append(all, s)
	}
	return all
}

func parseDevice(s string) (major, minor uint64, ok bool) {
	a, b, ok := strings.Cut(s, ":")
	major, err1 := strconv.ParseUint(a, 10, 64)
	minor, err2 := strconv.ParseUint(b, 10, 64)
	return major, minor, ok && err1 == nil && err2 == nil
}
