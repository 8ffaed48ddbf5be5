package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"berth/fault"
)

// drawn makes a group of empty files instead of a kernel's, to see what would be written.
func drawn(t *testing.T, version int, controllers []string, files ...string) *Group {
	base := t.TempDir()
	for _, f := range files {
		name, text, _ := strings.Cut(f, "=")
		if err := os.WriteFile(filepath.Join(base, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return &Group{"/g", []dir{{&Hierarchy{Version: version, Controllers: controllers, Base: base}, base}}}
}

func ptr[T any](v T) *T { return &v }

func TestPlan(t *testing.T) {
	all := []string{"memory", "cpu", "cpuset", "pids", "blkio", "hugetlb", "net_cls", "net_prio", "io", "rdma"}
	throttle := specs.LinuxThrottleDevice{Rate: 4096}
	throttle.Major, throttle.Minor = 8, 16
	weighted := specs.LinuxWeightDevice{Weight: ptr(uint16(500))}
	weighted.Major = 8
	tests := []struct {
		name   string
		r      specs.LinuxResources
		files  []string
		v1, v2 string // settings, then the number of warnings
	}{
		{"memory", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(100)), Swap: ptr(int64(300)), Reservation: ptr(int64(50))}}, nil,
			"memory.limit_in_bytes=100 memory.memsw.limit_in_bytes=300 memory.soft_limit_in_bytes=50 0",
			"memory.max=100 memory.swap.max=200 memory.low=50 0"},
		{"memory without swap", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(100)), Swap: ptr(int64(100))}}, nil,
			"memory.limit_in_bytes=100 memory.memsw.limit_in_bytes=100 0", "memory.max=100 memory.swap.max=0 0"},
		{"all swap", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(100)), Swap: ptr(int64(-1))}}, nil,
			"memory.limit_in_bytes=100 memory.memsw.limit_in_bytes=-1 0", "memory.max=100 memory.swap.max=max 0"},
		{"unlimited", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(-1))}}, []string{"memory.memsw.limit_in_bytes"},
			"memory.limit_in_bytes=-1 memory.memsw.limit_in_bytes=-1 0", "memory.max=max memory.swap.max=max 0"},
		{"zero is unset", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(0)), Swap: ptr(int64(0)), DisableOOMKiller: ptr(false)}}, nil, "0", "0"},
		{"what v2 dropped", specs.LinuxResources{Memory: &specs.LinuxMemory{Swappiness: ptr(uint64(0)), DisableOOMKiller: ptr(true), KernelTCP: ptr(int64(9))}}, nil,
			"memory.kmem.tcp.limit_in_bytes=9 memory.swappiness=0 memory.oom_control=1 0", "3"},
		{"swap on top of the memory that is set", specs.LinuxResources{Memory: &specs.LinuxMemory{Swap: ptr(int64(70))}}, []string{"memory.max=50"},
			"memory.memsw.limit_in_bytes=70 0", "memory.swap.max=20 0"},
		{"cpu", specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: ptr(uint64(1024)), Quota: ptr(int64(20000)), Period: ptr(uint64(50000)), Burst: ptr(uint64(0)), Idle: ptr(int64(0))}}, nil,
			"cpu.shares=1024 cpu.cfs_period_us=50000 cpu.cfs_quota_us=20000 cpu.cfs_burst_us=0 cpu.idle=0 0",
			"cpu.weight=100 cpu.max=20000_50000 cpu.max.burst=0 cpu.idle=0 0"},
		{"no quota", specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(-1))}}, nil, "cpu.cfs_quota_us=-1 0", "cpu.max=max 0"},
		{"only a period", specs.LinuxResources{CPU: &specs.LinuxCPU{Period: ptr(uint64(50000))}}, []string{"cpu.max=3000 100000"},
			"cpu.cfs_period_us=50000 0", "cpu.max=3000_50000 0"},
		{"realtime", specs.LinuxResources{CPU: &specs.LinuxCPU{RealtimePeriod: ptr(uint64(5)), RealtimeRuntime: ptr(int64(4))}}, nil,
			"cpu.rt_period_us=5 cpu.rt_runtime_us=4 0", "1"},
		{"cpuset", specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0-1", Mems: "0"}}, nil, "cpuset.cpus=0-1 cpuset.mems=0 0", "cpuset.cpus=0-1 cpuset.mems=0 0"},
		{"pids", specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(7))}}, nil, "pids.max=7 0", "pids.max=7 0"},
		{"pids 0", specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(0))}}, nil, "pids.max=max 0", "pids.max=max 0"},
		{"pids unset", specs.LinuxResources{Pids: &specs.LinuxPids{}}, nil, "0", "0"},
		{"block IO", specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: ptr(uint16(1000)), WeightDevice: []specs.LinuxWeightDevice{weighted},
			ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{throttle}, ThrottleWriteIOPSDevice: []specs.LinuxThrottleDevice{{}}}}, nil,
			"blkio.weight=1000 blkio.weight_device=8:0_500 blkio.throttle.read_bps_device=8:16_4096 blkio.throttle.write_iops_device=0:0_0 0",
			"io.weight=10000 io.weight=8:0_4950 io.max=8:16_rbps=4096 io.max=0:0_wiops=max 0"},
		{"bfq", specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: ptr(uint16(300))}}, []string{"blkio.bfq.weight", "io.bfq.weight"},
			"blkio.bfq.weight=300 0", "io.bfq.weight=300 0"},
		{"huge pages", specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4}}}, []string{"hugetlb.2MB.rsvd.max"},
			"hugetlb.2MB.limit_in_bytes=4 0", "hugetlb.2MB.max=4 hugetlb.2MB.rsvd.max=4 0"},
		{"network", specs.LinuxResources{Network: &specs.LinuxNetwork{ClassID: ptr(uint32(0x10001)), Priorities: []specs.LinuxInterfacePriority{{Name: "eth0", Priority: 3}}}}, nil,
			"net_cls.classid=65537 net_prio.ifpriomap=eth0_3 0", "2"},
		{"rdma", specs.LinuxResources{Rdma: map[string]specs.LinuxRdma{"mlx5_1": {HcaHandles: ptr(uint32(3)), HcaObjects: ptr(uint32(9))}}}, nil,
			"rdma.max=mlx5_1_hca_handle=3_hca_object=9 0", "rdma.max=mlx5_1_hca_handle=3_hca_object=9 0"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for version, want := range map[int]string{1: test.v1, 2: test.v2} {
				p, err := newPlan(drawn(t, version, all, test.files...), &test.r, false)
				if err != nil {
					t.Fatalf("v%d: %v", version, err)
				}
				var got []string
				for _, s := range p.settings {
					got = append(got, s.file+"="+strings.ReplaceAll(s.value, " ", "_"))
				}
				if got := strings.Join(append(got, itoa(int64(len(p.warnings)))), " "); got != want {
					t.Errorf("v%d: %s\nwant %s\nwarnings %q", version, got, want, p.warnings)
				}
			}
		})
	}
}

func TestPlanRefuses(t *testing.T) {
	for name, r := range map[string]specs.LinuxResources{
		"swap below memory": {Memory: &specs.LinuxMemory{Limit: ptr(int64(10)), Swap: ptr(int64(5))}},
		"few shares":        {CPU: &specs.LinuxCPU{Shares: ptr(uint64(1))}},
		"many shares":       {CPU: &specs.LinuxCPU{Shares: ptr(uint64(262145))}},
		"weight":            {BlockIO: &specs.LinuxBlockIO{Weight: ptr(uint16(5))}},
		"page size":         {HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "../2MB"}}},
		"path":              {Unified: map[string]string{"../memory.max": "1"}},
		"no controller":     {Unified: map[string]string{"memory": "1"}},
	} {
		for version := 1; version <= 2; version++ {
			if _, err := newPlan(drawn(t, version, []string{"memory", "cpu", "blkio", "io", "hugetlb"}), &r, true); !errors.Is(err, fault.Invalid) {
				t.Errorf("%s on v%d: %v", name, version, err)
			}
		}
	}
	if _, err := newPlan(drawn(t, 1, []string{"memory"}), &specs.LinuxResources{Unified: map[string]string{"memory.high": "1"}}, true); !errors.Is(err, fault.Unsupported) {
		t.Errorf("unified on v1: %v", err)
	}
}

// TestMissingControllersWarn asks for everything where nothing is.
func TestMissingControllersWarn(t *testing.T) {
	r := specs.LinuxResources{
		Memory:  &specs.LinuxMemory{Limit: ptr(int64(1 << 20))},
		CPU:     &specs.LinuxCPU{Shares: ptr(uint64(2)), Cpus: "0"},
		Pids:    &specs.LinuxPids{Limit: ptr(int64(3))},
		BlockIO: &specs.LinuxBlockIO{Weight: ptr(uint16(10))},
	}
	p, err := newPlan(drawn(t, 1, nil), &r, true)
	if err != nil || len(p.settings) != 0 || len(p.warnings) != 5 {
		t.Errorf("%v %v %q", err, p.settings, p.warnings)
	}
	for _, w := range p.warnings {
		if !strings.Contains(w, "discarded: ") {
			t.Errorf("%q does not say what happens", w)
		}
	}
}

func TestWeight(t *testing.T) {
	for shares, want := range map[uint64]uint64{0: 1, 2: 1, 1024: 100, 262144: 10000, 1 << 40: 10000} {
		if got := Weight(shares); got != want {
			t.Errorf("%d shares are a weight of %d, want %d", shares, got, want)
		}
	}
	for shares, last := uint64(2), uint64(0); shares <= 262144; shares += 7 {
		w := Weight(shares)
		if w < last || w < 1 || w > 10000 {
			t.Fatalf("%d shares: %d after %d", shares, w, last)
		}
		last = w
	}
}

func TestParseIO(t *testing.T) {
	want := []IOStats{{8, 0, 4096, 512, 3, 1}, {253, 16, 7, 0, 0, 0}}
	v1 := parseBlkio("8:0 Read 4096\n8:0 Write 512\n8:0 Sync 9\n253:16 Read 7\nTotal 99\n", "8:0 Read 3\n8:0 Write 1\nx:y Read 1\n8:0 Read -\n")
	v2 := parseIOStat("8:0 rbytes=4096 wbytes=512 rios=3 wios=1 dbytes=0\n253:16 rbytes=7\n9:9\nx rbytes=1\n")
	if !slices.Equal(v1, want) || !slices.Equal(v2, want) {
		t.Errorf("%v\n%v\nwant %v", v1, v2, want)
	}
}
