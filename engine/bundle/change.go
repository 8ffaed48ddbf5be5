package bundle

import (
	"slices"

	"berth/fault"

	"github.com/moby/moby/api/types/blkiodev"
	api "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// The kernel's own values, which a limit that is taken away goes back to.
const defaultShares = 1024

// LimitChange is what makes the limits to of the limits from in a running container's group: what is the same in both is left out, and
// what only from has is lifted. devices are those of both. machine has the processors and memory nodes of a group without a cpuset.
func LimitChange(from, to *api.Resources, devices map[string]specs.LinuxBlockIODevice, machine specs.LinuxCPU) (*specs.LinuxResources, error) {
	r := &specs.LinuxResources{Memory: memoryChange(from, to), CPU: cpuChange(from, to, machine)}
	if was, is := pidsOf(from), pidsOf(to); was != is {
		r.Pids = &specs.LinuxPids{Limit: &is}
	}
	var err error
	r.BlockIO, err = blockChange(from, to, devices)
	return r, err
}

func pidsOf(r *api.Resources) int64 {
	if r.PidsLimit == nil || *r.PidsLimit <= 0 {
		return -1
	}
	return *r.PidsLimit
}

// orUnlimited turns an unset limit into the kernel's word for none.
func orUnlimited(n int64) int64 {
	if n <= 0 {
		return -1
	}
	return n
}

func memoryChange(from, to *api.Resources) *specs.LinuxMemory {
	m := specs.LinuxMemory{}
	if from.Memory != to.Memory {
		m.Limit = new(orUnlimited(to.Memory))
		m.CheckBeforeUpdate = new(true) // cgroup v2 would kill, where v1 refuses
	}
	// With memory alone changed the limit of both is written too, as v2 counts swap by itself.
	if orUnlimited(from.MemorySwap) != orUnlimited(to.MemorySwap) || m.Limit != nil && to.MemorySwap > 0 {
		m.Swap = new(orUnlimited(to.MemorySwap))
		if to.Memory > 0 {
			m.Limit = &to.Memory
		}
	}
	if from.MemoryReservation != to.MemoryReservation {
		m.Reservation = new(orUnlimited(to.MemoryReservation))
	}
	if m == (specs.LinuxMemory{}) {
		return nil
	}
	return &m
}

// quotaOf is the quota and the period that r comes to, in microseconds.
func quotaOf(r *api.Resources) (quota int64, period uint64) {
	quota, period = -1, defaultPeriod
	if r.NanoCPUs > 0 {
		quota = r.NanoCPUs * defaultPeriod / 1e9
	}
	if r.CPUPeriod > 0 {
		period = uint64(r.CPUPeriod)
	}
	if r.CPUQuota > 0 {
		quota = r.CPUQuota
	}
	return quota, period
}

func cpuChange(from, to *api.Resources, machine specs.LinuxCPU) *specs.LinuxCPU {
	c := specs.LinuxCPU{}
	if from.CPUShares != to.CPUShares {
		c.Shares = new(uint64(defaultShares))
		if to.CPUShares > 0 {
			c.Shares = new(uint64(to.CPUShares))
		}
	}
	wasQuota, wasPeriod := quotaOf(from)
	if quota, period := quotaOf(to); quota != wasQuota || period != wasPeriod {
		c.Quota, c.Period = &quota, &period
	}
	if n := to.CPURealtimePeriod; n != from.CPURealtimePeriod && n > 0 {
		c.RealtimePeriod = new(uint64(n))
	}
	if n := to.CPURealtimeRuntime; n != from.CPURealtimeRuntime && n != 0 {
		c.RealtimeRuntime = &n
	}
	c.Cpus, c.Mems = setChange(from.CpusetCpus, to.CpusetCpus, machine.Cpus), setChange(from.CpusetMems, to.CpusetMems, machine.Mems)
	if c == (specs.LinuxCPU{}) {
		return nil
	}
	return &c
}

func setChange(from, to, all string) string {
	switch {
	case from == to:
		return ""
	case to == "":
		return all
	}
	return to
}

func blockChange(from, to *api.Resources, devices map[string]specs.LinuxBlockIODevice) (*specs.LinuxBlockIO, error) {
	for _, p := range append(BlockPaths(from), BlockPaths(to)...) {
		if _, ok := devices[p]; !ok {
			return nil, fault.New(fault.NotFound, "no such block device: %s", p)
		}
	}
	io, err := blockLimits(to, devices)
	if err != nil {
		return nil, err
	}
	if io == nil {
		io = &specs.LinuxBlockIO{}
	}
	if from.BlkioWeight == to.BlkioWeight {
		io.Weight = nil
	}
	if slices.EqualFunc(from.BlkioWeightDevice, to.BlkioWeightDevice, func(a, b *blkiodev.WeightDevice) bool { return *a == *b }) {
		io.WeightDevice = nil
	}
	for _, t := range []struct {
		from, to []*blkiodev.ThrottleDevice
		list     *[]specs.LinuxThrottleDevice
	}{
		{from.BlkioDeviceReadBps, to.BlkioDeviceReadBps, &io.ThrottleReadBpsDevice},
		{from.BlkioDeviceWriteBps, to.BlkioDeviceWriteBps, &io.ThrottleWriteBpsDevice},
		{from.BlkioDeviceReadIOps, to.BlkioDeviceReadIOps, &io.ThrottleReadIOPSDevice},
		{from.BlkioDeviceWriteIOps, to.BlkioDeviceWriteIOps, &io.ThrottleWriteIOPSDevice},
	} {
		*t.list = throttleChange(t.from, t.to, devices)
	}
	if io.Weight == nil && len(io.WeightDevice)+len(io.ThrottleReadBpsDevice)+len(io.ThrottleWriteBpsDevice)+
		len(io.ThrottleReadIOPSDevice)+len(io.ThrottleWriteIOPSDevice) == 0 {
		return nil, nil
	}
	return io, nil
}

// throttleChange lists the devices whose rate changes; a rate of 0 lifts it.
func throttleChange(from, to []*blkiodev.ThrottleDevice, devices map[string]specs.LinuxBlockIODevice) (changed []specs.LinuxThrottleDevice) {
	rates := map[string]uint64{}
	for _, d := range from {
		rates[d.Path] = d.Rate
	}
	put := func(path string, rate uint64) {
		changed = append(changed, specs.LinuxThrottleDevice{LinuxBlockIODevice: devices[path], Rate: rate})
	}
	kept := map[string]bool{}
	for _, d := range to {
		if kept[d.Path] = true; rates[d.Path] != d.Rate {
			put(d.Path, d.Rate)
		}
	}
	for _, d := range from {
		if !kept[d.Path] {
			put(d.Path, 0)
		}
	}
	return changed
}
