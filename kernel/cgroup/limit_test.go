package cgroup

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"berth/fault"
)

const mega = int64(1 << 20)

func TestQuotaThrottles(t *testing.T) {
	g := group(t, &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(5000)), Period: ptr(uint64(20000)), Shares: ptr(uint64(512))}})
	in(t, g, "spin")
	await(t, "throttling", func() bool { return g.Stats().CPU.Throttled > 2 })
	s := g.Stats().CPU
	// A group may run over within a period by a slice per processor, not by half as much again in the long run.
	if allowed := (s.Periods + 1) * 5_000_000 * 3 / 2; s.Total > allowed+50_000_000 {
		t.Errorf("used %d ns in %d periods of 5 ms", s.Total, s.Periods)
	}
}

func TestMemoryLimitKills(t *testing.T) {
	g := group(t, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(32 * mega), Swap: ptr(48 * mega)}})
	if n, err := g.OOMKills(); n != 0 || err != nil {
		t.Errorf("%d kills before, %v", n, err)
	}
	a := in(t, g, "eat 64")
	if ws := a.end(); !ws.Signaled() || ws.Signal() != syscall.SIGKILL {
		t.Errorf("status %#x", ws)
	}
	await(t, "the count", func() bool { n, _ := g.OOMKills(); return n == 1 })
	if s := g.Stats().Memory; s.Limit != uint64(32*mega) || s.Failures == 0 {
		t.Errorf("%+v", s)
	}
	inner, _, err := Create(g.Path()+"/inner", nil)
	if err != nil {
		t.Fatal(err)
	}
	in(t, inner, "eat 64").end()
	await(t, "the count of a group below", func() bool { n, _ := g.OOMKills(); return n == 2 })
}

func TestPidsLimit(t *testing.T) {
	g := group(t, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(30))}})
	a := in(t, g, "fork 60")
	if line := a.says(t); !strings.HasPrefix(line, "refused: ") {
		t.Errorf("60 processes under a limit of 30: %q", line)
	}
	if s := g.Stats().Pids; s.Limit != 30 || s.Current == 0 || s.Current > 30 {
		t.Errorf("%+v", s)
	}
}

func TestDevicesAreGuarded(t *testing.T) {
	g := group(t, &specs.LinuxResources{Devices: dockers()})
	null, kmsg := in(t, g, "open /dev/null"), in(t, g, "open /dev/kmsg")
	const denied = "open /dev/kmsg: operation not permitted"
	if line := null.says(t); line != "<nil>" {
		t.Errorf("a device on the list: %s", line)
	}
	if line := kmsg.says(t); line != denied {
		t.Errorf("a device that is not: %s", line)
	}
	again := func(want string, rules ...specs.LinuxDeviceCgroup) {
		t.Helper()
		if _, err := g.Set(&specs.LinuxResources{Devices: rules}); err != nil {
			t.Fatal(err)
		}
		kmsg.act(t)
		if line := kmsg.says(t); line != want {
			t.Errorf("after %v: %s", rules, line)
		}
		null.act(t)
		if line := null.says(t); line != "<nil>" {
			t.Errorf("the other device after %v: %s", rules, line)
		}
	}
	again("<nil>", append(dockers(), rule(true, "c", 1, 11, "rw"))...)
	again(denied, append(dockers(), rule(true, "c", 1, 11, "r"))...)
	again(denied, dockers()...)
	again("<nil>", rule(true, "a", wild, wild, "rwm"))
	again(denied, rule(true, "a", wild, wild, "rwm"), rule(false, "c", 1, 11, "w"))
	again("<nil>", rule(true, "a", wild, wild, "rwm"))
	again(denied, dockers()...)
}

func TestCpuset(t *testing.T) {
	g := group(t, &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0"}})
	a := in(t, g, "spin")
	allowed := func() string {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", a.cmd.Process.Pid))
		_, rest, _ := strings.Cut(string(status), "Cpus_allowed_list:\t")
		list, _, _ := strings.Cut(rest, "\n")
		return list
	}
	if got := allowed(); got != "0" {
		t.Errorf("allowed on %s", got)
	}
	has(t, Supported().Cpus != "0", "a second processor")
	if _, err := g.Set(&specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "1"}}); err != nil {
		t.Error(err)
	}
	if got := allowed(); got != "1" {
		t.Errorf("moved to 1, allowed on %s", got)
	}
}

// TestSetInBothDirections takes limits that bind each other up and down; any order of writing fails for one of the steps.
func TestSetInBothDirections(t *testing.T) {
	g := group(t, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(64 * mega), Swap: ptr(128 * mega)}})
	in(t, g, "wait")
	for _, m := range [][2]int64{{256, 512}, {32, 32}, {600, 600}, {16, 700}, {15, 16}, {-1, -1}, {64, 64}, {-1, 0}, {128, 256}} {
		limit, swap := m[0], m[1]
		if limit > 0 {
			limit *= mega
		}
		if swap > 0 {
			swap *= mega
		}
		if _, err := g.Set(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &swap}}); err != nil {
			t.Errorf("to %v: %v", m, err)
		}
		if got := g.Stats().Memory.Limit; got != uint64(max(limit, 0)) {
			t.Errorf("set to %d, reads %d", limit, got)
		}
	}
	for _, c := range [][3]int64{{50000, 100000, 0}, {10000, 10000, 10000}, {1000, 1000, 0}, {100000, 100000, 100000}, {5000, 50000, 2000}, {-1, 100000, 0}} {
		r := &specs.LinuxCPU{Quota: &c[0], Period: ptr(uint64(c[1])), Burst: ptr(uint64(c[2]))}
		if w, err := g.Set(&specs.LinuxResources{CPU: r}); err != nil {
			t.Errorf("to %v: %v (%q)", c, err, w)
		}
	}
	for _, p := range []int64{5, 100, -1} {
		if _, err := g.Set(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &p}}); err != nil {
			t.Error(err)
		}
		if got := g.Stats().Pids.Limit; got != uint64(max(p, 0)) {
			t.Errorf("pids limit set to %d, reads %d", p, got)
		}
	}
}

// TestFailedSetChangesNothing sets something good and something bad at once.
func TestFailedSetChangesNothing(t *testing.T) {
	g := group(t, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(64 * mega), Swap: ptr(64 * mega)}, Pids: &specs.LinuxPids{Limit: ptr(int64(50))}})
	_, err := g.Set(&specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(128 * mega), Swap: ptr(256 * mega)},
		Pids:   &specs.LinuxPids{Limit: ptr(int64(10))},
		CPU:    &specs.LinuxCPU{Cpus: "4090"},
	})
	if !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "cpuset") {
		t.Errorf("processors that are not there: %v", err)
	}
	if s := g.Stats(); s.Memory.Limit != uint64(64*mega) || s.Pids.Limit != 50 {
		t.Errorf("limits are %d bytes, %d processes", s.Memory.Limit, s.Pids.Limit)
	}
	a := in(t, g, "eat 20")
	a.says(t)
	_, err = g.Set(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(4 * mega), Swap: ptr(4 * mega), CheckBeforeUpdate: ptr(true)}})
	if !errors.Is(err, fault.Conflict) || g.Stats().Memory.Limit != uint64(64*mega) {
		t.Errorf("a limit below use: %v, limit %d", err, g.Stats().Memory.Limit)
	}
	if s := g.Stats(); s.Memory.Usage < uint64(20*mega) || s.CPU.Total == 0 {
		t.Errorf("%+v", s)
	}
}

// TestEverySetting asks for all that this kernel may hold; what it can't must come back as a warning.
func TestEverySetting(t *testing.T) {
	g := group(t, &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(64 * mega), Swap: ptr(64 * mega), Reservation: ptr(32 * mega), KernelTCP: ptr(32 * mega),
			Swappiness: ptr(uint64(0)), DisableOOMKiller: ptr(true)},
		CPU:            &specs.LinuxCPU{Shares: ptr(uint64(256)), Quota: ptr(int64(50000)), Period: ptr(uint64(100000)), Burst: ptr(uint64(10000)), Cpus: "0", Mems: "0"},
		BlockIO:        &specs.LinuxBlockIO{Weight: ptr(uint16(300))},
		Pids:           &specs.LinuxPids{Limit: ptr(int64(100))},
		HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 2 << 20}},
		Network:        &specs.LinuxNetwork{ClassID: ptr(uint32(1))},
		Devices:        dockers(),
	})
	in(t, g, "open /dev/null").says(t)
	if g.Stats().CPU.Total == 0 {
		t.Error("no processor time is counted")
	}
}

func BenchmarkCreate(b *testing.B) {
	g := &Group{}
	r := &specs.LinuxResources{
		Memory:  &specs.LinuxMemory{Limit: ptr(64 * mega), Swap: ptr(64 * mega)},
		CPU:     &specs.LinuxCPU{Quota: ptr(int64(50000)), Period: ptr(uint64(100000))},
		Pids:    &specs.LinuxPids{Limit: ptr(int64(100))},
		Devices: dockers(),
	}
	path := os.Getenv("BERTH_TEST_CGROUP") + "/bench"
	for b.Loop() {
		var err error
		if g, _, err = Create(path, r); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := g.Delete(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.StopTimer()
	Load(os.Getenv("BERTH_TEST_CGROUP")).Delete()
}

// BenchmarkAdd moves a process back and forth between two groups.
func BenchmarkAdd(b *testing.B) {
	for name, r := range map[string]*specs.LinuxResources{
		"v1":    nil,
		"mixed": {HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 1 << 30}}},
	} {
		b.Run(name, func(b *testing.B) {
			parent := os.Getenv("BERTH_TEST_CGROUP")
			one, _, err1 := Create(parent+"/one", r)
			two, _, err2 := Create(parent+"/two", r)
			sleep := exec.Command("/bin/sleep", "1000")
			if err := errors.Join(err1, err2, sleep.Start()); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if err := one.Add(sleep.Process.Pid); err != nil {
					b.Fatal(err)
				}
				one, two = two, one
			}
			sleep.Process.Kill()
			sleep.Wait()
			if err := errors.Join(one.Delete(), two.Delete(), Load(parent).Delete()); err != nil {
				b.Fatal(err)
			}
		})
	}
}
