package create

import (
	"maps"
	"slices"
	"strings"

	"berth/client"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
)

// Origin is what a container was made from, found again: the smallest request that makes it, and its name. It is
// printed by Run, Compose and Unit.
type Origin struct {
	Name    string
	Request client.CreateRequest
}

// Surroundings are what an engine fills in by itself. What equals them is left out of an Origin.
type Surroundings struct {
	Image     *dockerspec.DockerOCIImageConfig // nil when the image is gone: then all that it gave looks like the user's
	Host      string                           // the machine's name, which containers in its network have
	LogDriver string                           // used where none is named
	Runtime   string                           // the same
}

// defaultShm is the size of /dev/shm where none is asked for, in bytes.
const defaultShm = 64 << 20

// Recover finds out what made a container, from what inspect says of it. c is not changed, but shares
// parts with the result.
func Recover(c *client.Inspection, s Surroundings) Origin {
	o := Origin{Name: strings.TrimPrefix(c.Name, "/")}
	img := dockerspec.DockerOCIImageConfig{}
	if s.Image != nil {
		img = *s.Image
	}
	config, host := container.Config{}, container.HostConfig{}
	if c.Config != nil {
		config = *c.Config
	}
	if c.HostConfig != nil {
		host = *c.HostConfig
	}
	o.Request.Config, o.Request.HostConfig, o.Request.Berth = &config, &host, c.Berth
	o.Request.Berth.IDs = "" // drawn by the engine
	lessImage(&config, img)
	lessNames(&config, &host, c.ID, s)
	lessHost(&host, s)
	for p := range host.PortBindings {
		if config.ExposedPorts != nil {
			config.ExposedPorts = maps.Clone(config.ExposedPorts)
			delete(config.ExposedPorts, p) // -p exposes
		}
	}
	o.Request.NetworkingConfig = &network.NetworkingConfig{EndpointsConfig: endpointsOf(c, &host)}
	return o
}

// lessImage takes out what the image gives.
func lessImage(c *container.Config, img dockerspec.DockerOCIImageConfig) {
	if c.User == img.User {
		c.User = ""
	}
	if c.WorkingDir == img.WorkingDir {
		c.WorkingDir = ""
	}
	if c.StopSignal == img.StopSignal {
		c.StopSignal = ""
	}
	if slices.Equal(c.Shell, img.Shell) {
		c.Shell = nil
	}
	c.Env = slices.DeleteFunc(slices.Clone(c.Env), func(e string) bool { return slices.Contains(img.Env, e) })
	c.Labels = maps.Clone(c.Labels)
	maps.DeleteFunc(c.Labels, func(k, v string) bool { w, ok := img.Labels[k]; return ok && v == w })
	c.Volumes = maps.Clone(c.Volumes)
	maps.DeleteFunc(c.Volumes, func(path string, _ struct{}) bool { _, ok := img.Volumes[path]; return ok })
	c.ExposedPorts = maps.Clone(c.ExposedPorts)
	for text := range img.ExposedPorts {
		if r, err := network.ParsePortRange(text); err == nil {
			for p := range r.All() {
				delete(c.ExposedPorts, p)
			}
		}
	}
	lessCommand(c, img)
	if h := c.Healthcheck; h != nil && img.Healthcheck != nil {
		c.Healthcheck = lessHealth(*h, *img.Healthcheck)
	}
}

// lessCommand leaves of entry point and command what has to be said. An entry point that is said silences the image's
// command, so the two go together.
func lessCommand(c *container.Config, img dockerspec.DockerOCIImageConfig) {
	entry, cmd := slices.Equal(c.Entrypoint, img.Entrypoint), slices.Equal(c.Cmd, img.Cmd)
	switch {
	case entry && cmd:
		c.Entrypoint, c.Cmd = nil, nil
	case entry && len(c.Cmd) > 0:
		c.Entrypoint = nil
	case entry && len(c.Entrypoint) > 0: // said again, so that the image's command is not taken
	case len(c.Entrypoint) == 0 && len(img.Entrypoint) > 0:
		c.Entrypoint = []string{""} // taken away
	}
	if len(c.Entrypoint) > 1 { // an option has room for one word
		c.Cmd = slices.Concat(c.Entrypoint[1:], c.Cmd)
		c.Entrypoint = c.Entrypoint[:1:1]
	}
}

func lessHealth(h container.HealthConfig, img dockerspec.HealthcheckConfig) *container.HealthConfig {
	if slices.Equal(h.Test, img.Test) {
		h.Test = nil
	}
	if h.Interval == img.Interval {
		h.Interval = 0
	}
	if h.Timeout == img.Timeout {
		h.Timeout = 0
	}
	if h.StartPeriod == img.StartPeriod {
		h.StartPeriod = 0
	}
	if h.StartInterval == img.StartInterval {
		h.StartInterval = 0
	}
	if h.Retries == img.Retries {
		h.Retries = 0
	}
	if h.Test == nil && h.Interval == 0 && h.Timeout == 0 && h.StartPeriod == 0 && h.StartInterval == 0 && h.Retries == 0 {
		return nil
	}
	return &h
}

// lessNames takes out the host names that nobody chose.
func lessNames(c *container.Config, h *container.HostConfig, id string, s Surroundings) {
	machine := h.NetworkMode.IsHost() || h.UTSMode.IsHost()
	if h.NetworkMode.IsContainer() || len(id) >= 12 && c.Hostname == id[:12] || machine && (c.Hostname == s.Host || h.UTSMode.IsHost()) {
		c.Hostname = ""
	}
}

// lessHost takes out what the engine fills in.
func lessHost(h *container.HostConfig, s Surroundings) {
	h.ContainerIDFile, h.ConsoleSize = "", [2]uint{} // of the client that made it
	if h.NetworkMode == "default" || h.NetworkMode == "bridge" {
		h.NetworkMode = ""
	}
	if h.IpcMode == container.IPCModePrivate {
		h.IpcMode = ""
	}
	usual := container.CgroupnsModePrivate
	if h.Privileged {
		usual = container.CgroupnsModeHost
	}
	if h.CgroupnsMode == usual {
		h.CgroupnsMode = ""
	}
	if h.RestartPolicy.IsNone() {
		h.RestartPolicy = container.RestartPolicy{}
	}
	if h.LogConfig.Type == s.LogDriver || h.LogConfig.Type == "json-file" && s.LogDriver == "" {
		h.LogConfig.Type = ""
	}
	if h.ShmSize == defaultShm {
		h.ShmSize = 0
	}
	if h.Memory > 0 && h.MemorySwap == 2*h.Memory {
		h.MemorySwap = 0
	}
	if h.MemorySwappiness != nil && *h.MemorySwappiness == -1 {
		h.MemorySwappiness = nil
	}
	if h.PidsLimit != nil && *h.PidsLimit == 0 {
		h.PidsLimit = nil
	}
	if h.OomKillDisable != nil && !*h.OomKillDisable {
		h.OomKillDisable = nil
	}
	if h.Runtime == s.Runtime || s.Runtime == "" && (h.Runtime == "berth" || h.Runtime == "runc") {
		h.Runtime = ""
	}
	if h.Isolation == "default" {
		h.Isolation = ""
	}
	// Lists that are there and empty were asked for: systempaths=unconfined.
	if len(h.MaskedPaths) > 0 || h.Privileged {
		h.MaskedPaths = nil
	}
	if len(h.ReadonlyPaths) > 0 || h.Privileged {
		h.ReadonlyPaths = nil
	}
	h.Mounts = slices.Clone(h.Mounts)
	for i := range h.Mounts {
		if m := &h.Mounts[i]; m.Type == "" {
			m.Type = mount.TypeVolume
		}
	}
	h.Links = slices.Clone(h.Links)
	for i, l := range h.Links {
		h.Links[i] = plainLink(l)
	}
}

// plainLink turns "/db:/web/alias", as inspect has it, into "db:alias".
func plainLink(l string) string {
	target, alias, ok := strings.Cut(l, ":")
	if !ok {
		return l
	}
	return strings.TrimPrefix(target, "/") + ":" + alias[strings.LastIndexByte(alias, '/')+1:]
}

// endpointsOf gives what was asked of the networks: what inspect shows besides was decided by the engine.
func endpointsOf(c *client.Inspection, h *container.HostConfig) map[string]*network.EndpointSettings {
	all := map[string]*network.EndpointSettings{}
	if c.NetworkSettings != nil && !h.NetworkMode.IsContainer() {
		for name, e := range c.NetworkSettings.Networks {
			if e == nil {
				continue
			}
			asked := &network.EndpointSettings{DriverOpts: e.DriverOpts, GwPriority: e.GwPriority}
			if a := e.IPAMConfig; a != nil && (a.IPv4Address.IsValid() || a.IPv6Address.IsValid() || len(a.LinkLocalIPs) > 0) {
				asked.IPAMConfig = a
			}
			for _, alias := range e.Aliases { // releases before 25 add the short ID
				if len(c.ID) < 12 || alias != c.ID[:12] {
					asked.Aliases = append(asked.Aliases, alias)
				}
			}
			for _, l := range e.Links {
				asked.Links = append(asked.Links, plainLink(l))
			}
			all[name] = asked
		}
	}
	if c.Berth.MAC != "" {
		name := string(h.NetworkMode)
		if name == "" {
			name = "bridge"
		}
		if all[name] == nil {
			all[name] = &network.EndpointSettings{}
		}
		if all[name].MacAddress.UnmarshalText([]byte(c.Berth.MAC)) != nil {
			all[name].MacAddress = nil
		}
	}
	return all
}

// networksOf names the networks in the order in which they are asked for: the mode's first.
func (o *Origin) networksOf() []string {
	first := string(o.Request.HostConfig.NetworkMode)
	var names []string
	for _, name := range slices.Sorted(maps.Keys(o.Request.NetworkingConfig.EndpointsConfig)) {
		if name != first && container.NetworkMode(name).IsUserDefined() {
			names = append(names, name)
		}
	}
	if first != "" {
		names = slices.Insert(names, 0, first)
	}
	return names
}

// endpoint is what is asked of a network, never nil. The default network's stands under its real name.
func (o *Origin) endpoint(name string) *network.EndpointSettings {
	if name == "" {
		name = "bridge"
	}
	if e := o.Request.NetworkingConfig.EndpointsConfig[name]; e != nil {
		return e
	}
	return &network.EndpointSettings{}
}
