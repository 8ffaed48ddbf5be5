package request

import (
	"berth/engine/userns"
	"berth/fault"

	api "github.com/moby/moby/api/types/container"
)

// checkUserns refuses what a container in a user namespace can't have, in the field's words.
func checkUserns(h *api.HostConfig, m Machine) error {
	mode, err := userns.Parse(string(h.UsernsMode))
	if err != nil {
		return err
	}
	if mode.Host || !mode.Auto && !m.Remap {
		return nil
	}
	_, own, err := m.Defaults.Runtimes.Find(h.Runtime)
	switch {
	case err != nil:
		return err
	case !own: // its network and layers are made for a user namespace that it could only join
		return fault.New(fault.Unsupported, "runtime %s: containers in user namespaces are made by runtime %s only: use that, or --userns host", h.Runtime, DefaultRuntime)
	case h.Privileged:
		return invalid("privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode")
	case h.NetworkMode.IsHost():
		return invalid("cannot share the host's network namespace when user namespaces are enabled")
	case h.PidMode.IsHost():
		return invalid("cannot share the host PID namespace when user namespaces are enabled")
	}
	return nil
}
