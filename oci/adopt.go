package oci

import (
	"os"

	"berth/kernel"
	"berth/kernel/cgroup"
)

// Hold is what a running container's Process holds: what a supervisor passes on that executes another
// program in its place, as the children stay its own (execve(2)). Pids stay valid until they are reaped.
type Hold struct {
	Pid   int
	Group string   // the cgroup's path, "" without one
	PidFD *os.File // of the first process
	Root  *os.File // may be nil
}

// Hold tells what p holds; the files stay p's. It is called after Start, before Wait.
func (p *Process) Hold() Hold {
	h := Hold{Pid: p.Pid(), PidFD: p.pidfd, Root: p.root}
	if p.group != nil {
		h.Group = p.group.Path()
	}
	return h
}

// Adopt makes a Process of what another program held, and takes the files over.
func Adopt(h Hold) *Process {
	p := &Process{child: &kernel.Child{Pid: h.Pid, PidFD: h.PidFD}, pidfd: h.PidFD, root: h.Root, owns: true}
	if h.Group != "" {
		p.group = cgroup.Load(h.Group)
	}
	return p
}
