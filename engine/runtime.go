package engine

import (
	"cmp"
	"os/exec"

	"berth/engine/request"
	"berth/oci"

	"github.com/moby/moby/api/types/system"
)

// foreign finds the program of the runtime that a container names; nil for ours.
func (c *starter) foreign(name string) (*oci.Foreign, error) {
	r, own, err := c.defaults.Runtimes.Find(name)
	if own || err != nil {
		return nil, err
	}
	path, err := exec.LookPath(r.Path)
	if err != nil {
		return nil, invalid("OCI runtime %s: %w: install it, or tell the daemon where it is (--add-runtime %s=PATH)", name, err, name)
	}
	return &oci.Foreign{Name: name, Path: path, Args: r.Args}, nil
}

// runtimes lists what --runtime can name.
func (s *System) runtimes() map[string]system.RuntimeWithStatus {
	all := map[string]system.RuntimeWithStatus{}
	for _, name := range s.config.Defaults.Runtimes.Names() {
		r := s.config.Defaults.Runtimes[name]
		all[name] = system.RuntimeWithStatus{Runtime: system.Runtime{Path: r.Path, Args: r.Args}}
	}
	all[request.DefaultRuntime] = system.RuntimeWithStatus{Runtime: system.Runtime{Path: s.config.OCIPath}}
	return all
}

// securityOptions tells what containers are secured with, as the field prints it.
func (s *System) securityOptions() []string {
	d := s.config.Defaults
	profile := cmp.Or(d.SeccompPath, d.Seccomp, "builtin")
	all := []string{"name=seccomp,profile=" + profile, "name=cgroupns"}
	if d.NoNewPrivileges {
		all = append(all, "name=no-new-privileges")
	}
	return all
}
