package client

import (
	"context"
	"encoding/json"
)

// Explanation is a container as the kernel sees it.
type Explanation struct {
	ID, Name, Status string
	Note             string            // what can't be told, and why
	Process          *ExplainedProcess // nil when the container does not run
	Namespaces       []ExplainedNamespace
	Groups           []ExplainedGroup // control groups, one for each hierarchy
	Layers           []struct{ Dir, Role string }
	Mounts           []ExplainedMount
	Network          *ExplainedNetwork
	Files            []struct{ What, Path string } // that the engine keeps
}

// ExplainedProcess is a container's first process.
type ExplainedProcess struct {
	Pid, Inside  int // on the host, and in the container
	Supervisor   int
	Command      string
	UID, GID     []int // real, effective, saved, of files
	Groups       []int
	Capabilities struct{ Effective, Permitted, Inheritable, Bounding, Ambient []string }
	Seccomp      string
	Filters      int
	NoNewPrivs   bool
	UIDMap       []struct{ Container, Host, Size uint32 }
	GIDMap       []struct{ Container, Host, Size uint32 }
	Limits       []struct{ Name, Soft, Hard, Unit string }
	OOMScoreAdj  int
	OOMScore     int
	Look         []string // commands that tell the same
}

// ExplainedNamespace is a namespace beside the daemon's own of that kind.
type ExplainedNamespace struct {
	Kind  string
	Inode uint64
	Host  uint64
	Own   bool
	File  string
}

// ExplainedGroup is a control group, with its files.
type ExplainedGroup struct {
	Version     int
	Controllers []string
	Dir         string
	Files       []struct{ File, Value string }
}

// ExplainedMount is a mount as the process sees it.
type ExplainedMount struct {
	Target, Type, Source string
	Host                 string // the same on the host
	Options              []string
	Propagation          string
}

// ExplainedNetwork is a network namespace.
type ExplainedNetwork struct {
	Shared string // "host" or "container ID"
	Links  []struct {
		Name, Kind, MAC string
		MTU             int
		Up              bool
		Addresses       []string
		Peer, Bridge    string
	}
	Routes []struct {
		To, Gateway, Link string
		Metric            int
	}
	Firewall []struct{ Table, Map, Element string }
	Look     []string
}

// Explain gives a container as the kernel sees it, as the daemon's own JSON: an Explanation.
func (s Containers) Explain(ctx context.Context, id string) (json.RawMessage, error) {
	var out json.RawMessage
	err := s.c.Call(ctx, Request{Method: "GET", Path: path("containers", id, "explain")}, &out)
	return out, err
}
