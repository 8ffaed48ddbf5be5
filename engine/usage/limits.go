package usage

import (
	"berth/oci"

	"github.com/moby/moby/api/types/system"
)

// DescribeLimits says in /info which limits this machine can hold, and warns of the missing ones in the field's words.
func DescribeLimits(d *system.Info, l *oci.Limits) {
	d.MemoryLimit, d.SwapLimit, d.CPUCfsPeriod, d.CPUCfsQuota = l.MemoryLimit, l.SwapLimit, l.CPUCfsPeriod, l.CPUCfsQuota
	d.CPUShares, d.CPUSet, d.PidsLimit, d.OomKillDisable = l.CPUShares, l.CPUSet, l.PidsLimit, l.OomKillDisable
	for _, w := range []struct {
		has  bool
		what string
	}{
		{l.MemoryLimit, "No memory limit support"}, {l.SwapLimit, "No swap limit support"}, {l.CPUCfsPeriod && l.CPUCfsQuota, "No cpu cfs quota support"},
		{l.CPUShares, "No cpu shares support"}, {l.CPUSet, "No cpuset support"}, {l.PidsLimit, "No pids limit support"},
		{l.OomKillDisable || l.Version == "2", "No oom kill disable support"}, {l.BlkioThrottle, "No blkio throttle support"},
	} {
		if !w.has {
			d.Warnings = append(d.Warnings, "WARNING: "+w.what)
		}
	}
}
