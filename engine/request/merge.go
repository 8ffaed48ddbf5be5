package request

import (
	"path"
	"slices"
	"strings"

	"berth/fault"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// Merge fills what the user left open from the image. Neither argument is changed.
func Merge(user *api.Config, img dockerspec.DockerOCIImageConfig) (*api.Config, error) {
	c := *user
	if c.User == "" {
		c.User = img.User
	}
	if c.WorkingDir == "" {
		c.WorkingDir = img.WorkingDir
	}
	if c.WorkingDir != "" {
		c.WorkingDir = path.Clean(c.WorkingDir)
	}
	if c.StopSignal == "" {
		c.StopSignal = img.StopSignal
	}
	if len(c.Shell) == 0 {
		c.Shell = img.Shell
	}
	c.Env = mergeEnv(user.Env, img.Env)
	c.Labels = mergeMap(user.Labels, img.Labels)
	c.Volumes = mergeMap(user.Volumes, img.Volumes)
	if len(c.Volumes) == 0 {
		c.Volumes = nil
	}
	if err := mergePorts(&c, img.ExposedPorts); err != nil {
		return nil, err
	}
	// An entry point of the user's own silences the image's command, as that was written for another program.
	if len(user.Entrypoint) == 0 {
		if len(user.Cmd) == 0 {
			c.Cmd = img.Cmd
		}
		if user.Entrypoint == nil {
			c.Entrypoint = img.Entrypoint
		}
	}
	if len(c.Entrypoint) == 1 && c.Entrypoint[0] == "" {
		c.Entrypoint = nil
	}
	mergeHealth(&c, img.Healthcheck)
	if len(c.Entrypoint) == 0 && len(c.Cmd) == 0 {
		return nil, fault.New(fault.Invalid, "no command specified")
	}
	return &c, nil
}

// mergeEnv appends the image's variables that the user did not set.
func mergeEnv(user, img []string) []string {
	env := slices.Clone(user)
	for _, e := range img {
		name, _, _ := strings.Cut(e, "=")
		if !slices.ContainsFunc(user, func(u string) bool { n, _, _ := strings.Cut(u, "="); return n == name }) {
			env = append(env, e)
		}
	}
	return env
}

// mergeMap is over laid on base, and never nil.
func mergeMap[V any](over, base map[string]V) map[string]V {
	merged := make(map[string]V, len(over)+len(base))
	for k, v := range base {
		merged[k] = v
	}
	for k, v := range over {
		merged[k] = v
	}
	return merged
}

func mergePorts(c *api.Config, exposed map[string]struct{}) error {
	ports := network.PortSet{}
	for p := range c.ExposedPorts {
		ports[p] = struct{}{}
	}
	for s := range exposed {
		r, err := network.ParsePortRange(s)
		if err != nil {
			return fault.New(fault.Invalid, "the image exposes %q: %w", s, err)
		}
		for p := range r.All() {
			ports[p] = struct{}{}
		}
	}
	if len(ports) > 0 {
		c.ExposedPorts = ports
	}
	return nil
}

func mergeHealth(c *api.Config, img *dockerspec.HealthcheckConfig) {
	if img == nil {
		return
	}
	if c.Healthcheck == nil {
		c.Healthcheck = img
		return
	}
	h := *c.Healthcheck
	if len(h.Test) == 0 {
		h.Test = img.Test
	}
	if h.Interval == 0 {
		h.Interval = img.Interval
	}
	if h.Timeout == 0 {
		h.Timeout = img.Timeout
	}
	if h.StartPeriod == 0 {
		h.StartPeriod = img.StartPeriod
	}
	if h.StartInterval == 0 {
		h.StartInterval = img.StartInterval
	}
	if h.Retries == 0 {
		h.Retries = img.Retries
	}
	c.Healthcheck = &h
}
