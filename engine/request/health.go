package request

import (
	"net"

	"berth/container"

	api "github.com/moby/moby/api/types/container"
)

func checkHealth(_ *api.HostConfig, c *api.Config, _ Machine) error {
	return container.CheckHealth(c.Healthcheck)
}

// CheckSettings refuses settings of our own that can't be kept to.
func CheckSettings(s container.Settings, c *api.Config) error {
	if _, err := net.ParseMAC(s.MAC); err != nil && s.MAC != "" {
		return invalid("invalid MAC address %q: write it as 02:42:ac:11:00:02", s.MAC)
	}
	switch s.HealthOnFailure {
	case "", "none":
		return nil
	case "kill", "restart", "stop":
	default:
		return invalid("health-on-failure %q: it must be none, kill, restart or stop", s.HealthOnFailure)
	}
	if _, ok := container.ProbesOf(c); !ok {
		return invalid("health-on-failure %s: the container has no health check; give --health-cmd, or take an image with HEALTHCHECK", s.HealthOnFailure)
	}
	return nil
}
