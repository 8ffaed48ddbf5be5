package oci

import (
	"errors"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/fault"
	"berth/kernel/namespace"
)

// namespaces is what the first process gets of its own and what it shares.
type namespaces struct {
	fresh  int // a set of namespace kinds
	joined []joined
}

type joined struct {
	kind int
	file *os.File
}

func (n namespaces) has(kind int) bool {
	if n.fresh&kind != 0 {
		return true
	}
	for _, j := range n.joined {
		if j.kind&kind != 0 {
			return true
		}
	}
	return false
}

// find gives the namespace of that kind that is joined, nil when there is none.
func (n namespaces) find(kind int) *os.File {
	for _, j := range n.joined {
		if j.kind == kind {
			return j.file
		}
	}
	return nil
}

// joinOwner makes the container join the user namespace that owns its network, when that one was made for it: a
// namespace's owner is who made it, for good, and only root of the owner may change the network.
func (n *namespaces) joinOwner(netns *os.File) error {
	if netns == nil || n.fresh&namespace.User == 0 {
		return nil
	}
	ours, err := os.Open("/proc/thread-self/ns/user")
	if err != nil {
		return err
	}
	defer ours.Close()
	owner, err := namespace.Owner(netns)
	if err != nil {
		return fault.New(fault.Invalid, "join network namespace: %w", err)
	}
	if same, err := namespace.Same(ours, owner); err != nil || same {
		return errors.Join(err, owner.Close())
	}
	n.fresh &^= namespace.User
	n.joined = append(n.joined, joined{namespace.User, owner})
	return nil
}

func (n namespaces) close() {
	for _, j := range n.joined {
		j.file.Close()
	}
}

var kinds = map[specs.LinuxNamespaceType]int{
	specs.PIDNamespace:     namespace.PID,
	specs.NetworkNamespace: namespace.Net,
	specs.MountNamespace:   namespace.Mount,
	specs.IPCNamespace:     namespace.IPC,
	specs.UTSNamespace:     namespace.UTS,
	specs.UserNamespace:    namespace.User,
	specs.CgroupNamespace:  namespace.Cgroup,
	specs.TimeNamespace:    namespace.Time,
}

// planNamespaces opens what is joined. netns stands in for the network namespace of the list.
func planNamespaces(list []specs.LinuxNamespace, netns *os.File) (n namespaces, err error) {
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	seen := 0
	n.fresh = namespace.Mount
	for _, l := range list {
		kind, known := kinds[l.Type]
		if !known {
			return n, fault.New(fault.Invalid, "namespace %q: this kind is not known", l.Type)
		}
		if seen&kind != 0 {
			return n, fault.New(fault.Invalid, "namespace %q is listed twice", l.Type)
		}
		seen |= kind
		if l.Path == "" || kind == namespace.Mount {
			if l.Path != "" {
				return n, fault.New(fault.Unsupported, "join mount namespace %s: a container mounts its root in a namespace of its own", l.Path)
			}
			if kind != namespace.Net || netns == nil {
				n.fresh |= kind
			}
			continue
		}
		if kind == namespace.Net && netns != nil {
			continue
		}
		f, err := os.Open(l.Path)
		if err != nil {
			return n, fault.New(fault.NotFound, "join %s namespace: %w", l.Type, err)
		}
		n.joined = append(n.joined, joined{kind, f})
		if err := namespace.Is(f, kind); err != nil {
			return n, fault.New(fault.Invalid, "join %s namespace: %w", l.Type, err)
		}
	}
	if netns != nil {
		f, err := namespace.Dup(netns)
		if err != nil {
			return n, err
		}
		n.joined = append(n.joined, joined{namespace.Net, f})
	}
	return n, n.joinOwner(netns)
}
