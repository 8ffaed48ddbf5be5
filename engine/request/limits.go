package request

import (
	"slices"
	"strconv"
	"strings"

	"berth/fault"
	"berth/oci"

	api "github.com/moby/moby/api/types/container"
)

// leastMemory is what a container needs at least, in bytes: the field's own bound, not the kernel's.
const leastMemory = 6 << 20

// Limits checks what a container may use, and takes out of r what this machine can't hold. update: r is a change of limits that
// stand already. The warnings, which clients print, and the errors are in the field's words.
func Limits(r *api.Resources, m Machine, update bool) (warnings []string, err error) {
	l := m.Limits
	if l == nil {
		l = everyLimit(m.CPUs)
	}
	for _, check := range []func(*api.Resources, *oci.Limits, bool) ([]string, error){memory, swap, oomAndPids, cpuTime(m.CPUs), cpuset, blockIO, foreign} {
		w, err := check(r, l, update)
		warnings = append(warnings, w...)
		if err != nil {
			return warnings, err
		}
	}
	return warnings, nil
}

// everyLimit is a machine that holds them all.
func everyLimit(cpus int) *oci.Limits {
	return &oci.Limits{
		Version: "1", MemoryLimit: true, MemoryReservation: true, SwapLimit: true, Swappiness: true, KernelMemoryTCP: true, OomKillDisable: true,
		CPUShares: true, CPUCfsPeriod: true, CPUCfsQuota: true, CPURealtime: true, CPUSet: true, Cpus: "0-" + strconv.Itoa(max(cpus, 1)-1), Mems: "0",
		PidsLimit: true, BlkioWeight: true, BlkioThrottle: true, Devices: true, Freezer: true, HugePages: true, NetClass: true,
	}
}

// unsupported is the warning for a limit that the kernel lacks.
func unsupported(what, then string) []string {
	return []string{"Your kernel does not support " + what + " or the cgroup is not mounted. " + then}
}

func memory(r *api.Resources, l *oci.Limits, _ bool) (warnings []string, err error) {
	switch {
	case r.Memory != 0 && r.Memory < leastMemory:
		return nil, invalid("Minimum memory limit allowed is 6MB")
	case r.MemoryReservation > 0 && r.MemoryReservation < leastMemory:
		return nil, invalid("Minimum memory reservation allowed is 6MB")
	case r.MemoryReservation < 0:
		return nil, invalid("invalid memory reservation: %d", r.MemoryReservation)
	case r.Memory > 0 && r.MemoryReservation > r.Memory:
		return nil, invalid("Minimum memory limit can not be less than memory reservation limit, see usage")
	}
	if r.Memory > 0 && !l.MemoryLimit {
		warnings = append(warnings, unsupported("memory limit capabilities", "Limitation discarded.")...)
		r.Memory, r.MemorySwap = 0, -1
	}
	if r.MemoryReservation > 0 && !l.MemoryReservation {
		warnings = append(warnings, unsupported("memory soft limit capabilities", "Limitation discarded.")...)
		r.MemoryReservation = 0
	}
	return warnings, nil
}

func swap(r *api.Resources, l *oci.Limits, update bool) (warnings []string, err error) {
	if r.MemorySwappiness != nil && *r.MemorySwappiness == -1 { // what clients send for "nothing special"
		r.MemorySwappiness = nil
	}
	if r.Memory > 0 && r.MemorySwap != -1 && !l.SwapLimit {
		warnings = append(warnings, unsupported("swap limit capabilities", "Memory limited without swap.")...)
		r.MemorySwap = -1
	}
	switch n := r.MemorySwappiness; {
	case r.MemorySwap < -1:
		return warnings, invalid("invalid memory swap: %d", r.MemorySwap)
	case r.Memory > 0 && r.MemorySwap > 0 && r.MemorySwap < r.Memory:
		return warnings, invalid("Minimum memoryswap limit should be larger than memory limit, see usage")
	case r.Memory == 0 && r.MemorySwap > 0 && !update:
		return warnings, invalid("You should always set the Memory limit when using Memoryswap limit, see usage")
	case n != nil && (*n < 0 || *n > 100):
		return warnings, invalid("Invalid value: %d, valid memory swappiness range is 0-100", *n)
	case n != nil && !l.Swappiness:
		warnings = append(warnings, unsupported("memory swappiness capabilities", "Memory swappiness discarded.")...)
		r.MemorySwappiness = nil
	}
	return warnings, nil
}

func oomAndPids(r *api.Resources, l *oci.Limits, _ bool) (warnings []string, err error) {
	if off := r.OomKillDisable; off != nil && *off {
		switch {
		case !l.OomKillDisable:
			warnings = append(warnings, "Your kernel does not support OomKillDisable. OomKillDisable discarded.")
			r.OomKillDisable = nil
		case r.Memory == 0:
			warnings = append(warnings, "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.")
		}
	}
	if n := r.PidsLimit; n != nil && *n > 0 && !l.PidsLimit {
		warnings = append(warnings, unsupported("PIDs limit capabilities", "PIDs limit discarded.")...)
		r.PidsLimit = nil
	}
	return warnings, nil
}

// cpuTime checks shares, quotas and real time on a machine of n processors.
func cpuTime(n int) func(*api.Resources, *oci.Limits, bool) ([]string, error) {
	return func(r *api.Resources, l *oci.Limits, _ bool) (warnings []string, err error) {
		quotas := l.CPUCfsPeriod && l.CPUCfsQuota
		switch {
		case r.NanoCPUs > 0 && r.CPUPeriod > 0:
			return nil, invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set")
		case r.NanoCPUs > 0 && r.CPUQuota > 0:
			return nil, invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
		case r.NanoCPUs > 0 && !quotas:
			return nil, invalid("NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted")
		case r.NanoCPUs < 0 || r.NanoCPUs > int64(n)*1e9 || r.NanoCPUs > 0 && r.NanoCPUs < 1e7:
			return nil, invalid("range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", n, n)
		case r.CPUShares < 0:
			return nil, invalid("invalid CPU shares (%d): value must be a positive integer", r.CPUShares)
		}
		if r.CPUShares > 0 && !l.CPUShares {
			warnings = append(warnings, unsupported("CPU shares", "Shares discarded.")...)
			r.CPUShares = 0
		}
		if (r.CPUPeriod != 0 || r.CPUQuota != 0) && !quotas {
			warnings = append(warnings, "Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.")
			r.CPUPeriod, r.CPUQuota = 0, 0
		}
		if (r.CPURealtimePeriod != 0 || r.CPURealtimeRuntime != 0) && !l.CPURealtime {
			warnings = append(warnings, unsupported("CPU real-time scheduling", "Real-time period and runtime discarded.")...)
			r.CPURealtimePeriod, r.CPURealtimeRuntime = 0, 0
		}
		switch {
		case r.CPUPeriod != 0 && (r.CPUPeriod < 1000 || r.CPUPeriod > 1_000_000):
			return warnings, invalid("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
		case r.CPUQuota > 0 && r.CPUQuota < 1000:
			return warnings, invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)")
		case r.CPURealtimePeriod < 0:
			return warnings, invalid("CPU real-time period can not be less than 0: %d", r.CPURealtimePeriod)
		case r.CPURealtimeRuntime > 0 && r.CPURealtimePeriod > 0 && r.CPURealtimeRuntime > r.CPURealtimePeriod:
			return warnings, invalid("cpu real-time runtime cannot be higher than cpu real-time period")
		}
		return warnings, nil
	}
}

func cpuset(r *api.Resources, l *oci.Limits, _ bool) (warnings []string, err error) {
	if (r.CpusetCpus != "" || r.CpusetMems != "") && !l.CPUSet {
		r.CpusetCpus, r.CpusetMems = "", ""
		return unsupported("cpuset", "Cpuset discarded."), nil
	}
	for _, set := range []struct{ wanted, available, name, things string }{
		{r.CpusetCpus, l.Cpus, "cpus", "CPUs"}, {r.CpusetMems, l.Mems, "mems", "memory nodes"},
	} {
		wanted, err := parseSet(set.wanted)
		if err != nil {
			return nil, invalid("Invalid value %s for cpuset %s: %w", set.wanted, set.name, err)
		}
		available, err := parseSet(set.available)
		if err != nil {
			return nil, err
		}
		for n := range wanted {
			if !available[n] {
				return nil, invalid("Requested %s are not available - requested %s, available: %s", set.things, set.wanted, set.available)
			}
		}
	}
	return nil, nil
}

// maxSet bounds the numbers of a list, as the kernel does (CONFIG_NR_CPUS is 8192 at most).
const maxSet = 8192

// parseSet reads a list such as "0-3,7" (cpuset(7), "List format").
func parseSet(s string) (map[int]bool, error) {
	set := map[int]bool{}
	if s == "" {
		return set, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err := strconv.ParseUint(first, 10, 32)
		if err != nil {
			return nil, invalid("%q is not a number or a range", part)
		}
		to, err := strconv.ParseUint(last, 10, 32)
		if err != nil || to < from {
			return nil, invalid("%q is not a number or a range", part)
		}
		if to >= maxSet {
			return nil, invalid("value of %d exceeds maximum of %d", to, maxSet-1)
		}
		for n := from; n <= to; n++ {
			set[int(n)] = true
		}
	}
	return set, nil
}

func blockIO(r *api.Resources, l *oci.Limits, _ bool) (warnings []string, err error) {
	if r.BlkioWeight > 0 && (r.BlkioWeight < 10 || r.BlkioWeight > 1000) {
		return nil, invalid("Range of blkio weight is from 10 to 1000")
	}
	if !l.BlkioWeight {
		if r.BlkioWeight > 0 {
			warnings = append(warnings, unsupported("Block I/O weight", "Weight discarded.")...)
			r.BlkioWeight = 0
		}
		if len(r.BlkioWeightDevice) > 0 {
			warnings = append(warnings, unsupported("Block I/O weight_device", "Weight-device discarded.")...)
			r.BlkioWeightDevice = nil
		}
	}
	for _, w := range r.BlkioWeightDevice {
		if w == nil || w.Weight > 0 && (w.Weight < 10 || w.Weight > 1000) {
			return warnings, invalid("Range of blkio weight is from 10 to 1000")
		}
	}
	for _, t := range throttles(r) {
		if slices.Contains(*t.list, nil) {
			return warnings, invalid("a block I/O limit names no device")
		}
		if len(*t.list) > 0 && !l.BlkioThrottle {
			warnings = append(warnings, unsupported(t.unit+" Block I/O "+t.way+" limit", "Block I/O "+t.unit+" "+t.way+" limit discarded.")...)
			*t.list = nil
		}
	}
	return warnings, nil
}

// foreign are the limits of another operating system: they are taken, and told of.
func foreign(r *api.Resources, _ *oci.Limits, _ bool) (warnings []string, err error) {
	if r.CPUCount > 0 {
		warnings = append(warnings, "linux does not support CPU count. Count discarded.")
	}
	if r.CPUPercent > 0 {
		warnings = append(warnings, "linux does not support CPU percent. Percent discarded.")
	}
	if r.IOMaximumBandwidth != 0 || r.IOMaximumIOps != 0 {
		warnings = append(warnings, "linux does not support Maximum IO Bandwidth or Maximum IO IOps. Both discarded.")
	}
	r.CPUCount, r.CPUPercent, r.IOMaximumBandwidth, r.IOMaximumIOps = 0, 0, 0, 0
	return warnings, nil
}

// NetClass checks --net-cls, a class that only cgroup v1 marks packets with.
func NetClass(class uint32, m Machine) error {
	switch l := m.Limits; {
	case class == 0 || l == nil || l.NetClass:
		return nil
	case l.Version == "2":
		return fault.New(fault.Unsupported, "--net-cls: cgroup v2 has no network classes; match the container's cgroup instead (nft: socket cgroupv2)")
	}
	return fault.New(fault.Unsupported, "--net-cls: this kernel has no net_cls cgroup controller, or it is not mounted; mount it (mount -t cgroup -o net_cls net_cls DIRECTORY) and start the engine anew")
}
