// Package bundle says what a container is to the container format: it makes the OCI bundle of a record.
//
// It looks nothing up and makes nothing: it is data in, data out, by a list of small rules, one file
// for each concern. Invariant: the same facts give the same bundle, on every machine and without root.
package bundle

import (
	"maps"
	"path"
	"slices"

	"berth/container"
	"berth/oci"
	"berth/union"

	api "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Facts is all that the rules of a bundle are told: what was recorded, and what was
// looked up on this machine for it. Rules read nothing else, so they can be tested as data.
type Facts struct {
	Record       *container.Record
	Root         union.Root
	Files        string // directory with hosts, hostname, resolv.conf; "" for none
	Mounts       []Mount
	CgroupParent string
	Join         map[specs.LinuxNamespaceType]string // namespaces of another container, as paths
	HostDevices  []specs.LinuxDevice                 // all of the machine's, for a privileged container
	Devices      []Device                            // --device, found
	Shm          string                              // /dev/shm of the container whose IPC namespace is joined
	LinkEnv      []string                            // variables that describe linked containers
	BlockDevices map[string]specs.LinuxBlockIODevice // by path, for blkio rules
	Seccomp      Filters
	AppArmor     bool // the kernel has it, and it is on
	Defaults     Defaults
	Foreign      *oci.Foreign // another runtime that makes it; nil for ours
}

// Defaults are the daemon's settings for a container that says nothing else.
type Defaults struct {
	Init            bool
	NoNewPrivileges bool
	Seccomp         string // "": the built-in profile; "unconfined"; or a profile as JSON
	SeccompPath     string // where that profile came from, for people
}

func (f *Facts) config() *api.Config   { return f.Record.Config }
func (f *Facts) host() *api.HostConfig { return f.Record.HostConfig }

// rule adds one concern to a bundle. Each stands in a file of its concern.
type rule func(f *Facts, b *oci.Bundle) error

// rules are applied in this order; later ones may look at what earlier ones made.
func rules() []rule {
	return []rule{
		rootRule, namespaceRule, processRule, hostnameRule, capabilityRule, securityRule, seccompRule,
		mountRule, fileRule, deviceRule, limitRule, rlimitRule, sysctlRule,
	}
}

// New makes the bundle that the facts describe.
func New(f *Facts) (*oci.Bundle, error) {
	b := &oci.Bundle{ID: f.Record.ID, Foreign: f.Foreign, Spec: &specs.Spec{
		Version: specs.Version,
		Process: &specs.Process{},
		Linux:   &specs.Linux{Resources: &specs.LinuxResources{}},
	}}
	for _, r := range rules() {
		if err := r(f, b); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// rootRule says how the root is mounted, and where in the cgroup tree the container lies.
func rootRule(f *Facts, b *oci.Bundle) error {
	m := f.Root.Mount
	root := specs.Mount{Destination: "/", Type: m.Type, Source: m.Source, Options: slices.Clone(m.Options)}
	if f.Root.IDs.Empty() { // else the layers were copied for these ids
		root.UIDMappings, root.GIDMappings = f.Record.IDs.UIDs, f.Record.IDs.GIDs
	}
	b.Rootfs = []specs.Mount{root}
	b.Spec.Root = &specs.Root{Path: f.Root.Merged, Readonly: f.host().ReadonlyRootfs}
	b.Spec.Linux.CgroupsPath = CgroupsPath(f.CgroupParent, f.Record)
	b.Spec.Annotations = maps.Clone(f.host().Annotations)
	return nil
}

// CgroupsPath is where in the cgroup tree the container lies: below the parent that the user chose, else below the engine's.
// A parent without a leading slash is counted from the top, as the field does.
func CgroupsPath(parent string, r *container.Record) string {
	if p := r.HostConfig.CgroupParent; p != "" {
		parent = p
	}
	return path.Join("/", parent, r.ID)
}

// namespaceRule lists the namespaces to make or join. The network's comes as an open file
// with the request, except where a path or the host's is wanted.
func namespaceRule(f *Facts, b *oci.Bundle) error {
	h := f.host()
	add := func(kind specs.LinuxNamespaceType, host bool) {
		if !host {
			b.Spec.Linux.Namespaces = append(b.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: kind, Path: f.Join[kind]})
		}
	}
	add(specs.MountNamespace, false)
	add(specs.PIDNamespace, h.PidMode.IsHost())
	add(specs.IPCNamespace, h.IpcMode.IsHost())
	add(specs.UTSNamespace, h.UTSMode.IsHost())
	add(specs.NetworkNamespace, h.NetworkMode.IsHost())
	if ids := f.Record.IDs; !ids.IsZero() {
		add(specs.UserNamespace, false)
		b.Spec.Linux.UIDMappings, b.Spec.Linux.GIDMappings = ids.UIDs, ids.GIDs
	}
	add(specs.CgroupNamespace, h.CgroupnsMode.IsHost() || h.CgroupnsMode.IsEmpty() && h.Privileged)
	return nil
}

// hostnameRule names the container to itself, unless the name is another's.
func hostnameRule(f *Facts, b *oci.Bundle) error {
	if f.host().UTSMode.IsHost() || f.Join[specs.UTSNamespace] != "" {
		return nil
	}
	b.Spec.Hostname = f.config().Hostname
	b.Spec.Domainname = f.config().Domainname
	return nil
}
