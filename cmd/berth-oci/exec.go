package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/oci"
)

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(v string) error { *l = append(*l, v); return nil }

// executing are exec's own flags, which change the container's own process into the new one.
type executing struct {
	making
	process, cwd, user string
	env, caps, gids    list
	tty, noNewPrivs    bool
}

func (x *executing) declare(f *flag.FlagSet) {
	x.files(f)
	f.StringVar(&x.process, "process", "", "file with the process as JSON")
	f.StringVar(&x.process, "p", "", "file with the process as JSON")
	f.StringVar(&x.cwd, "cwd", "", "working directory")
	f.StringVar(&x.user, "user", "", "uid[:gid]")
	f.StringVar(&x.user, "u", "", "uid[:gid]")
	f.Var(&x.env, "env", "NAME=VALUE, may be repeated")
	f.Var(&x.env, "e", "NAME=VALUE, may be repeated")
	f.Var(&x.caps, "cap", "one more capability, may be repeated")
	f.Var(&x.caps, "c", "one more capability, may be repeated")
	f.Var(&x.gids, "additional-gids", "one more group, may be repeated")
	f.Var(&x.gids, "g", "one more group, may be repeated")
	f.BoolVar(&x.tty, "tty", false, "give it a terminal")
	f.BoolVar(&x.tty, "t", false, "give it a terminal")
	f.BoolVar(&x.detach, "detach", false, "don't wait for it")
	f.BoolVar(&x.detach, "d", false, "don't wait for it")
	f.BoolVar(&x.noNewPrivs, "no-new-privs", false, "it can't gain rights")
	f.Bool("ignore-paused", false, "accepted for other runtimes' sake")
	f.String("cgroup", "", "accepted for other runtimes' sake")
	f.String("apparmor", "", "accepted for other runtimes' sake")
	f.String("process-label", "", "accepted for other runtimes' sake")
}

func execCommand(f *flag.FlagSet) func(*oci.Runtime, []string) (int, error) {
	x := &executing{}
	x.declare(f)
	return func(r *oci.Runtime, args []string) (int, error) {
		if len(args) == 0 || len(args) == 1 && x.process == "" {
			return 1, errors.New("want a container id and a command, or --process")
		}
		c, err := r.Open(args[0])
		if err != nil {
			return 1, err
		}
		p, err := x.build(c, args[1:])
		if err != nil {
			return 1, err
		}
		if p.Terminal && x.detach && x.consoleSocket == "" {
			return 1, errors.New("a detached process with a terminal needs --console-socket")
		}
		proc, err := c.Exec(context.Background(), oci.ExecSpec{Process: p, UserFromSpec: true}, x.options(p.Terminal).Stdio)
		if err != nil {
			return codeOf(err), err
		}
		return x.stay(proc)
	}
}

// build makes the new process of the container's own and the flags.
func (x *executing) build(c *oci.Container, args []string) (specs.Process, error) {
	if x.process != "" {
		data, err := os.ReadFile(x.process)
		if err != nil {
			return specs.Process{}, err
		}
		return oci.ParseProcess(data)
	}
	p := *c.Bundle.Spec.Process
	p.Args, p.Terminal = args, x.tty
	p.Env = append(append([]string(nil), p.Env...), x.env...)
	p.NoNewPrivileges = p.NoNewPrivileges || x.noNewPrivs
	if x.cwd != "" {
		p.Cwd = x.cwd
	}
	if len(x.caps) > 0 {
		have := specs.LinuxCapabilities{}
		if p.Capabilities != nil {
			have = *p.Capabilities
		}
		for _, set := range []*[]string{&have.Bounding, &have.Effective, &have.Permitted} {
			*set = append(append([]string(nil), *set...), x.caps...)
		}
		p.Capabilities = &have
	}
	for _, g := range x.gids {
		n, err := strconv.ParseUint(g, 10, 32)
		if err != nil {
			return p, fmt.Errorf("group %q: want a number", g)
		}
		p.User.AdditionalGids = append(p.User.AdditionalGids, uint32(n))
	}
	return p, x.setUser(&p)
}

func (x *executing) setUser(p *specs.Process) error {
	if x.user == "" {
		return nil
	}
	uid, gid, hasGroup := strings.Cut(x.user, ":")
	n, err := strconv.ParseUint(uid, 10, 32)
	if err == nil {
		p.User.UID = uint32(n)
		if hasGroup {
			n, err = strconv.ParseUint(gid, 10, 32)
			p.User.GID = uint32(n)
		}
	}
	if err != nil {
		return fmt.Errorf("user %q: want uid[:gid] in numbers", x.user)
	}
	return nil
}
