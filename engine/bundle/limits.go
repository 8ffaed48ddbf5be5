package bundle

import (
	"strconv"
	"strings"

	"berth/fault"
	"berth/oci"

	"github.com/moby/moby/api/types/blkiodev"
	api "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// defaultPeriod is the kernel's CFS period in microseconds, which --cpus is counted in.
const defaultPeriod = 100_000

// limitRule sets the cgroup's limits, the devices' rules apart.
func limitRule(f *Facts, b *oci.Bundle) error {
	h, r := f.host(), b.Spec.Linux.Resources
	r.Memory, r.CPU = memoryLimits(&h.Resources), cpuLimits(&h.Resources)
	if n := h.PidsLimit; n != nil && *n > 0 {
		r.Pids = &specs.LinuxPids{Limit: n}
	}
	if class := f.Record.Settings.NetClass; class != 0 {
		r.Network = &specs.LinuxNetwork{ClassID: &class}
	}
	var err error
	r.BlockIO, err = blockLimits(&h.Resources, f.BlockDevices)
	return err
}

func memoryLimits(r *api.Resources) *specs.LinuxMemory {
	m := specs.LinuxMemory{}
	if r.Memory > 0 {
		m.Limit = &r.Memory
	}
	if r.MemorySwap != 0 {
		m.Swap = &r.MemorySwap
	}
	if r.MemoryReservation > 0 {
		m.Reservation = &r.MemoryReservation
	}
	if r.MemorySwappiness != nil && *r.MemorySwappiness >= 0 {
		m.Swappiness = new(uint64(*r.MemorySwappiness))
	}
	if r.OomKillDisable != nil && *r.OomKillDisable {
		m.DisableOOMKiller = r.OomKillDisable
	}
	if m == (specs.LinuxMemory{}) {
		return nil
	}
	return &m
}

func cpuLimits(r *api.Resources) *specs.LinuxCPU {
	c := specs.LinuxCPU{Cpus: r.CpusetCpus, Mems: r.CpusetMems}
	if r.CPUShares > 0 {
		c.Shares = new(uint64(r.CPUShares))
	}
	if r.NanoCPUs > 0 {
		c.Period = new(uint64(defaultPeriod))
		c.Quota = new(r.NanoCPUs * defaultPeriod / 1e9)
	}
	if r.CPUPeriod > 0 {
		c.Period = new(uint64(r.CPUPeriod))
	}
	if r.CPUQuota != 0 {
		c.Quota = &r.CPUQuota
	}
	if r.CPURealtimePeriod > 0 {
		c.RealtimePeriod = new(uint64(r.CPURealtimePeriod))
	}
	if r.CPURealtimeRuntime != 0 {
		c.RealtimeRuntime = &r.CPURealtimeRuntime
	}
	if c == (specs.LinuxCPU{}) {
		return nil
	}
	return &c
}

func blockLimits(r *api.Resources, devices map[string]specs.LinuxBlockIODevice) (*specs.LinuxBlockIO, error) {
	io := &specs.LinuxBlockIO{}
	if r.BlkioWeight > 0 {
		io.Weight = &r.BlkioWeight
	}
	for _, w := range r.BlkioWeightDevice {
		io.WeightDevice = append(io.WeightDevice, specs.LinuxWeightDevice{LinuxBlockIODevice: devices[w.Path], Weight: &w.Weight})
	}
	for _, t := range []struct {
		from []*blkiodev.ThrottleDevice
		to   *[]specs.LinuxThrottleDevice
	}{
		{r.BlkioDeviceReadBps, &io.ThrottleReadBpsDevice}, {r.BlkioDeviceWriteBps, &io.ThrottleWriteBpsDevice},
		{r.BlkioDeviceReadIOps, &io.ThrottleReadIOPSDevice}, {r.BlkioDeviceWriteIOps, &io.ThrottleWriteIOPSDevice},
	} {
		for _, d := range t.from {
			*t.to = append(*t.to, specs.LinuxThrottleDevice{LinuxBlockIODevice: devices[d.Path], Rate: d.Rate})
		}
	}
	if io.Weight == nil && len(io.WeightDevice)+len(io.ThrottleReadBpsDevice)+len(io.ThrottleWriteBpsDevice)+
		len(io.ThrottleReadIOPSDevice)+len(io.ThrottleWriteIOPSDevice) == 0 {
		return nil, nil
	}
	return io, nil
}

// BlockPaths lists the device files that r names.
func BlockPaths(r *api.Resources) (paths []string) {
	for _, w := range r.BlkioWeightDevice {
		paths = append(paths, w.Path)
	}
	for _, list := range [][]*blkiodev.ThrottleDevice{r.BlkioDeviceReadBps, r.BlkioDeviceWriteBps, r.BlkioDeviceReadIOps, r.BlkioDeviceWriteIOps} {
		for _, d := range list {
			paths = append(paths, d.Path)
		}
	}
	return paths
}

// Device is one of --device, found on the host.
type Device struct {
	specs.LinuxDevice
	Access string // of r, w, m
}

// deviceRule lists further device nodes and what the device controller allows.
// The nodes that every container has are the container format's own.
func deviceRule(f *Facts, b *oci.Bundle) error {
	r := b.Spec.Linux.Resources
	if f.host().Privileged {
		b.Spec.Linux.Devices = f.HostDevices
		r.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
		return nil
	}
	r.Devices = append([]specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}, oci.DefaultDevices()...)
	for _, d := range f.Devices {
		b.Spec.Linux.Devices = append(b.Spec.Linux.Devices, d.LinuxDevice)
		r.Devices = append(r.Devices, specs.LinuxDeviceCgroup{Allow: true, Type: d.Type, Major: new(d.Major), Minor: new(d.Minor), Access: d.Access})
	}
	for _, s := range f.host().DeviceCgroupRules {
		parsed, err := ParseDeviceRule(s)
		if err != nil {
			return err
		}
		r.Devices = append(r.Devices, parsed)
	}
	return nil
}

// ParseDeviceRule reads "c 42:* rmw".
func ParseDeviceRule(s string) (specs.LinuxDeviceCgroup, error) {
	bad := fault.New(fault.Invalid, "invalid device cgroup rule format: '%s'", s)
	fields := strings.Fields(s)
	if len(fields) != 3 || !strings.Contains("abc", fields[0]) || len(fields[0]) != 1 || strings.Trim(fields[2], "rwm") != "" || len(fields[2]) > 3 {
		return specs.LinuxDeviceCgroup{}, bad
	}
	major, minor, ok := strings.Cut(fields[1], ":")
	d := specs.LinuxDeviceCgroup{Allow: true, Type: fields[0], Access: fields[2]}
	for _, n := range []struct {
		text string
		to   **int64
	}{{major, &d.Major}, {minor, &d.Minor}} {
		if n.text == "*" {
			continue
		}
		v, err := strconv.ParseInt(n.text, 10, 64)
		if err != nil || v < 0 {
			return d, bad
		}
		*n.to = &v
	}
	if !ok {
		return d, bad
	}
	return d, nil
}
