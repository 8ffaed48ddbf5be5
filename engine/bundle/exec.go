package bundle

import (
	"slices"

	"berth/container"
	"berth/oci"

	api "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Exec is the process of an exec: as the container's first one, but for what the user says.
func Exec(r *container.Record, x api.ExecCreateRequest, linkEnv []string, d Defaults) (oci.ExecSpec, error) {
	caps, err := Capabilities(r.HostConfig.CapAdd, r.HostConfig.CapDrop, r.HostConfig.Privileged || x.Privileged)
	if err != nil {
		return oci.ExecSpec{}, err
	}
	security, err := ParseSecurity(r.HostConfig.SecurityOpt)
	if err != nil {
		return oci.ExecSpec{}, err
	}
	cwd, user := x.WorkingDir, x.User
	if cwd == "" {
		cwd = r.Config.WorkingDir
	}
	if cwd == "" {
		cwd = "/"
	}
	if user == "" {
		user = r.Config.User
	}
	env := Environment(append(slices.Clone(linkEnv), r.Config.Env...), r.Config.Hostname, x.Tty)
	p := specs.Process{
		Terminal: x.Tty, Args: x.Cmd, Cwd: cwd, Env: OverlayEnv(env, x.Env), NoNewPrivileges: security.NoNewPrivs(d),
		Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		Rlimits:      Rlimits(r.HostConfig),
	}
	if adj := r.HostConfig.OomScoreAdj; adj != 0 {
		p.OOMScoreAdj = &adj
	}
	return oci.ExecSpec{Process: p, User: user, GroupAdd: r.HostConfig.GroupAdd}, nil
}
