package request

import (
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"berth/container"
	"berth/engine/bundle"
	"berth/fault"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	wire "github.com/moby/moby/api/types/network"
)

// Update says what changes of a container. What it leaves out, zero, stays as it is.
type Update struct {
	Resources     api.Resources
	RestartPolicy api.RestartPolicy
	Changes       Changes
}

// Changes are what our own update changes beyond the field's. They travel in the API under the key "Berth"; client.Changes
// is the same seen from the other side.
type Changes struct {
	EnvAdd        []string          `json:",omitempty"` // NAME=VALUE
	EnvRemove     []string          `json:",omitempty"` // names
	LabelAdd      map[string]string `json:",omitempty"`
	LabelRemove   []string          `json:",omitempty"`
	PublishAdd    wire.PortMap      `json:",omitempty"`
	PublishRemove []string          `json:",omitempty"` // the container's ports, such as "80" or "53/udp"
	MountAdd      []mount.Mount     `json:",omitempty"`
	MountRemove   []string          `json:",omitempty"` // the places in the container
	Health        *api.HealthConfig `json:",omitempty"` // fields without a value stay; Test ["NONE"] ends the checks
}

// Changed gives the record as u leaves it; old stays as it is. Volumes without a name get none here.
func Changed(old *container.Record, u Update, m Machine) (next *container.Record, warnings []string, err error) {
	if warnings, err = Limits(&u.Resources, m, true); err != nil {
		return nil, warnings, err
	}
	next = old.Clone()
	config, host := *old.Config, *old.HostConfig
	next.Config, next.HostConfig = &config, &host
	if host.Resources, err = UpdateLimits(&old.HostConfig.Resources, &u.Resources); err != nil {
		return nil, warnings, err
	}
	if u.RestartPolicy.Name != "" {
		host.RestartPolicy = u.RestartPolicy
	}
	c := &u.Changes
	config.Labels = changeLabels(config.Labels, c)
	if config.Env, err = changeEnv(config.Env, c); err != nil {
		return nil, warnings, err
	}
	config.Healthcheck = changeHealth(config.Healthcheck, c.Health)
	if err := changePorts(&config, &host, c); err != nil {
		return nil, warnings, err
	}
	if len(c.PublishAdd) > 0 && host.NetworkMode.IsHost() {
		warnings = append(warnings, "Published ports are discarded when using host network mode")
	}
	if err := changeMounts(next, c); err != nil {
		return nil, warnings, err
	}
	for _, check := range []func(*api.HostConfig, *api.Config, Machine) error{checkConfig, checkNetwork, checkHealth} {
		if err := check(&host, &config, m); err != nil {
			return nil, warnings, err
		}
	}
	return next, warnings, nil
}

func changeLabels(old map[string]string, c *Changes) map[string]string {
	if len(c.LabelAdd)+len(c.LabelRemove) == 0 {
		return old
	}
	labels := maps.Clone(old)
	for _, name := range c.LabelRemove {
		delete(labels, name)
	}
	return mergeMap(c.LabelAdd, labels)
}

func changeEnv(old []string, c *Changes) ([]string, error) {
	for _, name := range c.EnvRemove {
		if name == "" || strings.Contains(name, "=") {
			return nil, invalid("environment variable %q to be removed: name it without its value", name)
		}
	}
	for _, e := range c.EnvAdd {
		if !strings.Contains(e, "=") {
			return nil, invalid("environment variable %q: write NAME=VALUE", e)
		}
	}
	if len(c.EnvAdd)+len(c.EnvRemove) == 0 {
		return old, nil
	}
	kept := slices.DeleteFunc(slices.Clone(old), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return slices.Contains(c.EnvRemove, name)
	})
	return bundle.OverlayEnv(kept, c.EnvAdd), nil
}

func changeHealth(old, change *api.HealthConfig) *api.HealthConfig {
	if change == nil {
		return old
	}
	h := api.HealthConfig{}
	if old != nil {
		h = *old
	}
	if len(change.Test) > 0 {
		h.Test = change.Test
	}
	put(&h.Interval, change.Interval)
	put(&h.Timeout, change.Timeout)
	put(&h.StartPeriod, change.StartPeriod)
	put(&h.StartInterval, change.StartInterval)
	put(&h.Retries, change.Retries)
	return &h
}

// changePorts takes published ports away, and then adds some. What is published is exposed.
func changePorts(config *api.Config, host *api.HostConfig, c *Changes) error {
	if len(c.PublishAdd)+len(c.PublishRemove) == 0 {
		return nil
	}
	if host.NetworkMode.IsContainer() {
		return invalid("conflicting options: port publishing and the container type network mode")
	}
	bindings := wire.PortMap{}
	for p, b := range host.PortBindings {
		bindings[p] = slices.Clone(b)
	}
	exposed := maps.Clone(config.ExposedPorts)
	if exposed == nil {
		exposed = wire.PortSet{}
	}
	for _, spec := range c.PublishRemove {
		if err := unpublish(spec, bindings, exposed, host.PublishAllPorts); err != nil {
			return err
		}
	}
	for p, add := range c.PublishAdd {
		if len(add) == 0 {
			add = []wire.PortBinding{{}}
		}
		for _, b := range add {
			if b.HostPort != "" && slices.Contains(bindings[p], b) {
				return fault.New(fault.Conflict, "port %s is published on %s already", p, describeBinding(b))
			}
			bindings[p] = append(bindings[p], b)
		}
		exposed[p] = struct{}{}
	}
	host.PortBindings, config.ExposedPorts = bindings, exposed
	return nil
}

func describeBinding(b wire.PortBinding) string {
	if b.HostIP.IsValid() {
		return b.HostIP.String() + ":" + b.HostPort
	}
	return b.HostPort
}

// unpublish takes "80", "80/tcp" or "8080:80" out of the published ports.
func unpublish(spec string, bindings wire.PortMap, exposed wire.PortSet, all bool) error {
	hostPort, port, one := strings.Cut(spec, ":")
	if !one {
		hostPort, port = "", spec
	}
	p, err := wire.ParsePort(port)
	if err != nil || one && !isPort(hostPort) {
		return invalid("invalid published port %q: name the container's port, such as 80 or 53/udp, or both, such as 8080:80", spec)
	}
	kept := slices.DeleteFunc(slices.Clone(bindings[p]), func(b wire.PortBinding) bool { return !one || b.HostPort == hostPort })
	_, isExposed := exposed[p]
	switch {
	case len(kept) < len(bindings[p]) || len(bindings[p]) == 0 && bindings[p] != nil && !one:
	case all && isExposed && !one: // published as one of all that the image exposes
		delete(exposed, p)
		return nil
	default:
		return fault.New(fault.NotFound, "port %s is not published", spec)
	}
	if bindings[p] = kept; len(kept) == 0 {
		delete(bindings, p)
		if all {
			delete(exposed, p)
		}
	}
	return nil
}

func isPort(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil
}

// changeMounts takes mounts away, wherever the user asked for them, and then adds some.
func changeMounts(r *container.Record, c *Changes) error {
	if len(c.MountAdd)+len(c.MountRemove) == 0 {
		return nil
	}
	h := r.HostConfig
	h.Tmpfs, r.Config.Volumes = maps.Clone(h.Tmpfs), maps.Clone(r.Config.Volumes)
	for _, target := range c.MountRemove {
		if !path.IsAbs(target) {
			return invalid("mount %q to be removed: name its absolute path in the container", target)
		}
		if err := removeMount(r, path.Clean(target)); err != nil {
			return err
		}
	}
	mounts := slices.Clone(h.Mounts)
	for _, add := range c.MountAdd {
		m, err := readMount(add)
		if err != nil {
			return err
		}
		if m.Type == mount.TypeImage {
			return fault.New(fault.Unsupported, "an image can't be mounted into a container that exists: make a new one with --mount type=image")
		}
		_, isTmpfs := h.Tmpfs[m.Destination]
		if isTmpfs || slices.ContainsFunc(r.Mounts, func(o container.Mount) bool { return o.Destination == m.Destination }) {
			return fault.New(fault.Conflict, "Duplicate mount point: %s", m.Destination)
		}
		mounts = append(mounts, add)
		r.Mounts = append(r.Mounts, m)
	}
	h.Mounts = mounts
	slices.SortFunc(r.Mounts, func(a, b container.Mount) int { return strings.Compare(a.Destination, b.Destination) })
	return nil
}

func removeMount(r *container.Record, target string) error {
	h := r.HostConfig
	asked := len(h.Binds) + len(h.Mounts) + len(h.Tmpfs) + len(r.Config.Volumes)
	h.Binds = slices.DeleteFunc(slices.Clone(h.Binds), func(s string) bool {
		m, err := parseBind(s, h.VolumeDriver)
		return err == nil && m.Destination == target
	})
	h.Mounts = slices.DeleteFunc(slices.Clone(h.Mounts), func(m mount.Mount) bool { return path.Clean(m.Target) == target })
	maps.DeleteFunc(h.Tmpfs, func(dst, _ string) bool { return path.Clean(dst) == target })
	maps.DeleteFunc(r.Config.Volumes, func(dst string, _ struct{}) bool { return path.Clean(dst) == target })
	if len(h.Binds)+len(h.Mounts)+len(h.Tmpfs)+len(r.Config.Volumes) == asked {
		if slices.ContainsFunc(r.Mounts, func(m container.Mount) bool { return m.Destination == target }) {
			return fault.New(fault.Conflict, "mount %s comes with the volumes of another container (%s); it can't be removed alone", target, strings.Join(h.VolumesFrom, ", "))
		}
		return fault.New(fault.NotFound, "nothing is mounted at %s: see the Mounts that inspect shows", target)
	}
	r.Mounts = slices.DeleteFunc(r.Mounts, func(m container.Mount) bool { return m.Destination == target })
	return nil
}
