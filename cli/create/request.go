package create

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"berth/client"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
)

// Request makes the API's request of all that the options and arguments say.
func (c *Options) Request(args []string) (client.CreateRequest, error) {
	var none client.CreateRequest
	c.config.Image, c.config.Cmd = args[0], args[1:]
	if len(args) == 1 {
		c.config.Cmd = nil
	}
	if c.flags.Changed("entrypoint") {
		// An empty entrypoint takes the image's away.
		c.config.Entrypoint = []string{c.entrypoint}
	}
	for _, step := range []func() error{c.texts, c.streams, c.modes, c.resources, c.mounts, c.portMaps, c.options, c.healthcheck} {
		if err := step(); err != nil {
			return none, err
		}
	}
	endpoints, err := c.endpoints()
	if err != nil {
		return none, err
	}
	return client.CreateRequest{
		CreateRequest: container.CreateRequest{Config: &c.config, HostConfig: &c.host, NetworkingConfig: &network.NetworkingConfig{EndpointsConfig: endpoints}},
		Berth:         c.settings,
	}, nil
}

func (c *Options) texts() (err error) {
	if c.config.Env, err = Environment(c.envFiles, c.variables(), c.getenv); err != nil {
		return err
	}
	c.config.Labels, err = labels(c.labelFiles, c.labels)
	return err
}

// variables are those of -e, and of Proxies where -e doesn't name them.
func (c *Options) variables() []string {
	all := slices.Clone(c.env)
	for _, p := range c.Proxies {
		name, _, _ := strings.Cut(p, "=")
		if !slices.ContainsFunc(c.env, func(v string) bool { given, _, _ := strings.Cut(v, "="); return given == name }) {
			all = append(all, p)
		}
	}
	return all
}

func (c *Options) streams() error {
	f := &c.config
	f.AttachStdin = slices.Contains(c.Attach, "stdin") || f.OpenStdin && len(c.Attach) == 0
	f.AttachStdout = slices.Contains(c.Attach, "stdout") || len(c.Attach) == 0
	f.AttachStderr = slices.Contains(c.Attach, "stderr") || len(c.Attach) == 0
	if f.OpenStdin && len(c.Attach) > 0 {
		f.AttachStdin = true
	}
	// The program sees the end of its input when the client that gave it goes away.
	f.StdinOnce = f.OpenStdin && f.AttachStdin
	return nil
}

func (c *Options) modes() (err error) {
	h := &c.host
	switch {
	case !h.PidMode.Valid():
		return errors.New("--pid: invalid PID mode")
	case !h.UTSMode.Valid():
		return errors.New("--uts: invalid UTS mode")
	case !h.UsernsMode.Valid() && h.UsernsMode != "auto" && !strings.HasPrefix(string(h.UsernsMode), "auto:"):
		return errors.New("--userns: invalid USER mode")
	case !h.CgroupnsMode.Valid():
		return errors.New("--cgroupns: invalid CGROUP mode")
	case !h.IpcMode.Valid():
		return errors.New("--ipc: invalid IPC mode")
	}
	if h.RestartPolicy, err = parseRestart(c.restart); err != nil {
		return err
	}
	if err := container.ValidateRestartPolicy(h.RestartPolicy); err != nil {
		return err
	}
	if h.AutoRemove && !h.RestartPolicy.IsNone() {
		return errors.New("conflicting options: cannot specify both --restart and --rm")
	}
	if c.flags.Changed("init") {
		h.Init = &c.init
	}
	if c.flags.Changed("stop-timeout") {
		c.config.StopTimeout = &c.stopTimeout
	}
	h.CapAdd, h.CapDrop = capabilities(h.CapAdd), capabilities(h.CapDrop)
	h.ContainerIDFile = c.CIDFile
	return nil
}

// capabilities gives names their full form, in order, each once.
func capabilities(names []string) []string {
	var all []string
	for _, n := range names {
		n = strings.ToUpper(strings.TrimSpace(n))
		if n != "ALL" && !strings.HasPrefix(n, "CAP_") {
			n = "CAP_" + n
		}
		all = append(all, n)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (c *Options) resources() error {
	r := &c.host.Resources
	if c.swappiness != -1 {
		if c.swappiness < 0 || c.swappiness > 100 {
			return fmt.Errorf("invalid value: %d. Valid memory swappiness range is 0-100", c.swappiness)
		}
		r.MemorySwappiness = &c.swappiness
	}
	if c.flags.Changed("oom-kill-disable") {
		r.OomKillDisable = &c.oomKillDisable
	}
	if c.flags.Changed("pids-limit") {
		r.PidsLimit = &c.pids
	}
	var cdi []string
	for _, v := range c.devices {
		if isCDI(v) {
			cdi = append(cdi, v)
			continue
		}
		d, err := parseDevice(v)
		if err != nil {
			return err
		}
		r.Devices = append(r.Devices, d)
	}
	if len(cdi) > 0 {
		r.DeviceRequests = append(r.DeviceRequests, container.DeviceRequest{Driver: "cdi", DeviceIDs: cdi})
	}
	return nil
}

func (c *Options) mounts() error {
	for _, v := range c.volumes {
		bind, anonymous, err := parseVolume(v)
		if err != nil {
			return err
		}
		if anonymous != "" {
			if c.config.Volumes == nil {
				c.config.Volumes = map[string]struct{}{}
			}
			c.config.Volumes[anonymous] = struct{}{}
			continue
		}
		c.host.Binds = append(c.host.Binds, bind)
	}
	for _, v := range c.tmpfs {
		path, options, _ := strings.Cut(v, ":")
		if c.host.Tmpfs == nil {
			c.host.Tmpfs = map[string]string{}
		}
		c.host.Tmpfs[path] = options
	}
	if c.apiSocket {
		socket, ok := c.getenv("DOCKER_HOST")
		socket, unix := strings.CutPrefix(socket, "unix://")
		if !ok {
			socket, unix = "/run/berth/berth.sock", true
		}
		if !unix {
			return errors.New("--use-api-socket: the engine isn't reached by a unix socket, so there is none to mount")
		}
		c.host.Mounts = append(c.host.Mounts, mount.Mount{Type: mount.TypeBind, Source: socket, Target: "/var/run/docker.sock"})
	}
	return nil
}

func (c *Options) portMaps() (err error) {
	c.config.ExposedPorts, c.host.PortBindings, err = ports(c.publish, c.expose)
	return err
}

func (c *Options) options() (err error) {
	c.host.LogConfig.Config = toMap(c.logOpts)
	if c.host.LogConfig.Type == "none" && len(c.logOpts) > 0 {
		return errors.New("invalid logging opts for driver none")
	}
	for _, v := range c.storage {
		key, value, ok := strings.Cut(v, "=")
		if !ok {
			return fmt.Errorf("invalid storage option: %q; use key=value", v)
		}
		if c.host.StorageOpt == nil {
			c.host.StorageOpt = map[string]string{}
		}
		c.host.StorageOpt[key] = value
	}
	return c.securityOptions()
}

// securityOptions reads --security-opt. A seccomp profile travels as its text.
func (c *Options) securityOptions() error {
	for _, v := range c.security {
		key, value, ok := strings.Cut(v, "=")
		if !ok && v != "no-new-privileges" {
			if key, value, ok = strings.Cut(v, ":"); !ok {
				return fmt.Errorf("invalid --security-opt: %q", v)
			}
		}
		switch {
		case key == "systempaths" && value == "unconfined":
			c.host.MaskedPaths, c.host.ReadonlyPaths = []string{}, []string{}
			continue
		case key == "seccomp" && value != "unconfined" && value != "builtin":
			text := []byte(value)
			if !strings.HasPrefix(value, "{") { // the text itself is what inspect --as prints
				var err error
				if text, err = os.ReadFile(value); err != nil {
					return fmt.Errorf("opening seccomp profile (%s) failed: %w", value, err)
				}
			}
			var b bytes.Buffer
			if err := json.Compact(&b, text); err != nil {
				return fmt.Errorf("compacting json for seccomp profile (%s) failed: %w", value, err)
			}
			v = "seccomp=" + b.String()
		}
		c.host.SecurityOpt = append(c.host.SecurityOpt, v)
	}
	return nil
}

func (c *Options) healthcheck() error {
	h := c.health
	given := h.cmd != "" || h.interval != 0 || h.timeout != 0 || h.startPeriod != 0 || h.startInterval != 0 || h.retries != 0
	if h.none {
		if given {
			return errors.New("--no-healthcheck conflicts with --health-* options")
		}
		c.config.Healthcheck = &container.HealthConfig{Test: []string{"NONE"}}
		return nil
	}
	if !given {
		return nil
	}
	for _, o := range []struct {
		name     string
		negative bool
	}{
		{"interval", h.interval < 0}, {"timeout", h.timeout < 0}, {"retries", h.retries < 0},
		{"start-period", h.startPeriod < 0}, {"start-interval", h.startInterval < 0},
	} {
		if o.negative {
			return fmt.Errorf("--health-%s cannot be negative", o.name)
		}
	}
	c.config.Healthcheck = &container.HealthConfig{Interval: h.interval, Timeout: h.timeout,
		StartPeriod: h.startPeriod, StartInterval: h.startInterval, Retries: h.retries}
	if h.cmd != "" {
		c.config.Healthcheck.Test = []string{"CMD-SHELL", h.cmd}
	}
	return nil
}

// endpoints makes the networks' part of the request and sets the network mode.
func (c *Options) endpoints() (map[string]*network.EndpointSettings, error) {
	all := c.networks
	if len(all) == 0 {
		all = []networkRequest{{name: "default"}}
	}
	if err := all[0].merge(c.net); err != nil {
		return nil, err
	}
	c.host.Links = c.net.links
	c.host.NetworkMode = container.NetworkMode(all[0].name)
	endpoints := map[string]*network.EndpointSettings{}
	for i := range all {
		n := &all[i]
		if _, twice := endpoints[n.name]; twice {
			return nil, fmt.Errorf("network %q is specified multiple times", n.name)
		}
		if mode := container.NetworkMode(n.name); len(all) > 1 && !mode.IsUserDefined() {
			return nil, fmt.Errorf("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
		}
		endpoints[n.name] = &n.endpoint
	}
	return endpoints, nil
}
