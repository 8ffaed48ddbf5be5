// Package explain shows a container as the kernel sees it.
//
// It reads /proc and /sys, asks package network for what only sockets tell, and changes nothing. It takes
// nobody's word where the kernel has one: the record of the engine is used for what is at rest. Invariant: each section
// says where a user finds the same by hand.
package explain

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"berth/fault"

	api "github.com/moby/moby/api/types/container"
)

// Report is what GET /containers/{id}/explain answers.
type Report struct {
	ID         string
	Name       string
	Status     string
	Note       string      `json:",omitempty"` // what can't be told, and why
	Process    *Process    `json:",omitempty"` // nil when the container does not run
	Namespaces []Namespace `json:",omitempty"`
	Groups     []Group     `json:",omitempty"` // of the process, one for each hierarchy
	Layers     []Layer     // the root's directories, the topmost first
	Mounts     []Mount     // of the process; of a container that does not run: its volumes
	Network    *Network    `json:",omitempty"`
	Files      []File
}

// Process is a container's first process.
type Process struct {
	Pid          int    // on the host
	Inside       int    // in the container's own namespace
	Supervisor   int    // its parent: the shim
	Command      string // as it was executed
	UID, GID     []int  // real, effective, saved, of files; on the host
	Groups       []int
	Capabilities Capabilities
	Seccomp      string // "off", "strict" or "filter"
	Filters      int    // how many there are
	NoNewPrivs   bool
	UIDMap       []IDRange // of the user namespace
	GIDMap       []IDRange
	Limits       []Limit
	OOMScoreAdj  int
	OOMScore     int
	Look         []string
}

// Capabilities are the sets of capabilities(7), by name.
type Capabilities struct{ Effective, Permitted, Inheritable, Bounding, Ambient []string }

// IDRange maps ids of a user namespace to those of the namespace that this program is in.
type IDRange struct{ Container, Host, Size uint32 }

// Limit is one of setrlimit(2), as /proc/PID/limits has it.
type Limit struct{ Name, Soft, Hard, Unit string }

// Namespace is one of the process's, beside this program's own of that kind.
type Namespace struct {
	Kind  string
	Inode uint64
	Host  uint64
	Own   bool   // it is another one than the host's
	File  string // the namespace itself, to be entered
}

// Group is a control group of the process.
type Group struct {
	Version     int      // of cgroups: 1 or 2
	Controllers []string // v1: of this hierarchy; v2: that the group has
	Dir         string   // "" when its hierarchy is not mounted here
	Files       []Value  // none of the hierarchy's root, where the container has no group of its own
}

// Value is a file with what it has in it.
type Value struct{ File, Value string }

// Layer is a directory of the root.
type Layer struct {
	Dir  string
	Role string // "written", "read-only", "work"
}

// Mount is a mount as the process sees it.
type Mount struct {
	Target      string
	Type        string
	Source      string // the device or name, as mount(8) shows it
	Host        string `json:",omitempty"` // the same file or directory on the host, where there is one
	Options     []string
	Propagation string `json:",omitempty"` // "" is private
}

// Network is the process's network namespace.
type Network struct {
	Shared   string `json:",omitempty"` // "host", or the container whose it is
	Links    []Link
	Routes   []Route
	Firewall []Rule
	Look     []string
}

// Link is a link with its addresses.
type Link struct {
	Name      string
	Kind      string
	MAC       string
	MTU       int
	Up        bool
	Addresses []string
	Peer      string `json:",omitempty"` // on the host
	Bridge    string `json:",omitempty"` // of the peer
}

// Route is one of the routing table.
type Route struct {
	To      string // "default" or a subnet
	Gateway string `json:",omitempty"`
	Link    string
	Metric  int `json:",omitempty"`
}

// Rule is an element of a map of our firewall table that leads to the container.
type Rule struct{ Table, Map, Element string }

// File is a file that the engine keeps for the container.
type File struct{ What, Path string }

// Container explains c, as inspect describes it.
func Container(c *api.InspectResponse) (*Report, error) {
	r := &Report{ID: c.ID, Name: strings.TrimPrefix(c.Name, "/"), Files: files(c)}
	if c.State != nil {
		r.Status = string(c.State.Status)
	}
	if c.State == nil || c.State.Pid == 0 {
		r.Note = "the container does not run: it has no process, namespaces, control groups or links. This is what it has at rest"
		r.Layers, r.Mounts = layersAtRest(c), mountsAtRest(c)
		return r, nil
	}
	err := r.running(process{"/proc", c.State.Pid}, c)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, os.ErrProcessDone) || isGone(err) {
		return nil, fault.New(fault.Conflict, "container %s ended while it was looked at: ask again", r.Name)
	}
	if err != nil {
		return nil, fmt.Errorf("explain container %s: %w", r.Name, err)
	}
	return r, nil
}

// isGone tells of a process that ended: reading its files fails with ESRCH.
func isGone(err error) bool { return err != nil && strings.Contains(err.Error(), "no such process") }

// running fills in what a process has.
func (r *Report) running(p process, c *api.InspectResponse) (err error) {
	before, err := p.started()
	if err != nil {
		return err
	}
	if r.Process, err = p.describe(); err != nil {
		return err
	}
	if r.Namespaces, err = p.namespaces(); err != nil {
		return err
	}
	if r.Groups, err = p.groups(); err != nil {
		return err
	}
	var root *Mount
	if r.Mounts, root, err = p.mounts(); err != nil {
		return err
	}
	if r.Layers = layersOf(root); r.Layers == nil {
		r.Layers = layersAtRest(c)
	}
	if r.Network, err = p.network(c, r.Namespaces); err != nil {
		return err
	}
	after, err := p.started()
	if err != nil || after != before { // the number went to another process meanwhile
		return errors.Join(err, os.ErrProcessDone)
	}
	return nil
}

func files(c *api.InspectResponse) []File {
	var all []File
	for _, f := range []File{{"log", c.LogPath}, {"hosts", c.HostsPath}, {"hostname", c.HostnamePath}, {"resolv.conf", c.ResolvConfPath}} {
		if f.Path != "" {
			all = append(all, f)
		}
	}
	if c.LogPath != "" {
		all = append(all, File{"record", filepath.Dir(c.LogPath)})
	}
	return all
}

// layersAtRest are the directories that the storage driver names.
func layersAtRest(c *api.InspectResponse) []Layer {
	if c.GraphDriver == nil {
		return nil
	}
	d := c.GraphDriver.Data
	all := []Layer{}
	if dir := d["UpperDir"]; dir != "" {
		all = append(all, Layer{dir, "written"})
	}
	for _, dir := range strings.Split(d["LowerDir"], ":") {
		if dir != "" {
			all = append(all, Layer{dir, "read-only"})
		}
	}
	if dir := d["WorkDir"]; dir != "" {
		all = append(all, Layer{dir, "work"})
	}
	return all
}

func mountsAtRest(c *api.InspectResponse) []Mount {
	all := []Mount{}
	for _, m := range c.Mounts {
		access := "ro"
		if m.RW {
			access = "rw"
		}
		all = append(all, Mount{Target: m.Destination, Type: string(m.Type), Source: m.Name, Host: m.Source, Options: []string{access}, Propagation: string(m.Propagation)})
	}
	return all
}
