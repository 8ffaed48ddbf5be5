package foreign

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/fault"
	"berth/internal/record"
	"berth/kernel"
	"berth/kernel/cgroup"
	"berth/oci"
)

const kill = 9 // SIGKILL

// patience is until when a runtime that has ended may make us wait for what it sent.
func patience() time.Time { return time.Now().Add(10 * time.Second) }

func programOf(p *specs.Process) string {
	if p == nil || len(p.Args) == 0 {
		return ""
	}
	return p.Args[0]
}

// Process is a process that a runtime made: the container's first one, or an exec's.
type Process struct {
	call
	first    bool
	program  string
	pid      int
	pidfd    *os.File
	terminal *os.File
	warnings []string

	ending sync.Mutex
	reaped bool
	gone   bool
}

// group is the container's cgroup; nil when the bundle names none.
func (p *Process) group() *cgroup.Group {
	if l := p.bundle.Spec.Linux; l != nil && l.CgroupsPath != "" {
		return cgroup.Load(l.CgroupsPath)
	}
	return nil
}

// create mounts the root, writes config.json and has the runtime create the container.
func (p *Process) create(stdio oci.Stdio, netns *os.File) error {
	b := p.bundle
	return b.Plain(b.Dir, func(spec *specs.Spec, warnings []string) error {
		p.warnings = warnings
		spec.Process.Terminal = stdio.Console
		if spec.Linux != nil && netns != nil {
			l := *spec.Linux
			l.Namespaces = withNetwork(l.Namespaces, fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), kernel.FD(netns)))
			spec.Linux = &l
		}
		if b.Init {
			if err := p.putInit(spec); err != nil {
				return err
			}
		}
		text, err := json.Marshal(spec)
		if err != nil {
			return err
		}
		if err := record.WriteFile(filepath.Join(b.Dir, "config.json"), text, 0o600, false); err != nil {
			return err
		}
		return p.make(stdio, "create", "init.pid", []string{"--bundle", b.Dir}, b.ID)
	})
}

// make executes a verb that makes a process, and takes hold of that.
func (p *Process) make(stdio oci.Stdio, verb, pidFile string, flags []string, last string) (err error) {
	p.k.making.RLock()
	defer p.k.bury()
	defer p.k.making.RUnlock()
	path := filepath.Join(p.bundle.Dir, pidFile)
	flags = append(flags, "--pid-file", path)
	defer os.Remove(path)
	c := p.call
	var con *console
	if stdio.Console {
		if con, err = newConsole(p.bundle.Dir, pidFile+".sock"); err != nil {
			return err
		}
		defer con.close()
		flags = append(flags, "--console-socket", con.path)
	} else {
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer null.Close()
		for k, f := range []*os.File{stdio.Stdin, stdio.Stdout, stdio.Stderr} {
			if c.stdio[k] = f; f == nil {
				c.stdio[k] = null
			}
		}
	}
	if _, err := c.run(verb, append(flags, last)...); err != nil {
		return err
	}
	if p.pid, err = number(path); err != nil {
		return err
	}
	p.k.expect(p.pid)
	if p.pidfd, err = kernel.OpenPid(p.pid); err != nil {
		return err
	}
	if con != nil {
		p.terminal, err = con.master()
	}
	return err
}

// withNetwork is list with the network namespace at path.
func withNetwork(list []specs.LinuxNamespace, path string) []specs.LinuxNamespace {
	out := make([]specs.LinuxNamespace, 0, len(list)+1)
	for _, n := range list {
		if n.Type != specs.NetworkNamespace {
			out = append(out, n)
		}
	}
	return append(out, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: path})
}

// initPath is where --init lies in a container of another runtime.
const initPath = "/sbin/berth-init"

// putInit puts our tiny init in front of the program. It is a copy: what is inside a container could
// be written to from there, were it a privileged one (CVE-2019-5736).
func (p *Process) putInit(spec *specs.Spec) error {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	path := filepath.Join(p.bundle.Dir, "init")
	if err := os.WriteFile(path, self, 0o755); err != nil {
		return err
	}
	spec.Mounts = append(spec.Mounts[:len(spec.Mounts):len(spec.Mounts)], specs.Mount{
		Destination: initPath, Type: "bind", Source: path, Options: []string{"bind", "ro", "nosuid", "nodev", "private"},
	})
	spec.Process.Args = append([]string{initPath, p.program}, spec.Process.Args...)
	return nil
}

// Exec starts one more process in the container of b whose first process is pid, and returns when the runtime says that it runs.
func (k *Keeper) Exec(ctx context.Context, pid int, b *oci.Bundle, e oci.ExecSpec, stdio oci.Stdio) (*Process, error) {
	if err := errors.Join(ctx.Err(), k.begin()); err != nil {
		return nil, err
	}
	process, warnings, err := b.PlainProcess(e, pid)
	if err != nil {
		return nil, err
	}
	process.Terminal = stdio.Console
	text, err := json.Marshal(process)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	k.number++
	name := "exec-" + strconv.Itoa(k.number)
	k.mu.Unlock()
	file := filepath.Join(b.Dir, name+".json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, err
	}
	defer os.Remove(file)
	p := &Process{call: call{k: k, bundle: b}, warnings: warnings, program: programOf(process)}
	if err := p.make(stdio, "exec", name+".pid", []string{"--process", file, "--detach"}, b.ID); err != nil {
		p.discard()
		return nil, startError(p.program, err)
	}
	return p, nil
}

// discard ends a process that nobody will wait for.
func (p *Process) discard() {
	if p.pidfd == nil {
		return
	}
	kernel.SignalPid(p.pidfd, kill)
	p.reap()
	kernel.CloseAll([]*os.File{p.pidfd, p.terminal})
}

func (p *Process) reap() (kernel.Ended, error) {
	e, err := kernel.Reap(p.pidfd)
	p.reaped = true
	p.k.forget(p.pid)
	return e, err
}

// Start has the runtime execute the program.
func (p *Process) Start() error {
	if !p.first {
		return nil
	}
	_, err := p.run("start", p.bundle.ID)
	return startError(p.program, err)
}

// Pid is the process's number as the caller sees it.
func (p *Process) Pid() int { return p.pid }

// Console is the master of the terminal when one was asked for, else nil. The caller closes it.
func (p *Process) Console() *os.File { return p.terminal }

// Warnings tells what was cut down to what this machine allows.
func (p *Process) Warnings() []string { return p.warnings }

// Wait reaps the process and tells how it ended. It is called once.
func (p *Process) Wait() (oci.Exit, error) {
	e, err := p.reap()
	if err != nil {
		return oci.Exit{}, err
	}
	exit := oci.Exit{Code: e.Code, Signal: e.Signal, At: time.Now()}
	if !p.first {
		p.pidfd.Close()
	} else if g := p.group(); g != nil {
		if n, err := g.OOMKills(); err == nil {
			exit.OOMKilled = n > 0
		}
	}
	return exit, nil
}

// Signal sends signal n; fault.NotFound when the process has ended. To the first process the runtime sends it, as that
// knows where it is; what a runtime is unable to kill is killed without it.
func (p *Process) Signal(n int) error {
	var told error
	if p.first {
		if _, told = p.run("kill", p.bundle.ID, strconv.Itoa(n)); told == nil {
			return nil
		}
	}
	err := kernel.SignalPid(p.pidfd, n)
	if kernel.IsGone(err) || errors.Is(err, os.ErrClosed) {
		return fault.New(fault.NotFound, "process %d has ended", p.pid)
	}
	if p.first && n != kill {
		return told
	}
	return err
}

// Pids lists the processes of the container, as the caller sees them.
func (p *Process) Pids() ([]int, error) {
	if g := p.group(); g != nil {
		if pids, err := g.Procs(); err == nil && len(pids) > 0 {
			return pids, nil
		}
	}
	return []int{p.pid}, nil
}

// Pause freezes the container.
func (p *Process) Pause() error {
	_, err := p.run("pause", p.bundle.ID)
	return err
}

// Resume undoes Pause.
func (p *Process) Resume() error {
	_, err := p.run("resume", p.bundle.ID)
	return err
}

// KillRest ends what the first process left behind.
func (p *Process) KillRest() error {
	if g := p.group(); p.first && g != nil {
		return g.Kill()
	}
	return nil
}

// Delete has the runtime forget the container, after Wait or instead of Start, and removes what it left. It is idempotent.
func (p *Process) Delete() error {
	p.ending.Lock()
	defer p.ending.Unlock()
	if !p.first || p.gone {
		return nil
	}
	p.gone = true
	var errs []error
	if _, err := os.Stat(filepath.Join(p.bundle.Dir, "state", p.bundle.ID)); err == nil || p.pid != 0 {
		_, err := p.run("delete", "--force", p.bundle.ID)
		errs = append(errs, err)
	}
	if p.pidfd != nil {
		if !p.reaped {
			kernel.SignalPid(p.pidfd, kill)
			p.reap()
		}
		p.pidfd.Close()
	}
	if g := p.group(); g != nil {
		errs = append(errs, g.Kill(), g.Delete())
	}
	return errors.Join(errs...)
}

// Hold tells what a supervisor watches. It can't be passed on.
func (p *Process) Hold() oci.Hold { return oci.Hold{Pid: p.pid, PidFD: p.pidfd} }
