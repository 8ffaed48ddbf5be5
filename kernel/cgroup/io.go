package cgroup

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"berth/fault"
)

// blockIO plans weights and throttles of block devices.
func (p *plan) blockIO(b *specs.LinuxBlockIO) error {
	if b == nil {
		return nil
	}
	throttles := [][]specs.LinuxThrottleDevice{b.ThrottleReadBpsDevice, b.ThrottleWriteBpsDevice, b.ThrottleReadIOPSDevice, b.ThrottleWriteIOPSDevice}
	weight := small(b.Weight)
	if weight != 0 && (weight < 10 || weight > 1000) {
		return fault.New(fault.Invalid, "block IO weight %d: must be between 10 and 1000", weight)
	}
	if weight == 0 && len(b.WeightDevice) == 0 && len(slices.Concat(throttles...)) == 0 {
		return nil
	}
	d, version := p.in("blkio", "io", "block IO limit")
	if d == "" {
		return nil
	}
	p.weights(d, version, weight, b.WeightDevice)
	v1 := []string{"read_bps", "write_bps", "read_iops", "write_iops"}
	v2 := []string{"rbps", "wbps", "riops", "wiops"}
	for i, devices := range throttles {
		for _, t := range devices {
			file, value := "blkio.throttle."+v1[i]+"_device", fmt.Sprintf("%d:%d %d", t.Major, t.Minor, t.Rate)
			if version == 2 {
				file, value = "io.max", fmt.Sprintf("%d:%d %s=%s", t.Major, t.Minor, v2[i], rate(t.Rate))
			}
			s := p.set(d, file, value, "block IO throttle")
			s.list, s.optional, s.hint = true, true, "the device must be a whole disk that exists"
		}
	}
	return nil
}

// weights finds the file that the kernel's present scheduler offers: plain (CFQ, or v2's io.cost) or bfq's.
func (p *plan) weights(d string, version int, weight uint16, devices []specs.LinuxWeightDevice) {
	plain, bfq, perDevice := "blkio.weight", "blkio.bfq.weight", "_device"
	if version == 2 {
		plain, bfq, perDevice = "io.weight", "io.bfq.weight", ""
	}
	file, scale := plain, func(w uint16) uint64 { return uint64(w) }
	switch {
	case exists(d + "/" + bfq):
		file = bfq
	case version == 2:
		scale = ioWeight
	}
	if weight != 0 {
		p.set(d, file, utoa(scale(weight)), "block IO weight").optional = true
	}
	for _, w := range devices {
		if n := small(w.Weight); n != 0 {
			s := p.set(d, file+perDevice, fmt.Sprintf("%d:%d %d", w.Major, w.Minor, scale(n)), "block IO weight of a device")
			s.list, s.optional = true, true
		}
	}
}

// ioWeight stretches v1's 10…1000 over v2's 1…10000.
func ioWeight(w uint16) uint64 { return 1 + (uint64(max(w, 10))-10)*9999/990 }

// rate prints a throttle for v2; zero lifts it, as it does on v1.
func rate(n uint64) string {
	if n == 0 {
		return "max"
	}
	return utoa(n)
}

// hugepages limits use and, where the kernel counts them apart (Linux 5.7), reservations.
func (p *plan) hugepages(limits []specs.LinuxHugepageLimit) error {
	for _, l := range limits {
		if strings.ContainsAny(l.Pagesize, "/.") || !strings.HasSuffix(l.Pagesize, "B") {
			return fault.New(fault.Invalid, "huge page size %q: must look like 2MB or 1GB", l.Pagesize)
		}
		d, version := p.in("hugetlb", "hugetlb", "huge page limit")
		if d == "" {
			continue
		}
		end := ".limit_in_bytes"
		if version == 2 {
			end = ".max"
		}
		p.set(d, "hugetlb."+l.Pagesize+end, utoa(l.Limit), "huge page limit").optional = true
		if rsvd := "hugetlb." + l.Pagesize + ".rsvd" + end; exists(d + "/" + rsvd) {
			p.set(d, rsvd, utoa(l.Limit), "huge page reservation limit")
		}
	}
	return nil
}

// network plans v1's traffic marks.
func (p *plan) network(n *specs.LinuxNetwork) error {
	if n == nil {
		return nil
	}
	if n.ClassID != nil && *n.ClassID != 0 {
		if d := p.g.in("net_cls", 1); d != "" {
			p.set(d, "net_cls.classid", utoa(uint64(*n.ClassID)), "network class")
		} else {
			p.discard("network class", "the v1 net_cls cgroup controller is not mounted")
		}
	}
	for _, i := range n.Priorities {
		if d := p.g.in("net_prio", 1); d != "" {
			p.set(d, "net_prio.ifpriomap", fmt.Sprintf("%s %d", i.Name, i.Priority), "network priority").list = true
		} else {
			p.discard("network priority", "the v1 net_prio cgroup controller is not mounted")
			break
		}
	}
	return nil
}

func (p *plan) rdma(devices map[string]specs.LinuxRdma) error {
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		d, _ := p.in("rdma", "rdma", "RDMA limit")
		if d == "" {
			return nil
		}
		value := name
		if n := devices[name].HcaHandles; n != nil {
			value += fmt.Sprintf(" hca_handle=%d", *n)
		}
		if n := devices[name].HcaObjects; n != nil {
			value += fmt.Sprintf(" hca_object=%d", *n)
		}
		p.set(d, "rdma.max", value, "RDMA limit").list = true
	}
	return nil
}

// unified writes v2 files by their names. They are the caller's exact words, so what can't be written is an error, not a warning.
func (p *plan) unified(files map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(files)) {
		controller, _, ok := strings.Cut(name, ".")
		if !ok || path.Base(name) != name {
			return fault.New(fault.Invalid, "cgroup v2 setting %q: must be the name of a file such as memory.high", name)
		}
		d := p.g.in(controller, 2)
		if controller == "cgroup" {
			d = p.g.v2()
		}
		if d == "" {
			return fault.New(fault.Unsupported, "cgroup v2 setting %s: the %s controller is not on a v2 hierarchy here", name, controller)
		}
		for line := range strings.Lines(files[name]) {
			p.set(d, name, strings.TrimSuffix(line, "\n"), "cgroup v2 setting").list = true
		}
	}
	return nil
}

func small(n *uint16) uint16 {
	if n == nil {
		return 0
	}
	return *n
}
