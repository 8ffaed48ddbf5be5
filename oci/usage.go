package oci

import (
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/kernel"
	"berth/kernel/cgroup"
)

// Stats is what a container has used since its start, and what it may use.
type Stats = cgroup.Stats

// IOStats counts what one block device did.
type IOStats = cgroup.IOStats

// Limits says which limits this machine can hold.
type Limits = cgroup.Support

// Usage reads the counters of a container's group, by Spec.Linux.CgroupsPath. Of a group that is gone all are zero.
func Usage(cgroupsPath string) Stats { return cgroup.Load(cgroupsPath).Stats() }

// Update changes the limits of a running container's group to what r names; what r leaves out stays. The strings are warnings
// for the user: limits that this kernel can't hold. After an error the former values are back. fault.NotFound: no such group.
func Update(cgroupsPath string, r *specs.LinuxResources) ([]string, error) {
	return cgroup.Load(cgroupsPath).Set(r)
}

// Realtime gives the group at cgroupsPath, and all above it, a share of real time scheduling that containers below can be given
// parts of: runtime of each period, in microseconds (cgroup-v1; a period of 0 is the kernel's). The strings are warnings.
func Realtime(cgroupsPath string, period, runtime int64) ([]string, error) {
	cpu := &specs.LinuxCPU{RealtimeRuntime: &runtime}
	if period > 0 {
		cpu.RealtimePeriod = new(uint64(period))
	}
	var all []string
	for end := 1; end < len(cgroupsPath); {
		next := strings.IndexByte(cgroupsPath[end:], '/')
		if next < 0 {
			next = len(cgroupsPath) - end
		}
		end += next
		_, warnings, err := cgroup.Create(cgroupsPath[:end], &specs.LinuxResources{CPU: cpu})
		if err != nil {
			return nil, err
		}
		all, end = append(all, warnings...), end+1
	}
	return all, nil
}

// OOMScore is the oom_score_adj that a container gets which asks for want, with a warning where that is another one.
func OOMScore(want int) (got int, warning string) { return kernel.ClampOOMScore(want) }

// SupportedLimits looks at the control files of this machine.
func SupportedLimits() Limits { return cgroup.Supported() }
