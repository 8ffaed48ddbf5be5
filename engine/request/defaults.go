package request

import (
	"cmp"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"berth/engine/bundle"

	"github.com/docker/go-units"
	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/system"
)

// Defaults are the daemon's settings for containers that say nothing else. The zero value is the product's own defaults.
type Defaults struct {
	bundle.Defaults
	Runtime           string // "": our own
	Runtimes          Runtimes
	CgroupnsMode      api.CgroupnsMode // "": private
	IpcMode           api.IpcMode      // "": private
	ShmSize           int64            // bytes; 0: 64 MiB
	Ulimits           map[string]*units.Ulimit
	LogDriver         string // "": json-file
	LogOpts           map[string]string
	StopTimeout       int // seconds; 0: 10
	CDISpecDirs       []string
	CPURealtimePeriod int64 // microseconds, for the cgroup above all containers; 0: the kernel's
	CPURealtime       int64 // microseconds of real time scheduling in each period
}

// DefaultStopTimeout is how many seconds a container gets between its stop signal and KILL.
const DefaultStopTimeout = 10

// StopSeconds is how many seconds a container without a setting of its own gets to stop.
func (d Defaults) StopSeconds() int {
	if d.StopTimeout == 0 {
		return DefaultStopTimeout
	}
	return d.StopTimeout
}

// DefaultRuntime is our own.
const DefaultRuntime = "berth"

// Runtime is an OCI runtime that is not ours: a program with its arguments before the verb.
type Runtime struct {
	Path string
	Args []string
}

// Runtimes are the programs that --runtime can name besides our own.
type Runtimes map[string]Runtime

// Find looks a runtime up. own: it is ours, under whatever name. The names that the field's engine gives its own
// runtime mean ours too, unless the daemon was told of a program by that name. fault.Invalid: there is none.
func (r Runtimes) Find(name string) (found Runtime, own bool, err error) {
	if found, ok := r[name]; ok {
		return found, false, nil
	}
	switch name {
	case "", DefaultRuntime, "runc", "io.containerd.runc.v2":
		return Runtime{}, true, nil
	}
	return Runtime{}, false, invalid("unknown or invalid runtime name: %s", name)
}

// Describe lists what Find finds, as /info does; ours is the program at path.
func (r Runtimes) Describe(path string) map[string]system.RuntimeWithStatus {
	all := map[string]system.RuntimeWithStatus{DefaultRuntime: {Runtime: system.Runtime{Path: path}}}
	for name, one := range r {
		all[name] = system.RuntimeWithStatus{Runtime: system.Runtime{Path: one.Path, Args: one.Args}}
	}
	return all
}

// SecurityOptions tells what containers are secured with, as the field prints it.
func (d Defaults) SecurityOptions() []string {
	all := []string{"name=seccomp,profile=" + cmp.Or(d.SeccompPath, d.Seccomp, "builtin"), "name=cgroupns"}
	if d.NoNewPrivileges {
		all = append(all, "name=no-new-privileges")
	}
	return all
}

// Check refuses settings of the daemon that no container could use.
func (d Defaults) Check() error {
	if d.Runtime != "" {
		if _, _, err := d.Runtimes.Find(d.Runtime); err != nil {
			return invalid("default runtime: %w", err)
		}
	}
	for name, r := range d.Runtimes {
		switch {
		case name == DefaultRuntime:
			return invalid("runtime name '%s' is reserved", name)
		case r.Path == "":
			return invalid("runtime %s: it has no path", name)
		case strings.Contains(r.Path, "/") && !filepath.IsAbs(r.Path):
			return invalid("runtime %s: the path %s is not absolute", name, r.Path)
		}
	}
	h := &api.HostConfig{}
	d.fill(h)
	switch {
	case h.IpcMode != api.IPCModePrivate && h.IpcMode != api.IPCModeShareable:
		return invalid("IPC mode %q: the default can be private or shareable", d.IpcMode)
	case !h.CgroupnsMode.Valid():
		return invalid("default cgroup namespace mode (%v) is invalid. Use \"host\" or \"private\"", d.CgroupnsMode)
	case h.ShmSize < 0:
		return invalid("SHM size can not be less than 0")
	case d.StopTimeout < -1:
		return invalid("the default stop timeout can't be %d seconds", d.StopTimeout)
	}
	if _, err := bundle.ParseSecurity([]string{"seccomp=" + d.Seccomp}); err != nil {
		return err
	}
	_, err := ParseLog(h.LogConfig)
	return err
}

// fill puts the defaults where h says nothing.
func (d Defaults) fill(h *api.HostConfig) {
	if h.Runtime == "" {
		h.Runtime = cmp.Or(d.Runtime, DefaultRuntime)
	}
	if h.IpcMode == "" {
		h.IpcMode = cmp.Or(d.IpcMode, api.IPCModePrivate)
	}
	if h.CgroupnsMode == "" {
		h.CgroupnsMode = cmp.Or(d.CgroupnsMode, api.CgroupnsModePrivate)
		if h.Privileged {
			h.CgroupnsMode = api.CgroupnsModeHost
		}
	}
	if h.ShmSize == 0 && !h.IpcMode.IsHost() {
		h.ShmSize = cmp.Or(d.ShmSize, bundle.DefaultShmSize)
	}
	// The daemon's options are its driver's: they go with that, whoever named it.
	driver := cmp.Or(d.LogDriver, "json-file")
	if h.LogConfig.Type == "" {
		h.LogConfig.Type = driver
	}
	if h.LogConfig.Type == driver {
		h.LogConfig.Config = mergeMap(h.LogConfig.Config, d.LogOpts)
	} else {
		h.LogConfig.Config = mergeMap(h.LogConfig.Config, nil)
	}
	for _, name := range slices.Sorted(maps.Keys(d.Ulimits)) {
		if !slices.ContainsFunc(h.Ulimits, func(u *api.Ulimit) bool { return u.Name == name }) {
			h.Ulimits = append(slices.Clone(h.Ulimits), d.Ulimits[name])
		}
	}
}
