package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// figure is something seen beside a measurement.
type figure struct {
	Name, Unit string
	Value      float64
}

// observed runs measure and looks at what it took of the machine: processor time of all in this world but its registries, and the daemon's
// highest memory.
func observed(e engine, measure func() (float64, error)) (float64, []figure, error) {
	open := &e.common().open
	daemon := e.daemon()
	if daemon != 0 { // proc(5): resets the peak resident set size
		os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", daemon), []byte("5"), 0o200)
	}
	before := cpuOfWorld(open)
	ms, err := measure()
	more := []figure{{"processor time", "ms", cpuOfWorld(open) - before}}
	if daemon != 0 {
		if mb, err := field(fmt.Sprintf("/proc/%d/status", daemon), "VmHWM:"); err == nil {
			more = append(more, figure{"daemon's peak memory", "MB", mb})
		}
	}
	return ms, more, err
}

// cpuOfWorld sums the processor time in ms of all processes that this world shows, those included that have ended (their parents
// have it), without the registries.
func cpuOfWorld(open *shops) (sum float64) {
	leave := map[int]bool{}
	for _, s := range []*shop{open.source, open.target} {
		if s != nil {
			leave[s.cmd.Process.Pid] = true
		}
	}
	paths, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range paths {
		pid, _ := strconv.Atoi(strings.Split(path, "/")[2])
		data, err := os.ReadFile(path)
		if err != nil || leave[pid] {
			continue
		}
		// proc_pid_stat(5): utime, stime, cutime and cstime are fields 14 to 17, in hundredths of a second; the second field may hold blanks.
		field := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
		for _, text := range field[11:15] {
			ticks, _ := strconv.ParseFloat(text, 64)
			sum += 10 * ticks
		}
	}
	return sum
}
