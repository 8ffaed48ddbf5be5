package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/fault"
)

// setting is one value for one control file.
type setting struct {
	dir, file, value string
	what             string // in the user's terms, such as "memory limit"
	optional         bool   // a file that is missing or always refuses (a kernel without the feature) makes a warning
	list             bool   // the file holds a value per device: writing what was read does not restore it
	hint             string // what to do when the kernel refuses
}

// plan turns an OCI resource list into settings for one group.
type plan struct {
	g        *Group
	fresh    bool // the group was just made and has no limits
	settings []setting
	warnings []string
}

// set appends a value for a file of the directory where the controller is.
func (p *plan) set(dir, file, value, what string) *setting {
	p.settings = append(p.settings, setting{dir: dir, file: file, value: value, what: what})
	return &p.settings[len(p.settings)-1]
}

// discard warns that something can't be held here.
func (p *plan) discard(what, why string) {
	p.warnings = append(p.warnings, fmt.Sprintf("%s discarded: %s", what, why))
}

// in returns where v1's controller or its v2 namesake is. With neither, a wish for it is discarded with a warning.
func (p *plan) in(v1, v2, what string) (dir string, version int) {
	if d := p.g.in(v1, 1); d != "" {
		return d, 1
	}
	if d := p.g.in(v2, 2); d != "" {
		return d, 2
	}
	p.discard(what, "this kernel has no "+v1+" cgroup controller, or it is not mounted or not handed down here")
	return "", 0
}

// newPlan is pure except for what an unset half of a pair must be read for (v2's cpu.max).
func newPlan(g *Group, r *specs.LinuxResources, fresh bool) (*plan, error) {
	p := &plan{g: g, fresh: fresh}
	err := errors.Join(
		p.memory(r.Memory),
		p.cpu(r.CPU),
		p.pids(r.Pids),
		p.blockIO(r.BlockIO),
		p.hugepages(r.HugepageLimits),
		p.network(r.Network),
		p.rdma(r.Rdma),
		p.unified(r.Unified),
	)
	return p, err
}

// apply sets r. A fresh group has nothing to restore after a failure: its maker removes it.
func (g *Group) apply(r *specs.LinuxResources, fresh bool) (warnings []string, err error) {
	if r == nil {
		return nil, nil
	}
	p, err := newPlan(g, r, fresh)
	if err != nil {
		return nil, err
	}
	devices, err := newDevices(r.Devices)
	if err != nil {
		return nil, err
	}
	if err := g.checkUsage(r.Memory); err != nil {
		return nil, err
	}
	var former []setting
	if !fresh {
		former = p.former()
	}
	if err := p.settle(); err != nil {
		(&plan{g: g, settings: former}).settle() // as far as the kernel takes them: the first error is the one to report
		return nil, err
	}
	if devices != nil {
		w, err := g.setDevices(devices, fresh)
		p.warnings = append(p.warnings, w...)
		if err != nil {
			(&plan{g: g, settings: former}).settle()
			return nil, err
		}
	}
	return p.warnings, nil
}

// former reads the values that the plan is going to replace.
func (p *plan) former() []setting {
	var all []setting
	for _, s := range p.settings {
		if s.list {
			continue
		}
		if old, err := read(s.dir, s.file); err == nil && old != "" && !strings.Contains(old, "\n") {
			s.value = old
			all = append(all, s)
		}
	}
	return all
}

// settle writes the settings. The kernel checks some against each other (memory ≤ memory+swap, burst ≤ quota,
// a child's quota per period ≤ its parent's), and which order passes depends on the values that
// are there; so what it refuses is tried again after the rest, as long as that gets anywhere.
func (p *plan) settle() error {
	left := p.settings
	for len(left) > 0 {
		var refused []setting
		var first error
		for _, s := range left {
			err := write(s.dir, s.file, s.value)
			switch {
			case err == nil:
			case s.optional && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP)):
				p.discard(s.what, "this kernel can't limit it ("+path.Base(s.file)+")")
			case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EBUSY), errors.Is(err, unix.EPERM):
				refused = append(refused, s)
				if first == nil {
					first = s.failed(err)
				}
			default:
				return s.failed(err)
			}
		}
		if len(refused) == len(left) {
			return first
		}
		left = refused
	}
	return nil
}

// failed says what could not be set, why, and what helps.
func (s setting) failed(err error) error {
	var cause error = err
	var pathErr *os.PathError
	if errors.As(err, &pathErr) {
		cause = pathErr.Err
	}
	hint := s.hint
	if hint != "" {
		hint = " (" + hint + ")"
	}
	return kind(fmt.Errorf("set %s to %s: %s/%s: %w%s", s.what, s.value, s.dir, s.file, cause, hint))
}

// checkUsage refuses a memory limit below what is in use, when that was asked for; v2 would start to kill. Files that the
// kernel can drop don't count.
func (g *Group) checkUsage(m *specs.LinuxMemory) error {
	if m == nil || m.CheckBeforeUpdate == nil || !*m.CheckBeforeUpdate || m.Limit == nil || *m.Limit <= 0 {
		return nil
	}
	file, d := "memory.usage_in_bytes", g.in("memory", 1)
	if d == "" {
		file, d = "memory.current", g.in("memory", 2)
	}
	used, ok := readUint(d, file)
	detail := readKeyed(d, "memory.stat")
	for _, files := range [][2]string{{"total_inactive_file", "inactive_file"}, {"total_active_file", "active_file"}} {
		n, v1 := detail[files[0]]
		if !v1 {
			n = detail[files[1]]
		}
		used -= min(n, used)
	}
	if ok && used > uint64(*m.Limit) {
		return fault.New(fault.Conflict, "set memory limit to %d: cgroup %s uses %d bytes now; free some first, or set a higher limit", *m.Limit, g.path, used)
	}
	return nil
}
