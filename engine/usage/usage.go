// Package usage says what a container uses, in the API's terms: its cgroup's counters, its links', its processes as ps shows them.
//
// It knows no record and no container: it is told a cgroup and process numbers. Invariant: it changes nothing, and
// what has gone meanwhile counts as zero.
package usage

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"berth/oci"

	api "github.com/moby/moby/api/types/container"
)

// None is a sample of a container that does not run.
func None() *api.StatsResponse {
	return &api.StatsResponse{OSType: "linux", BlkioStats: blockStats(nil)}
}

// Sample reads the counters of the group at cgroupsPath and of the links that process netPID sees (0: none); memory is the machine's in
// bytes, the limit of a container that has none.
func Sample(cgroupsPath string, netPID int, memory uint64) *api.StatsResponse {
	u := oci.Usage(cgroupsPath)
	s := &api.StatsResponse{OSType: "linux", Read: time.Now().UTC(), CPUStats: cpuStats(&u), MemoryStats: memoryStats(&u, memory)}
	s.CPUStats.SystemUsage, s.CPUStats.OnlineCPUs = processorTime()
	s.PidsStats = api.PidsStats{Current: u.Pids.Current, Limit: u.Pids.Limit}
	s.BlkioStats = blockStats(u.IO)
	if netPID != 0 {
		s.Networks = linkStats(netPID)
	}
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

// linkStats counts what passed the links that process pid sees; nil where it has none.
func linkStats(pid int) map[string]api.NetworkStats {
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
