package cgroup

import (
	"fmt"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Support says which limits this system can hold, in the words of Docker's /info.
type Support struct {
	Version string // "1" or "2": what carries the memory controller
	Driver  string // "cgroupfs": groups are made directly, without asking systemd

	MemoryLimit       bool
	MemoryReservation bool
	SwapLimit         bool
	Swappiness        bool
	KernelMemoryTCP   bool
	OomKillDisable    bool
	CPUShares         bool
	CPUCfsPeriod      bool
	CPUCfsQuota       bool
	CPURealtime       bool
	CPUSet            bool
	Cpus, Mems        string // processors and memory nodes that a group can have, such as "0-3"
	PidsLimit         bool
	BlkioWeight       bool
	BlkioThrottle     bool
	Devices           bool
	Freezer           bool
	HugePages         bool
	NetClass          bool
}

// Supported looks at the control files, so it costs some twenty system calls.
func Supported() Support { return Detect().Supported() }

// Supported is the package's Supported in the layout l.
func (l Layout) Supported() Support {
	s := Support{Version: "1", Driver: "cgroupfs"}
	if l.Mode == V2 {
		s.Version = "2"
	}
	for _, h := range l.Hierarchies {
		if h.Base == "" {
			continue
		}
		for _, c := range h.Controllers {
			if h.Version == 1 {
				s.v1(c, h.Base)
				if c == "blkio" {
					s.BlkioWeight = h.below(func(d string) bool { return exists(d+"/blkio.weight") || exists(d+"/blkio.bfq.weight") })
				}
			} else {
				s.v2(c, h.sample())
			}
		}
		if h.Version == 2 && l.Mode == V2 {
			s.Devices, s.Freezer = true, true
		}
	}
	return s
}

func (s *Support) v1(controller, d string) {
	has := func(file string) bool { return exists(d + "/" + file) }
	switch controller {
	case "memory":
		s.MemoryLimit = true
		s.MemoryReservation = has("memory.soft_limit_in_bytes")
		s.SwapLimit = has("memory.memsw.limit_in_bytes")
		s.Swappiness = has("memory.swappiness")
		s.KernelMemoryTCP = has("memory.kmem.tcp.limit_in_bytes")
		s.OomKillDisable = has("memory.oom_control")
	case "cpu":
		s.CPUShares = has("cpu.shares")
		s.CPUCfsPeriod = has("cpu.cfs_period_us")
		s.CPUCfsQuota = has("cpu.cfs_quota_us")
		s.CPURealtime = has("cpu.rt_runtime_us")
	case "cpuset":
		s.CPUSet = true
		s.Cpus, _ = read(d, "cpuset.cpus")
		s.Mems, _ = read(d, "cpuset.mems")
	case "blkio":
		s.BlkioThrottle = has("blkio.throttle.read_bps_device")
	case "pids":
		s.PidsLimit = true
	case "devices":
		s.Devices = true
	case "freezer":
		s.Freezer = true
	case "hugetlb":
		s.HugePages = true
	case "net_cls":
		s.NetClass = true
	}
}

// v2 takes a directory to look into, "" when there is none: then what every kernel since 5.10 has is assumed.
func (s *Support) v2(controller, d string) {
	has := func(file string) bool { return d == "" || exists(d+"/"+file) }
	switch controller {
	case "memory":
		s.MemoryLimit, s.MemoryReservation = true, true
		s.SwapLimit = has("memory.swap.max")
	case "cpu":
		s.CPUShares = true
		s.CPUCfsPeriod = has("cpu.max")
		s.CPUCfsQuota = s.CPUCfsPeriod
	case "cpuset":
		s.CPUSet = true
		s.Cpus, s.Mems = online("cpu"), online("node")
		if cpus, err := read(d, "cpuset.cpus.effective"); d != "" && err == nil {
			s.Cpus = cpus
			s.Mems, _ = read(d, "cpuset.mems.effective")
		}
	case "io":
		s.BlkioWeight = d != "" && (exists(d+"/io.weight") || exists(d+"/io.bfq.weight"))
		s.BlkioThrottle = has("io.max")
	case "pids":
		s.PidsLimit = true
	case "hugetlb":
		s.HugePages = true
	}
}

// below asks about a group below Base, as the top lacks some files: any that is there, else one that is made for the question.
func (h Hierarchy) below(ask func(dir string) bool) bool {
	there, _ := filepath.Glob(h.Base + "/*/cgroup.procs")
	if len(there) > 0 {
		return ask(path.Dir(there[0]))
	}
	probe := fmt.Sprintf("%s/berth-probe-%d", h.Base, os.Getpid())
	if err := unix.Mkdir(probe, 0o755); err != nil {
		return false
	}
	defer unix.Rmdir(probe)
	return ask(probe)
}

// sample finds a v2 group that has the files of limits: the top has none. This process's own, or any below Base.
func (h Hierarchy) sample() string {
	if own := path.Join(h.Mount, h.Own); h.Own != "" && exists(own+"/cgroup.type") && exists(own+"/memory.max") {
		return own
	}
	found, _ := filepath.Glob(h.Base + "/*/memory.max")
	if len(found) > 0 {
		return path.Dir(found[0])
	}
	return ""
}

// online reads the machine's list of processors or memory nodes, such as "0-3".
func online(what string) string {
	if what == "node" {
		if s, err := read("/sys/devices/system/node", "online"); err == nil {
			return s
		}
		return "0"
	}
	s, err := read("/sys/devices/system/cpu", "online")
	if os.IsNotExist(err) {
		return "0"
	}
	return s
}
