package toolbox

import (
	"maps"

	"berth/container"
	"berth/engine/bundle"
	"berth/fault"

	api "github.com/moby/moby/api/types/container"
)

// Session is what runs with tools at its side.
type Session struct {
	api.ExecCreateRequest
	Script string // for the tools' shell, in the place of Cmd
}

// Command is the session's program and its arguments, with tools at the path at.
func (s *Session) Command(k Kit, at string) []string {
	if s.Script != "" {
		return append(k.Command(nil, at), "-c", s.Script)
	}
	return k.Command(s.Cmd, at)
}

// Like gives what a further container is made from that has the settings and volumes of r, and nothing that others would notice.
// fault.Unsupported: one with user ids of its own, in which the further one could not read.
func Like(r *container.Record) (*api.Config, *api.HostConfig, error) {
	if !r.IDs.IsZero() {
		return nil, nil, fault.New(fault.Unsupported, "container %s has user ids of its own (%s) and is not running: start it, and debug it then", r.Name, r.IDs)
	}
	config, host := *r.Config, *r.HostConfig
	config.Image = r.Image.String()
	config.ExposedPorts, config.Volumes = nil, nil
	host.PortBindings, host.PublishAllPorts, host.Links = nil, false, nil
	host.Binds, host.Mounts, host.VolumesFrom = nil, nil, []string{r.ID}
	host.Runtime = "" // our own: no other has room for tools
	if host.NetworkMode.IsContainer() || host.UTSMode.IsHost() || host.NetworkMode.IsHost() {
		config.Hostname = ""
	}
	return &config, &host, nil
}

// Furnish makes a container's settings those of one for the session, with the files of what is called of; it removes itself.
func Furnish(config *api.Config, host *api.HostConfig, of string, s *Session, k Kit) {
	command := s.Command(k, Fresh)
	config.Entrypoint, config.Cmd = command[:1], command[1:]
	config.User, config.Tty, config.OpenStdin, config.StdinOnce = s.User, s.Tty, s.AttachStdin, s.AttachStdin
	config.AttachStdin, config.AttachStdout, config.AttachStderr = s.AttachStdin, s.AttachStdout, s.AttachStderr
	config.Env = k.Environment(bundle.OverlayEnv(bundle.OverlayEnv([]string{"PATH=" + bundle.DefaultPath}, config.Env), s.Env), Fresh)
	if s.WorkingDir != "" {
		config.WorkingDir = s.WorkingDir
	}
	labels := map[string]string{"berth.debug": of}
	maps.Copy(labels, config.Labels)
	config.Labels = labels
	config.Healthcheck = &api.HealthConfig{Test: []string{"NONE"}}
	host.AutoRemove, host.RestartPolicy, host.LogConfig = true, api.RestartPolicy{}, api.LogConfig{Type: "none"}
	host.Init, host.ContainerIDFile = nil, ""
	host.Privileged = host.Privileged || s.Privileged
	if s.ConsoleSize != nil {
		host.ConsoleSize = *s.ConsoleSize
	}
}
