package oci

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

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

// SupportedLimits looks at the control files of this machine.
func SupportedLimits() Limits { return cgroup.Supported() }
