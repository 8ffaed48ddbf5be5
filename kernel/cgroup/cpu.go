package cgroup

import (
	"math"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"berth/fault"
)

// The kernel's bounds for shares (sched.h: MIN_SHARES, MAX_SHARES); outside of them it clamps without a word.
const (
	minShares = 2
	maxShares = 1 << 18
)

// cpu plans processor time and the cpuset.
func (p *plan) cpu(c *specs.LinuxCPU) error {
	if c == nil {
		return nil
	}
	if err := p.cpuTime(c); err != nil {
		return err
	}
	if c.Cpus == "" && c.Mems == "" {
		return nil
	}
	d, _ := p.in("cpuset", "cpuset", "cpuset")
	if d == "" {
		return nil
	}
	if c.Cpus != "" {
		p.set(d, "cpuset.cpus", c.Cpus, "cpuset").hint = "a list such as 0-2,7 of processors that this machine and the group above have"
	}
	if c.Mems != "" {
		p.set(d, "cpuset.mems", c.Mems, "cpuset memory nodes").hint = "a list such as 0,1 of memory nodes that this machine and the group above have"
	}
	return nil
}

func (p *plan) cpuTime(c *specs.LinuxCPU) error {
	shares, period := unsigned(c.Shares), unsigned(c.Period)
	quota, runtime, rtPeriod := value(c.Quota), value(c.RealtimeRuntime), unsigned(c.RealtimePeriod)
	if shares == 0 && quota == 0 && period == 0 && runtime == 0 && rtPeriod == 0 && c.Burst == nil && c.Idle == nil {
		return nil
	}
	switch {
	case shares != 0 && shares < minShares:
		return fault.New(fault.Invalid, "the minimum allowed cpu-shares is %d, not %d", minShares, shares)
	case shares > maxShares:
		return fault.New(fault.Invalid, "the maximum allowed cpu-shares is %d, not %d", maxShares, shares)
	}
	d, version := p.in("cpu", "cpu", "cpu limit")
	switch version {
	case 1:
		p.cpuV1(d, c)
	case 2:
		p.cpuV2(d, c)
	}
	return nil
}

const quotaHint = "microseconds: a period is 1000 to 1000000, a quota at least 1000 or -1, and no more than the group above has"

func (p *plan) cpuV1(d string, c *specs.LinuxCPU) {
	if n := unsigned(c.RealtimePeriod); n != 0 {
		p.set(d, "cpu.rt_period_us", utoa(n), "realtime period").optional = true
	}
	if n := value(c.RealtimeRuntime); n != 0 {
		s := p.set(d, "cpu.rt_runtime_us", itoa(n), "realtime runtime")
		s.optional, s.hint = true, "the group above must have been given as much realtime runtime"
	}
	if n := unsigned(c.Shares); n != 0 {
		p.set(d, "cpu.shares", utoa(n), "cpu shares")
	}
	if n := unsigned(c.Period); n != 0 {
		s := p.set(d, "cpu.cfs_period_us", utoa(n), "cpu period")
		s.optional, s.hint = true, quotaHint
	}
	if n := value(c.Quota); n != 0 {
		s := p.set(d, "cpu.cfs_quota_us", itoa(max(n, -1)), "cpu quota")
		s.optional, s.hint = true, quotaHint
	}
	p.burstAndIdle(d, "cpu.cfs_burst_us", c)
}

func (p *plan) cpuV2(d string, c *specs.LinuxCPU) {
	if n := unsigned(c.Shares); n != 0 {
		s := p.set(d, "cpu.weight", utoa(Weight(n)), "cpu shares")
		s.hint = "an idle group has no shares"
	}
	quota, period := value(c.Quota), unsigned(c.Period)
	if quota != 0 || period != 0 {
		limit := orMax(quota)
		if quota == 0 {
			limit = p.currentQuota(d)
		}
		if period != 0 {
			limit += " " + utoa(period)
		}
		p.set(d, "cpu.max", limit, "cpu quota and period").hint = quotaHint
	}
	if value(c.RealtimeRuntime) != 0 || unsigned(c.RealtimePeriod) != 0 {
		p.discard("realtime runtime and period", "cgroup v2 has no such setting")
	}
	p.burstAndIdle(d, "cpu.max.burst", c)
}

// currentQuota is the first word of cpu.max, which the kernel wants repeated when only the period changes.
func (p *plan) currentQuota(d string) string {
	if !p.fresh {
		if now, err := read(d, "cpu.max"); err == nil {
			quota, _, _ := strings.Cut(now, " ")
			return quota
		}
	}
	return "max"
}

func (p *plan) burstAndIdle(d, burst string, c *specs.LinuxCPU) {
	if c.Burst != nil {
		s := p.set(d, burst, utoa(*c.Burst), "cpu burst")
		s.optional, s.hint = true, "it can't be above the cpu quota"
	}
	if c.Idle != nil {
		p.set(d, "cpu.idle", itoa(*c.Idle), "cpu idle").optional = true
	}
}

// Weight turns v1's cpu.shares (2 to 262144, 1024 is usual) into v2's cpu.weight (1 to 10000, 100 is usual). The curve
// is the one that current runtimes share: 10^((l²+125·l)/612 − 7/34) with l = log2(shares), so that both ends and both usual values meet.
func Weight(shares uint64) uint64 {
	switch {
	case shares <= minShares:
		return 1
	case shares >= maxShares:
		return 10000
	}
	l := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34) - 1e-9))
}

func unsigned(n *uint64) uint64 {
	if n == nil {
		return 0
	}
	return *n
}
