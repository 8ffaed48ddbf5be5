package oci

import (
	"fmt"
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/fault"
	"berth/kernel"
	"berth/kernel/namespace"
	"berth/kernel/seccomp"
)

// rights are what a program may do, cut down to what we may.
type rights struct {
	bounding, effective, permitted, inheritable, ambient kernel.CapSet
	noNewPrivs                                           bool
	filter                                               seccomp.Program
	limits                                               []kernel.Limit
	oomScore                                             string
}

// capSet turns names into a set.
func capSet(names []string) (kernel.CapSet, error) {
	var set kernel.CapSet
	for _, name := range names {
		n, known := kernel.Capability(name)
		if !known {
			return 0, fault.New(fault.Invalid, "capability %q is not known", name)
		}
		set |= 1 << n
	}
	return set, nil
}

// planRights turns the process's part of a spec into rights. have is our own bounding set; what is beyond it is
// left out with a warning, and so are limits that we can't raise.
func planRights(p *specs.Process, have kernel.CapSet) (r rights, warnings []string, err error) {
	r.noNewPrivs = p.NoNewPrivileges
	if c := p.Capabilities; c != nil {
		for _, s := range []struct {
			set   *kernel.CapSet
			names []string
		}{{&r.bounding, c.Bounding}, {&r.effective, c.Effective}, {&r.permitted, c.Permitted}, {&r.inheritable, c.Inheritable}, {&r.ambient, c.Ambient}} {
			wanted, err := capSet(s.names)
			if err != nil {
				return r, nil, err
			}
			*s.set = wanted & have
			if lost := wanted &^ have; lost != 0 && s.set == &r.bounding {
				warnings = append(warnings, "capabilities not available here are left out: "+strings.Join(lost.Names(), " "))
			}
		}
	}
	limits, more, err := planLimits(p.Rlimits)
	r.limits = limits
	if p.OOMScoreAdj != nil {
		score, warning := kernel.ClampOOMScore(*p.OOMScoreAdj)
		r.oomScore = fmt.Sprint(score)
		if warning != "" {
			more = append(more, warning)
		}
	}
	return r, append(warnings, more...), err
}

// planLimits resolves names and keeps within our own hard limits where we can't raise them.
func planLimits(list []specs.POSIXRlimit) (limits []kernel.Limit, warnings []string, err error) {
	files := false
	for _, l := range list {
		limit, err := kernel.NewLimit(l.Type, l.Soft, l.Hard)
		if err != nil {
			return nil, nil, fault.Wrap(fault.Invalid, err)
		}
		if cut, was := limit.Clamp(); cut {
			warnings = append(warnings, fmt.Sprintf("%s: the hard limit %d is beyond ours and can't be raised: %d is set", l.Type, was, limit.Hard))
		}
		limits = append(limits, limit)
		files = files || l.Type == "RLIMIT_NOFILE"
	}
	if !files {
		limit, err := kernel.FileLimit()
		if err != nil {
			return nil, nil, err
		}
		limits = append(limits, limit)
	}
	return limits, warnings, nil
}

// joinAndMount is the first part of what the first process does: it joins its groups, and mounts what
// shows its own pid and cgroup namespaces.
func (b *builder) joinAndMount(s *kernel.Script) {
	s.For("make the process's memory private")
	kernel.Rights{Script: s}.Undumpable()
	s.For("join the container's cgroup")
	for _, f := range b.groups {
		s.Write(s.F(f), "0")
	}
	if b.ns.fresh&namespace.Cgroup != 0 {
		s.For("make a cgroup namespace")
		s.Unshare(namespace.Cgroup)
	}
	b.mountLater(s)
}

func (b *builder) mountLater(s *kernel.Script) {
	var proc kernel.Ref
	for _, l := range b.late {
		s.For("mount " + l.name)
		if l.mount != nil {
			at := s.Open(kernel.R(proc), l.path, kernel.OPath, kernel.Beneath|kernel.NoSymlinks)
			s.AttachMount(s.F(l.mount), kernel.R(at))
			s.Close(at)
			continue
		}
		m := s.NewMount(l.kind, l.options.data, int(l.options.set))
		s.AttachMount(kernel.R(m), s.F(l.target))
		if l.kind == "proc" {
			proc = m
		}
	}
	for _, m := range b.masks {
		s.For("protect /proc/" + m.path)
		at := s.Open(kernel.R(proc), m.path, kernel.OPath|kernel.ONoFollow, kernel.Beneath|kernel.NoSymlinks)
		s.AllowMissing(at)
		if !m.readOnly {
			s.AttachMount(s.F(m.cover), kernel.R(at))
			s.Close(at)
			continue
		}
		tree := s.CloneMount(kernel.R(at), true)
		s.AttachMount(kernel.R(tree), kernel.R(at))
		if kernel.CanSetMount() {
			s.SetMount(kernel.R(tree), false, kernel.ReadOnly, 0)
		}
		s.Close(tree)
		s.Close(at)
	}
}

// protectByPath does before Linux 5.12 what mountLater could not, when the container's root is the
// only one: nobody else is in it yet, and its /proc was made by us.
func (b *builder) protectByPath(s *kernel.Script) {
	if kernel.CanSetMount() {
		return
	}
	for _, m := range b.masks {
		if m.readOnly {
			s.For("protect /proc/" + m.path)
			s.RemountReadOnly("/proc/" + m.path)
		}
	}
}

// stdioOf gives a program its first files and, with a terminal, its session.
func stdioOf(s *kernel.Script, files [3]*os.File, terminal *os.File, preserve int) {
	s.For("give the process its first files")
	arg := func(i int) kernel.Arg {
		if terminal != nil {
			return s.F(terminal)
		}
		return s.F(files[i])
	}
	s.Session(arg(0), terminal != nil)
	for i := range files {
		s.Dup(arg(i), i)
	}
	s.CloseOnExec(3 + preserve)
}

// dropAndExec is the last part: limits, rights, identity, then the program. gate, when not nil, is waited for in between.
func dropAndExec(s *kernel.Script, p *specs.Process, u user, r rights, gate *os.File, proc *os.File, run execution) {
	does := kernel.Rights{Script: s}
	if r.oomScore != "" {
		s.For("set oom_score_adj to " + r.oomScore)
		f := s.Open(s.F(proc), "self/oom_score_adj", os.O_WRONLY, 0)
		s.AllowDenied(s.Write(kernel.R(f), r.oomScore))
		s.Close(f)
	}
	if run.file != nil {
		s.For("have the start wait for the init")
		s.HoldStatus(run.status)
	}
	limit(s, r.limits)
	mask := uint32(0o022)
	if p.User.Umask != nil {
		mask = *p.User.Umask
	}
	does.Umask(mask)
	s.For("start a session keyring")
	does.SessionKeyring()
	if gate != nil {
		s.For("wait for the start")
		s.Announce()
		s.Await(gate)
	}
	if p.ApparmorProfile != "" {
		s.For("set AppArmor profile " + p.ApparmorProfile)
		f := s.Open(s.F(proc), "self/attr/exec", os.O_WRONLY, 0)
		s.Write(kernel.R(f), "exec "+p.ApparmorProfile)
		s.Close(f)
	}
	s.For("drop capabilities from the bounding set")
	if p.Capabilities != nil {
		does.Bound(r.bounding)
	}
	s.For("become user " + u.String())
	does.Identity(u.uid, u.gid, u.groups)
	if r.noNewPrivs {
		does.NoNewPrivs()
	}
	filter := func() {
		if len(r.filter.Instructions) > 0 {
			s.For("load the seccomp filter")
			does.Seccomp(r.filter.Instructions, uint(r.filter.Flags))
		}
	}
	if !r.noNewPrivs && len(r.filter.Instructions) > 0 {
		// Without no_new_privs the filter takes CAP_SYS_ADMIN, which the change of user took from the effective set.
		s.For("keep what loading the filter takes")
		does.Regain()
		filter()
	}
	s.For("set capabilities")
	if u.named && u.uid != 0 {
		r.effective, r.permitted = r.ambient, r.ambient
	}
	if p.Capabilities != nil {
		does.Capabilities(r.effective, r.permitted, r.inheritable, r.ambient)
	} else {
		does.KeepCaps(false)
	}
	if r.noNewPrivs {
		filter()
	}
	s.For("exec " + run.path)
	if run.file != nil {
		s.ExecFile(run.file, run.argv, run.env)
	} else {
		s.Exec(run.path, run.argv, run.env)
	}
}

func limit(s *kernel.Script, limits []kernel.Limit) {
	for _, l := range limits {
		s.For("set " + l.Name)
		kernel.Rights{Script: s}.Limit(l)
	}
}

// execution is what the first process becomes: the program, or our own init before it.
func (b *builder) execution() execution {
	args := b.spec.Process.Args
	if b.self == nil {
		return execution{path: b.program, argv: args, env: b.env}
	}
	return execution{path: reaperName, file: b.self, argv: append([]string{reaperName, b.program}, args...), env: b.env}
}

// execution is the program that a process becomes.
type execution struct {
	path string
	file *os.File // our own init, executed instead of path when not nil
	// status is the pipe by which the start waits for file, where the script does not run in a forked child.
	status *os.File
	argv   []string
	env    []string
}
