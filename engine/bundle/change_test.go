package bundle

import (
	"errors"
	"strings"
	"testing"

	"berth/fault"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/blkiodev"
	api "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestLimitChange goes both ways: what a change sets, its inverse takes back.
func TestLimitChange(t *testing.T) {
	const mega = int64(1 << 20)
	a, b := specs.LinuxBlockIODevice{Major: 8}, specs.LinuxBlockIODevice{Major: 9}
	devices := map[string]specs.LinuxBlockIODevice{"/a": a, "/b": b}
	machine := specs.LinuxCPU{Cpus: "0-3", Mems: "0"}
	rate := func(d specs.LinuxBlockIODevice, n uint64) specs.LinuxThrottleDevice {
		return specs.LinuxThrottleDevice{LinuxBlockIODevice: d, Rate: n}
	}
	for name, c := range map[string]struct {
		from, to    api.Resources
		there, back specs.LinuxResources
	}{
		"nothing": {},
		"memory": {
			api.Resources{}, api.Resources{Memory: 64 * mega, MemorySwap: 128 * mega, MemoryReservation: 32 * mega},
			specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(64 * mega), Swap: new(128 * mega), Reservation: new(32 * mega), CheckBeforeUpdate: new(true)}},
			specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(int64(-1)), Swap: new(int64(-1)), Reservation: new(int64(-1)), CheckBeforeUpdate: new(true)}},
		},
		"swap alone": {
			api.Resources{Memory: 64 * mega, MemorySwap: 128 * mega}, api.Resources{Memory: 64 * mega, MemorySwap: -1},
			specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(64 * mega), Swap: new(int64(-1))}},
			specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(64 * mega), Swap: new(128 * mega)}},
		},
		"memory alone": {
			api.Resources{Memory: 64 * mega, MemorySwap: 128 * mega}, api.Resources{Memory: 80 * mega, MemorySwap: 128 * mega},
			specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(80 * mega), Swap: new(128 * mega), CheckBeforeUpdate: new(true)}},
			specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(64 * mega), Swap: new(128 * mega), CheckBeforeUpdate: new(true)}},
		},
		"processors": {
			api.Resources{CPUPeriod: 50000}, api.Resources{NanoCPUs: 5e8, CPUShares: 7, CpusetCpus: "1", CpusetMems: "0"},
			specs.LinuxResources{CPU: &specs.LinuxCPU{Period: new(uint64(100000)), Quota: new(int64(50000)), Shares: new(uint64(7)), Cpus: "1", Mems: "0"}},
			specs.LinuxResources{CPU: &specs.LinuxCPU{Period: new(uint64(50000)), Quota: new(int64(-1)), Shares: new(uint64(1024)), Cpus: "0-3", Mems: "0"}},
		},
		"processes": {
			api.Resources{PidsLimit: new(int64(0))}, api.Resources{PidsLimit: new(int64(9))},
			specs.LinuxResources{Pids: &specs.LinuxPids{Limit: new(int64(9))}}, specs.LinuxResources{Pids: &specs.LinuxPids{Limit: new(int64(-1))}},
		},
		"devices": {
			api.Resources{BlkioDeviceReadBps: []*blkiodev.ThrottleDevice{{Path: "/a", Rate: 1}}},
			api.Resources{BlkioDeviceReadBps: []*blkiodev.ThrottleDevice{{Path: "/b", Rate: 2}}, BlkioDeviceWriteIOps: []*blkiodev.ThrottleDevice{{Path: "/a", Rate: 3}}},
			specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{rate(b, 2), rate(a, 0)}, ThrottleWriteIOPSDevice: []specs.LinuxThrottleDevice{rate(a, 3)}}},
			specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{rate(a, 1), rate(b, 0)}, ThrottleWriteIOPSDevice: []specs.LinuxThrottleDevice{rate(a, 0)}}},
		},
	} {
		there, err := LimitChange(&c.from, &c.to, devices, machine)
		if diff := cmp.Diff(&c.there, there); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
		back, err := LimitChange(&c.to, &c.from, devices, machine)
		if diff := cmp.Diff(&c.back, back); err != nil || diff != "" {
			t.Errorf("%s, back: %v\n%s", name, err, diff)
		}
	}
	weight := uint16(100)
	r := api.Resources{BlkioWeight: weight, CPURealtimePeriod: 5, CPURealtimeRuntime: 4}
	got, err := LimitChange(&api.Resources{}, &r, nil, machine)
	if err != nil || *got.BlockIO.Weight != weight || *got.CPU.RealtimePeriod != 5 || *got.CPU.RealtimeRuntime != 4 {
		t.Errorf("%+v, %v", got, err)
	}
	r = api.Resources{BlkioDeviceReadBps: []*blkiodev.ThrottleDevice{{Path: "/gone", Rate: 1}}}
	if _, err := LimitChange(&r, &api.Resources{}, devices, machine); !errors.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "/gone") {
		t.Error(err)
	}
}
