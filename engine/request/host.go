package request

import (
	"path"
	"slices"
	"strings"

	"berth/engine/bundle"
	"berth/fault"

	"github.com/docker/go-units"
	api "github.com/moby/moby/api/types/container"
)

// Complete fills in the defaults that inspect shows, and refuses what can't work. The warnings are for the user.
func Complete(given *api.HostConfig, c *api.Config, m Machine) (h *api.HostConfig, warnings []string, err error) {
	h = &api.HostConfig{}
	if given != nil {
		*h = *given
	}
	if h.NetworkMode == "" || h.NetworkMode.IsDefault() || h.NetworkMode.IsBridge() {
		h.NetworkMode = api.NetworkMode(m.Network)
	}
	m.Defaults.fill(h)
	warnings = isolation(h)
	if h.RestartPolicy.Name == "" {
		h.RestartPolicy.Name = api.RestartPolicyDisabled
	}
	if h.Memory > 0 && h.MemorySwap == 0 {
		h.MemorySwap = 2 * h.Memory
	}
	if h.PidsLimit != nil && *h.PidsLimit <= 0 {
		h.PidsLimit = nil
	}
	if h.MaskedPaths == nil && !h.Privileged {
		h.MaskedPaths = bundle.DefaultMaskedPaths()
	}
	if h.ReadonlyPaths == nil && !h.Privileged {
		h.ReadonlyPaths = bundle.DefaultReadonlyPaths()
	}
	limits, err := Limits(&h.Resources, m, false)
	warnings = append(warnings, limits...)
	if err != nil {
		return nil, nil, err
	}
	for _, check := range []func(*api.HostConfig, *api.Config, Machine) error{
		checkConfig, checkModes, checkNetwork, checkSizes, checkSecurity, checkLog, checkPolicy, checkHealth, checkMissing,
	} {
		if err := check(h, c, m); err != nil {
			return nil, nil, err
		}
	}
	if len(h.PortBindings) > 0 && h.NetworkMode.IsHost() {
		warnings = append(warnings, "Published ports are discarded when using host network mode")
	}
	return h, append(warnings, securityWarnings(h, m)...), nil
}

// securityWarnings tells what is taken and has no effect here.
func securityWarnings(h *api.HostConfig, m Machine) (warnings []string) {
	s, err := bundle.ParseSecurity(h.SecurityOpt)
	if err != nil {
		return nil // refused before
	}
	if s.AppArmor != "" && s.AppArmor != "unconfined" && !m.AppArmor {
		warnings = append(warnings, "AppArmor is not enabled on this machine: the profile "+s.AppArmor+" has no effect")
	}
	for _, l := range s.Labels {
		if l != "disable" {
			warnings = append(warnings, "SELinux is not used: the label option "+l+" has no effect")
		}
	}
	return warnings
}

func checkConfig(h *api.HostConfig, c *api.Config, _ Machine) error {
	if c.WorkingDir != "" && !path.IsAbs(c.WorkingDir) {
		return invalid("the working directory '%s' is invalid, it needs to be an absolute path", c.WorkingDir)
	}
	if _, ok := h.Annotations[""]; ok {
		return invalid("invalid Annotations: the empty string is not permitted as an annotation key")
	}
	for _, e := range c.Env {
		if name, _, _ := strings.Cut(e, "="); name == "" || strings.ContainsRune(e, 0) {
			return invalid("invalid environment variable: %s", e)
		}
	}
	for _, arg := range slices.Concat(c.Entrypoint, c.Cmd) {
		if strings.ContainsRune(arg, 0) { // execve(2) would end it there
			return invalid("invalid argument %q: it has a zero byte", arg)
		}
	}
	if c.StopSignal != "" {
		if _, err := Signal(c.StopSignal); err != nil {
			return err
		}
	}
	if len(c.Hostname) > 64 || strings.ContainsAny(c.Hostname, "\x00/ \n") {
		return invalid("invalid hostname: %q", c.Hostname)
	}
	for _, extra := range h.ExtraHosts {
		if _, err := ExtraHost(extra, nil); err != nil {
			return err
		}
	}
	return nil
}

func checkModes(h *api.HostConfig, c *api.Config, m Machine) error {
	if err := checkUserns(h, m); err != nil {
		return err
	}
	switch {
	case !h.IpcMode.Valid():
		return invalid("invalid IPC mode: %s", h.IpcMode)
	case !h.PidMode.Valid():
		return invalid("invalid PID mode: %s", h.PidMode)
	case !h.UTSMode.Valid():
		return invalid("invalid UTS mode: %s", h.UTSMode)
	case !h.CgroupnsMode.Valid():
		return invalid("invalid cgroup namespace mode: %s", h.CgroupnsMode)
	case !h.Isolation.IsValid():
		return invalid("invalid isolation '%s' on linux", h.Isolation)
	case h.Cgroup != "":
		return fault.New(fault.Unsupported, "joining another container's cgroup is not supported")
	}
	return nil
}

func checkNetwork(h *api.HostConfig, c *api.Config, _ Machine) error {
	if h.NetworkMode.IsContainer() {
		switch {
		case len(h.PortBindings) > 0 || h.PublishAllPorts:
			return invalid("conflicting options: port publishing and the container type network mode")
		case len(h.Links) > 0:
			return invalid("conflicting options: container type network can't be used with links. This would result in undefined behavior")
		case len(h.DNS) > 0:
			return invalid("conflicting options: dns and the network mode")
		case len(h.ExtraHosts) > 0:
			return invalid("conflicting options: custom host-to-IP mapping and the network mode")
		}
	}
	_, err := Ports(c, h)
	return err
}

// checkMissing refuses what would otherwise be taken and do nothing.
func checkMissing(h *api.HostConfig, _ *api.Config, _ Machine) error {
	_, err := Size(h)
	return err
}

// Size is how much a container may write to its root, in bytes; 0 is no bound of its own.
func Size(h *api.HostConfig) (size int64, err error) {
	for k, v := range h.StorageOpt {
		if strings.ToLower(k) != "size" {
			return 0, invalid("Unknown option %s: --storage-opt takes size=BYTES", k)
		}
		if size, err = units.RAMInBytes(v); err != nil || size <= 0 {
			return 0, invalid("--storage-opt size=%s: want a size such as 10G", v)
		}
	}
	return size, nil
}

// checkSizes checks what is limited outside of the cgroup.
func checkSizes(h *api.HostConfig, _ *api.Config, _ Machine) error {
	switch {
	case h.ShmSize < 0:
		return invalid("SHM size can not be less than 0")
	case h.OomScoreAdj < -1000 || h.OomScoreAdj > 1000:
		return invalid("Invalid value %d, range for oom score adj is [-1000, 1000].", h.OomScoreAdj)
	}
	return nil
}

func checkSecurity(h *api.HostConfig, _ *api.Config, m Machine) error {
	if _, err := bundle.Capabilities(h.CapAdd, h.CapDrop, h.Privileged); err != nil {
		return err
	}
	s, err := bundle.ParseSecurity(h.SecurityOpt)
	if err != nil {
		return err
	}
	if s.WritableCgroups && (h.Privileged || h.CgroupnsMode.IsHost()) {
		return invalid("option 'writable-cgroups' conflicts with privileged mode and with the host's cgroup namespace")
	}
	if err := bundle.CheckSeccomp(s.Seccomp); err != nil {
		return err
	}
	for _, r := range h.DeviceCgroupRules {
		if _, err := bundle.ParseDeviceRule(r); err != nil {
			return err
		}
	}
	for _, u := range h.Ulimits {
		if _, err := (&units.Ulimit{Name: u.Name, Hard: u.Hard, Soft: u.Soft}).GetRlimit(); err != nil {
			return fault.Wrap(fault.Invalid, err)
		}
		if u.Hard >= 0 && u.Soft > u.Hard {
			return invalid("ulimit soft limit must be less than or equal to hard limit: %d > %d", u.Soft, u.Hard)
		}
	}
	if _, _, err := m.Defaults.Runtimes.Find(h.Runtime); err != nil {
		return err
	}
	return nil
}

func checkPolicy(h *api.HostConfig, _ *api.Config, _ Machine) error {
	if err := api.ValidateRestartPolicy(h.RestartPolicy); err != nil {
		return fault.Wrap(fault.Invalid, err)
	}
	if h.AutoRemove && !h.RestartPolicy.IsNone() {
		return invalid("can't create 'AutoRemove' container with restart policy")
	}
	return nil
}
