package request

import (
	"berth/fault"

	"github.com/moby/moby/api/types/blkiodev"
	api "github.com/moby/moby/api/types/container"
)

// throttle is one of the four lists of block device limits.
type throttle struct {
	list      *[]*blkiodev.ThrottleDevice
	unit, way string
}

func throttles(r *api.Resources) []throttle {
	return []throttle{
		{&r.BlkioDeviceReadBps, "BPS", "read"}, {&r.BlkioDeviceWriteBps, "BPS", "write"},
		{&r.BlkioDeviceReadIOps, "IOPS", "read"}, {&r.BlkioDeviceWriteIOps, "IOPS", "write"},
	}
}

// UpdateLimits puts what change names over the limits in old; what it leaves out, zero, stays. fault.Conflict, in the field's words:
// the two contradict each other.
func UpdateLimits(old, change *api.Resources) (api.Resources, error) {
	r := *old
	conflict := func(what, has string) (api.Resources, error) {
		return r, fault.New(fault.Conflict, "Conflicting options: %s cannot be updated as %s has already been set", what, has)
	}
	switch {
	case change.NanoCPUs > 0 && old.CPUPeriod > 0:
		return conflict("Nano CPUs", "CPU Period")
	case change.NanoCPUs > 0 && old.CPUQuota > 0:
		return conflict("Nano CPUs", "CPU Quota")
	case change.CPUPeriod > 0 && old.NanoCPUs > 0:
		return conflict("CPU Period", "NanoCPUs")
	case change.CPUQuota > 0 && old.NanoCPUs > 0:
		return conflict("CPU Quota", "NanoCPUs")
	case change.Memory > 0 && change.MemorySwap == 0 && old.MemorySwap > 0 && change.Memory > old.MemorySwap:
		return r, fault.New(fault.Conflict, "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time")
	}
	put(&r.BlkioWeight, change.BlkioWeight)
	put(&r.CPUShares, change.CPUShares)
	put(&r.NanoCPUs, change.NanoCPUs)
	put(&r.CPUPeriod, change.CPUPeriod)
	put(&r.CPUQuota, change.CPUQuota)
	put(&r.CPURealtimePeriod, change.CPURealtimePeriod)
	put(&r.CPURealtimeRuntime, change.CPURealtimeRuntime)
	put(&r.CpusetCpus, change.CpusetCpus)
	put(&r.CpusetMems, change.CpusetMems)
	put(&r.Memory, change.Memory)
	put(&r.MemorySwap, change.MemorySwap)
	put(&r.MemoryReservation, change.MemoryReservation)
	if r.Memory > 0 && r.MemorySwap == 0 {
		r.MemorySwap = 2 * r.Memory // as when it is created
	}
	if n := change.PidsLimit; n != nil {
		r.PidsLimit = new(max(*n, 0)) // none is shown as 0 when it was asked for
	}
	if len(change.BlkioWeightDevice) > 0 {
		r.BlkioWeightDevice = change.BlkioWeightDevice
	}
	to, from := throttles(&r), throttles(change)
	for k := range to {
		if list := *from[k].list; len(list) > 0 {
			*to[k].list = list
		}
	}
	// What only the two together can tell.
	switch {
	case r.Memory > 0 && r.MemorySwap > 0 && r.MemorySwap < r.Memory:
		return r, invalid("Minimum memoryswap limit should be larger than memory limit, see usage")
	case r.Memory == 0 && r.MemorySwap > 0:
		return r, invalid("You should always set the Memory limit when using Memoryswap limit, see usage")
	case r.Memory > 0 && r.MemoryReservation > r.Memory:
		return r, invalid("Minimum memory limit can not be less than memory reservation limit, see usage")
	}
	return r, nil
}

// put replaces a value by one that was given.
func put[T comparable](to *T, given T) {
	var none T
	if given != none {
		*to = given
	}
}
