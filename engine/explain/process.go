package explain

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"berth/oci"
)

// process is one to be looked at, by its number in a procfs.
type process struct {
	proc string
	pid  int
}

func (p process) dir() string { return filepath.Join(p.proc, strconv.Itoa(p.pid)) }

func (p process) read(name string) (string, error) {
	data, err := os.ReadFile(filepath.Join(p.dir(), name))
	return string(data), err
}

// started is when it began, in ticks since boot: two processes of one number differ in it (proc_pid_stat(5), field 22).
func (p process) started() (string, error) {
	text, err := p.read("stat")
	if err != nil {
		return "", err
	}
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 20 {
		return "", fmt.Errorf("%s/stat: too short", p.dir())
	}
	return fields[19], nil
}

// describe reads status, cmdline, limits, the id maps and the OOM files (proc_pid(5)).
func (p process) describe() (*Process, error) {
	text := map[string]string{}
	for _, name := range []string{"status", "cmdline", "limits", "uid_map", "gid_map", "oom_score_adj", "oom_score"} {
		var err error
		if text[name], err = p.read(name); err != nil {
			return nil, err
		}
	}
	d := parseStatus(text["status"])
	d.Pid = p.pid
	d.Command = strings.TrimSpace(strings.ReplaceAll(text["cmdline"], "\x00", " "))
	d.Limits = parseLimits(text["limits"])
	d.UIDMap, d.GIDMap = parseMap(text["uid_map"]), parseMap(text["gid_map"])
	d.OOMScoreAdj, d.OOMScore = number(text["oom_score_adj"]), number(text["oom_score"])
	dir := p.dir()
	d.Look = []string{"cat " + dir + "/status", "cat " + dir + "/limits", "cat " + dir + "/uid_map", "ps -o pid,ppid,args -p " + strconv.Itoa(p.pid)}
	return d, nil
}

func number(s string) int {
	n, _ := strconv.Atoi(strings.TrimSpace(s)) // the kernel's own numbers
	return n
}

func numbers(s string) []int {
	var all []int
	for _, f := range strings.Fields(s) {
		all = append(all, number(f))
	}
	return all
}

// parseStatus reads /proc/PID/status (proc_pid_status(5)).
func parseStatus(text string) *Process {
	d := &Process{Seccomp: "off"}
	sets := map[string]*[]string{"CapEff": &d.Capabilities.Effective, "CapPrm": &d.Capabilities.Permitted, "CapInh": &d.Capabilities.Inheritable,
		"CapBnd": &d.Capabilities.Bounding, "CapAmb": &d.Capabilities.Ambient}
	for _, line := range strings.Split(text, "\n") {
		key, value, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		value = strings.TrimSpace(value)
		if set := sets[key]; set != nil {
			bits, _ := strconv.ParseUint(value, 16, 64)
			*set = append([]string{}, oci.CapabilityNames(bits)...)
			continue
		}
		switch key {
		case "PPid":
			d.Supervisor = number(value)
		case "NSpid":
			if inside := numbers(value); len(inside) > 0 {
				d.Inside = inside[len(inside)-1]
			}
		case "Uid":
			d.UID = numbers(value)
		case "Gid":
			d.GID = numbers(value)
		case "Groups":
			d.Groups = numbers(value)
		case "NoNewPrivs":
			d.NoNewPrivs = value == "1"
		case "Seccomp":
			if n := number(value); n > 0 && n < 3 {
				d.Seccomp = []string{"off", "strict", "filter"}[n]
			}
		case "Seccomp_filters":
			d.Filters = number(value)
		}
	}
	return d
}

// parseLimits reads /proc/PID/limits, whose columns stand where its headings do.
func parseLimits(text string) []Limit {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	soft, hard, unit := strings.Index(lines[0], "Soft Limit"), strings.Index(lines[0], "Hard Limit"), strings.Index(lines[0], "Units")
	if soft < 0 || hard < soft || unit < hard {
		return nil
	}
	var all []Limit
	for _, l := range lines[1:] {
		if len(l) < unit {
			continue
		}
		all = append(all, Limit{strings.TrimSpace(strings.TrimPrefix(l[:soft], "Max ")), strings.TrimSpace(l[soft:hard]), strings.TrimSpace(l[hard:unit]), strings.TrimSpace(l[unit:])})
	}
	return all
}

// parseMap reads uid_map or gid_map (user_namespaces(7)).
func parseMap(text string) []IDRange {
	var all []IDRange
	for _, line := range strings.Split(text, "\n") {
		var r IDRange
		if n, _ := fmt.Sscan(line, &r.Container, &r.Host, &r.Size); n == 3 {
			all = append(all, r)
		}
	}
	return all
}

// namespaces compares the process's with our own.
func (p process) namespaces() ([]Namespace, error) {
	entries, err := os.ReadDir(filepath.Join(p.dir(), "ns"))
	if err != nil {
		return nil, err
	}
	var all []Namespace
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), "_for_children") {
			continue
		}
		n := Namespace{Kind: e.Name(), File: filepath.Join(p.dir(), "ns", e.Name())}
		if n.Inode, err = inode(n.File); err != nil {
			return nil, err
		}
		if n.Host, err = inode(filepath.Join(p.proc, "self/ns", e.Name())); err != nil {
			return nil, err
		}
		n.Own = n.Inode != n.Host
		all = append(all, n)
	}
	return all, nil
}

// inode reads the number in "net:[4026531840]" (namespaces(7)).
func inode(link string) (uint64, error) {
	text, err := os.Readlink(link)
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(text, "[")
	n, err := strconv.ParseUint(strings.TrimSuffix(rest, "]"), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %q is no namespace", link, text)
	}
	return n, nil
}

// shown are the files of a control group that tell limits, use and what went wrong, by the beginning of their names.
func shown() []string {
	return []string{
		"memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.soft_limit_in_bytes", "memory.usage_in_bytes", "memory.max_usage_in_bytes",
		"memory.failcnt", "memory.swappiness", "memory.oom_control",
		"memory.max", "memory.high", "memory.low", "memory.swap.max", "memory.current", "memory.peak", "memory.events", "memory.oom.group",
		"cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.rt_runtime_us", "cpu.rt_period_us", "cpu.stat",
		"cpu.max", "cpu.weight", "cpuacct.usage", "cpuset.cpus", "cpuset.mems", "cpuset.cpus.effective", "cpuset.mems.effective",
		"pids.max", "pids.current", "devices.list", "freezer.state", "cgroup.freeze", "cgroup.controllers", "cgroup.events", "cgroup.procs",
		"blkio.weight", "blkio.bfq.weight", "blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device",
		"blkio.throttle.read_iops_device", "blkio.throttle.write_iops_device", "io.max", "io.weight", "io.bfq.weight", "net_cls.classid", "net_prio.ifpriomap",
	}
}

// groups finds the process's control groups and reads what is in them (cgroups(7)).
func (p process) groups() ([]Group, error) {
	text, err := p.read("cgroup")
	if err != nil {
		return nil, err
	}
	own, err := os.ReadFile(filepath.Join(p.proc, "self/mountinfo"))
	if err != nil {
		return nil, err
	}
	table := parseMounts(string(own))
	var all []Group
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		parts := strings.SplitN(line, ":", 3) // the path may have colons
		if len(parts) != 3 {
			continue
		}
		g := Group{Version: 1, Controllers: strings.FieldsFunc(parts[1], func(r rune) bool { return r == ',' })}
		if parts[1] == "" {
			g.Version, g.Controllers = 2, nil
		}
		g.Dir = groupDir(table, g, parts[2])
		if g.Version == 2 && g.Dir != "" {
			data, err := os.ReadFile(filepath.Join(g.Dir, "cgroup.controllers"))
			if err == nil {
				g.Controllers = strings.Fields(string(data))
			}
		}
		g.Files = []Value{}
		if parts[2] != "/" { // the hierarchy's root is everybody's
			g.Files = values(g.Dir)
		}
		all = append(all, g)
	}
	slices.SortStableFunc(all, func(a, b Group) int {
		return strings.Compare(strings.Join(a.Controllers, ","), strings.Join(b.Controllers, ","))
	})
	return all, nil
}

// groupDir is where a hierarchy's group is mounted; "" when it isn't.
func groupDir(table []mountLine, g Group, path string) string {
	for _, m := range table {
		fits := g.Version == 2 && m.kind == "cgroup2" || g.Version == 1 && m.kind == "cgroup"
		for _, c := range g.Controllers {
			fits = fits && slices.Contains(strings.Split(m.super, ","), c)
		}
		if !fits {
			continue
		}
		if rest, ok := beneath(m.root, path); ok {
			return filepath.Join(m.target, rest)
		}
	}
	return ""
}

// values reads the files of a group that are there.
func values(dir string) []Value {
	all := []Value{}
	if dir == "" {
		return all
	}
	for _, name := range shown() {
		file := filepath.Join(dir, name)
		if data, err := os.ReadFile(file); err == nil {
			all = append(all, Value{file, string(bytes.TrimSpace(data))})
		}
	}
	return all
}
