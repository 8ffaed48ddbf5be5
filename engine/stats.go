package engine

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"berth/container"
	"berth/engine/bundle"
	"berth/oci"

	api "github.com/moby/moby/api/types/container"
)

// StatsRequest says how often to look at what a container uses.
type StatsRequest struct {
	Stream  bool // one sample a second; without it a single one
	OneShot bool // without Stream: at once, instead of a second after the sample that it is compared with
}

// statsInterval is the time between two samples, as the API promises.
const statsInterval = time.Second

// Stats calls begin once it is known that there will be samples, and then send for each. A stream ends when the
// container is removed, or with ctx; of a container that does not run all counters are zero.
func (c *views) Stats(ctx context.Context, ref string, o StatsRequest, begin func() error, send func(*api.StatsResponse) error) error {
	i, err := c.index.Get(ref)
	if err != nil {
		return err
	}
	removed, err := c.Wait(i.id, api.WaitConditionRemoved)
	if err != nil {
		return err
	}
	defer removed.Close()
	if err := begin(); err != nil {
		return err
	}
	tick := time.NewTicker(statsInterval)
	defer tick.Stop()
	var before *api.StatsResponse
	for {
		now := c.sample(i.record())
		if before != nil && before.CPUStats.CPUUsage.TotalUsage <= now.CPUStats.CPUUsage.TotalUsage { // else it was started anew
			now.PreRead, now.PreCPUStats = before.Read, before.CPUStats
		}
		if o.Stream || o.OneShot || before != nil || !i.record().State.Status.Alive() {
			if err := send(now); err != nil || !o.Stream {
				return err
			}
		}
		before = now
		select {
		case <-tick.C:
		case <-removed.C:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// sample reads a container's counters. What ends meanwhile reads as zero.
func (c *views) sample(r *container.Record) *api.StatsResponse {
	s := &api.StatsResponse{ID: r.ID, Name: "/" + r.Name, OSType: "linux"}
	s.BlkioStats = blockStats(nil)
	if !r.State.Status.Alive() {
		return s
	}
	u := oci.Usage(bundle.CgroupsPath(c.cgroupParent, r))
	s.Read = time.Now().UTC()
	s.CPUStats = cpuStats(&u)
	s.CPUStats.SystemUsage, s.CPUStats.OnlineCPUs = processorTime()
	s.MemoryStats = memoryStats(&u, uint64(totalMemory()))
	s.PidsStats = api.PidsStats{Current: u.Pids.Current, Limit: u.Pids.Limit}
	s.BlkioStats = blockStats(u.IO)
	s.Networks = c.networkStats(r)
	return s
}

func cpuStats(u *oci.Stats) api.CPUStats {
	return api.CPUStats{
		CPUUsage:       api.CPUUsage{TotalUsage: u.CPU.Total, PercpuUsage: u.CPU.PerCPU, UsageInKernelmode: u.CPU.System, UsageInUsermode: u.CPU.User},
		ThrottlingData: api.ThrottlingData{Periods: u.CPU.Periods, ThrottledPeriods: u.CPU.Throttled, ThrottledTime: u.CPU.ThrottledTime},
	}
}

// memoryStats gives a container without a limit the machine's memory as its limit.
func memoryStats(u *oci.Stats, machine uint64) api.MemoryStats {
	m := u.Memory
	if m.Limit == 0 || m.Limit > machine {
		m.Limit = machine
	}
	return api.MemoryStats{Usage: m.Usage, MaxUsage: m.MaxUsage, Limit: m.Limit, Failcnt: m.Failures, Stats: m.Detail}
}

// blockStats fills what the kernel still counts; the other lists belong to schedulers that are gone.
func blockStats(devices []oci.IOStats) api.BlkioStats {
	b := api.BlkioStats{
		IoServiceBytesRecursive: []api.BlkioStatEntry{}, IoServicedRecursive: []api.BlkioStatEntry{},
		IoQueuedRecursive: []api.BlkioStatEntry{}, IoServiceTimeRecursive: []api.BlkioStatEntry{}, IoWaitTimeRecursive: []api.BlkioStatEntry{},
		IoMergedRecursive: []api.BlkioStatEntry{}, IoTimeRecursive: []api.BlkioStatEntry{}, SectorsRecursive: []api.BlkioStatEntry{},
	}
	for _, d := range devices {
		entry := func(op string, n uint64) api.BlkioStatEntry {
			return api.BlkioStatEntry{Major: d.Major, Minor: d.Minor, Op: op, Value: n}
		}
		b.IoServiceBytesRecursive = append(b.IoServiceBytesRecursive, entry("read", d.ReadBytes), entry("write", d.WriteBytes))
		b.IoServicedRecursive = append(b.IoServicedRecursive, entry("read", d.ReadRequests), entry("write", d.WriteRequests))
	}
	return b
}

// processorTime is what all processors of the machine have spent since boot, in nanoseconds, and their number
// (proc_stat(5): user, nice, system, idle, iowait, irq, softirq and steal; guests' time is in user's already).
func processorTime() (total uint64, processors uint32) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	return parseProcessorTime(text)
}

func parseProcessorTime(text []byte) (total uint64, processors uint32) {
	const tick = 1e9 / 100 // USER_HZ is 100 wherever Linux runs Go
	for line := range bytes.Lines(text) {
		if !bytes.HasPrefix(line, []byte("cpu")) {
			break // the processors come first
		}
		f := bytes.Fields(line)
		if len(f[0]) > len("cpu") {
			processors++
			continue
		}
		for _, n := range f[1:min(len(f), 9)] {
			v, err := strconv.ParseUint(string(n), 10, 64)
			if err != nil {
				return 0, 0
			}
			total += v * tick
		}
	}
	return total, processors
}

// networkStats counts what passed the container's links; nil where it has none of its own.
func (c *views) networkStats(r *container.Record) map[string]api.NetworkStats {
	pid := r.State.Pid
	switch mode := r.HostConfig.NetworkMode; {
	case mode.IsHost():
		return nil
	case mode.IsContainer():
		other, err := c.index.Get(mode.ConnectedContainer())
		if err != nil {
			return nil
		}
		pid = other.record().State.Pid
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", pid))
	if err != nil {
		return nil
	}
	return parseNetDev(string(text))
}

// parseNetDev reads proc_pid_net(5)'s dev: two lines of headings, then "name: " and eight numbers received, eight sent. lo is left out.
func parseNetDev(text string) map[string]api.NetworkStats {
	links := map[string]api.NetworkStats{}
	for line := range strings.Lines(text) {
		name, rest, ok := strings.Cut(line, ":")
		name = strings.TrimSpace(name)
		f := strings.Fields(rest)
		if !ok || len(f) < 16 || name == "lo" {
			continue
		}
		n := make([]uint64, 16)
		for k := range n {
			n[k], _ = strconv.ParseUint(f[k], 10, 64)
		}
		links[name] = api.NetworkStats{
			RxBytes: n[0], RxPackets: n[1], RxErrors: n[2], RxDropped: n[3],
			TxBytes: n[8], TxPackets: n[9], TxErrors: n[10], TxDropped: n[11],
		}
	}
	if len(links) == 0 {
		return nil
	}
	return links
}
