package create

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/mount"
)

// Compose prints a compose file with one service for each container. What compose has no word for follows
// as comments. Networks and named volumes are external: they are there, and belong to nobody's project.
func Compose(all []Origin) string {
	services, volumes, networks := &mapping{}, &mapping{}, &mapping{}
	external := &mapping{}
	external.set("external", true)
	var comments []string
	for i := range all {
		p := project{o: &all[i], s: &mapping{}, names: map[string]bool{}, volumes: map[string]bool{}, networks: map[string]bool{}}
		for k := range all {
			p.names[all[k].Name] = true
		}
		p.service()
		services.put(p.o.Name, p.s)
		for _, lost := range p.lost {
			comments = append(comments, fmt.Sprintf("# %s: compose can't say: %s\n", p.o.Name, oneLine(lost)))
		}
		for _, section := range []struct {
			to    *mapping
			names map[string]bool
		}{{volumes, p.volumes}, {networks, p.networks}} {
			for _, name := range slices.Sorted(maps.Keys(section.names)) {
				if !slices.Contains(section.to.keys, name) {
					section.to.put(name, external)
				}
			}
		}
	}
	file := &mapping{}
	file.set("services", services)
	file.set("networks", networks)
	file.set("volumes", volumes)
	var b strings.Builder
	file.write(&b, "")
	return b.String() + strings.Join(comments, "")
}

// project is one service in the making, with the top-level names that it refers to.
type project struct {
	o                 *Origin
	s                 *mapping
	names             map[string]bool // of all containers that are printed together: those are services
	volumes, networks map[string]bool
	lost              []string
}

func (p *project) losing(format string, args ...any) {
	p.lost = append(p.lost, fmt.Sprintf(format, args...))
}

func (p *project) service() {
	for _, part := range []func(){p.identity, p.environment, p.network, p.storage, p.isolation, p.memory, p.processors, p.disks, p.devices, p.health} {
		part()
	}
}

func (p *project) identity() {
	s, f, h := p.s, p.o.Request.Config, p.o.Request.HostConfig
	s.set("image", p.o.Request.Image)
	s.set("container_name", p.o.Name)
	if len(f.Entrypoint) == 1 && f.Entrypoint[0] == "" {
		s.put("entrypoint", []any{})
	} else {
		s.set("entrypoint", f.Entrypoint)
	}
	s.set("command", f.Cmd)
	s.set("hostname", f.Hostname)
	s.set("domainname", f.Domainname)
	s.set("user", f.User)
	s.set("working_dir", f.WorkingDir)
	s.set("stdin_open", f.OpenStdin)
	s.set("tty", f.Tty)
	if h.Init != nil {
		s.put("init", *h.Init)
	}
	s.set("restart", restartText(h.RestartPolicy))
	s.set("stop_signal", f.StopSignal)
	if t := f.StopTimeout; t != nil && *t >= 0 {
		s.set("stop_grace_period", strconv.Itoa(*t)+"s")
	}
	s.set("runtime", h.Runtime)
	if h.AutoRemove {
		p.losing("--rm; compose removes with 'down'")
	}
	depends := &mapping{}
	for _, d := range p.o.Request.Berth.DependsOn {
		name, condition, _ := strings.Cut(d, ":")
		if !p.names[name] {
			p.losing("that it depends on container %s, which is not in this file", name)
			continue
		}
		c := &mapping{}
		c.set("condition", "service_"+map[bool]string{true: "healthy", false: "started"}[condition == "healthy"])
		depends.put(name, c)
	}
	s.set("depends_on", depends)
}

func (p *project) environment() {
	s, f, h := p.s, p.o.Request.Config, p.o.Request.HostConfig
	env := &mapping{}
	for _, e := range f.Env {
		name, value, ok := strings.Cut(e, "=")
		if !ok {
			p.losing("that the variable %s is taken away", name)
			continue
		}
		env.put(name, value)
	}
	s.set("environment", env)
	s.set("labels", f.Labels)
	s.set("annotations", h.Annotations)
	logging := &mapping{}
	logging.set("driver", h.LogConfig.Type)
	logging.set("options", h.LogConfig.Config)
	s.set("logging", logging)
}

// reference turns container:NAME into compose's service:NAME where that is one of the file's.
func (p *project) reference(mode string) string {
	if name, ok := strings.CutPrefix(mode, "container:"); ok && p.names[name] {
		return "service:" + name
	}
	return mode
}

func (p *project) network() {
	s, f, h := p.s, p.o.Request.Config, p.o.Request.HostConfig
	names := p.o.networksOf()
	switch {
	case len(names) == 0:
		s.set("network_mode", "bridge") // else compose makes a network for the project
	case !h.NetworkMode.IsUserDefined():
		s.set("network_mode", p.reference(string(h.NetworkMode)))
	default:
		p.userNetworks(names)
	}
	if !h.NetworkMode.IsUserDefined() {
		s.set("mac_address", p.o.endpoint(string(h.NetworkMode)).MacAddress.String())
	}
	var ports []string
	for _, port := range sortedPorts(h.PortBindings) {
		for _, b := range h.PortBindings[port] {
			ports = append(ports, publishText(port, b))
		}
	}
	s.set("ports", ports)
	var expose []string
	for _, port := range sortedPorts(f.ExposedPorts) {
		expose = append(expose, portText(port))
	}
	s.set("expose", expose)
	if h.PublishAllPorts {
		p.losing("--publish-all")
	}
	s.set("external_links", h.Links)
	var dns []string
	for _, a := range h.DNS {
		dns = append(dns, a.String())
	}
	s.set("dns", dns)
	s.set("dns_opt", h.DNSOptions)
	s.set("dns_search", h.DNSSearch)
	s.set("extra_hosts", h.ExtraHosts)
}

func (p *project) userNetworks(names []string) {
	all := &mapping{}
	for _, name := range names {
		e, n := p.o.endpoint(name), &mapping{}
		n.set("aliases", e.Aliases)
		if a := e.IPAMConfig; a != nil {
			n.set("ipv4_address", addressText(a.IPv4Address))
			n.set("ipv6_address", addressText(a.IPv6Address))
			var local []string
			for _, l := range a.LinkLocalIPs {
				local = append(local, l.String())
			}
			n.set("link_local_ips", local)
		}
		n.set("mac_address", e.MacAddress.String())
		n.set("driver_opts", e.DriverOpts)
		n.set("gw_priority", int64(e.GwPriority))
		all.put(name, n)
		p.networks[name] = true
	}
	p.s.set("networks", all)
}

func (p *project) storage() {
	s, f, h := p.s, p.o.Request.Config, p.o.Request.HostConfig
	var volumes []any
	for _, b := range h.Binds {
		if source, _, _ := strings.Cut(b, ":"); !strings.HasPrefix(source, "/") {
			p.volumes[source] = true
		}
		volumes = append(volumes, b)
	}
	for _, path := range slices.Sorted(maps.Keys(f.Volumes)) {
		volumes = append(volumes, path)
	}
	for i := range h.Mounts {
		volumes = append(volumes, p.mount(&h.Mounts[i]))
	}
	s.set("volumes", volumes)
	var tmpfs []string
	for _, path := range slices.Sorted(maps.Keys(h.Tmpfs)) {
		tmpfs = append(tmpfs, strings.TrimSuffix(path+":"+h.Tmpfs[path], ":"))
	}
	s.set("tmpfs", tmpfs)
	var from []string
	for _, v := range h.VolumesFrom {
		if name, _, _ := strings.Cut(v, ":"); p.names[name] {
			from = append(from, v)
		} else {
			from = append(from, "container:"+v)
		}
	}
	s.set("volumes_from", from)
	s.set("read_only", h.ReadonlyRootfs)
	s.set("shm_size", sizeText(h.ShmSize))
	s.set("storage_opt", h.StorageOpt)
	if h.VolumeDriver != "" {
		p.losing("--volume-driver %s; name it in the volume", h.VolumeDriver)
	}
}

func (p *project) mount(m *mount.Mount) *mapping {
	v := &mapping{}
	v.set("type", string(m.Type))
	v.set("source", m.Source)
	v.set("target", m.Target)
	v.set("read_only", m.ReadOnly)
	v.set("consistency", string(m.Consistency))
	switch m.Type {
	case mount.TypeBind:
		bind := &mapping{}
		o := m.BindOptions
		if o == nil {
			o = &mount.BindOptions{}
		}
		bind.set("propagation", string(o.Propagation))
		bind.put("create_host_path", o.CreateMountpoint)
		switch {
		case o.NonRecursive:
			bind.set("recursive", "disabled")
		case o.ReadOnlyNonRecursive:
			bind.set("recursive", "writable")
		case o.ReadOnlyForceRecursive:
			bind.set("recursive", "readonly")
		}
		v.set("bind", bind)
	case mount.TypeVolume:
		volume := &mapping{}
		if o := m.VolumeOptions; o != nil {
			volume.set("nocopy", o.NoCopy)
			volume.set("subpath", o.Subpath)
			volume.set("labels", o.Labels)
			if o.DriverConfig != nil {
				p.losing("the driver of the volume at %s; name it in the volume", m.Target)
			}
		}
		if m.Source != "" {
			p.volumes[m.Source] = true
		}
		v.set("volume", volume)
	case mount.TypeTmpfs:
		tmpfs := &mapping{}
		if o := m.TmpfsOptions; o != nil {
			tmpfs.set("size", o.SizeBytes)
			if o.Mode != 0 {
				tmpfs.put("mode", int64(o.Mode)) // a number: other readers take 0755 and 0o755 differently
			}
		}
		v.set("tmpfs", tmpfs)
	case mount.TypeImage:
		image := &mapping{}
		if o := m.ImageOptions; o != nil {
			image.set("subpath", o.Subpath)
		}
		v.set("image", image)
	}
	return v
}

func (p *project) isolation() {
	s, h := p.s, p.o.Request.HostConfig
	s.set("privileged", h.Privileged)
	s.set("cap_add", trimmed(h.CapAdd))
	s.set("cap_drop", trimmed(h.CapDrop))
	security := slices.Clone(h.SecurityOpt)
	for i, o := range security {
		if strings.HasPrefix(o, "seccomp={") {
			p.losing("the text of a seccomp profile: put it into seccomp.json beside this file: %s", strings.TrimPrefix(o, "seccomp="))
			security[i] = "seccomp=seccomp.json"
		}
	}
	if h.MaskedPaths != nil && h.ReadonlyPaths != nil {
		security = append(security, "systempaths=unconfined")
	}
	s.set("security_opt", security)
	s.set("group_add", h.GroupAdd)
	s.set("pid", p.reference(string(h.PidMode)))
	s.set("ipc", p.reference(string(h.IpcMode)))
	s.set("uts", string(h.UTSMode))
	s.set("userns_mode", string(h.UsernsMode))
	s.set("cgroup", string(h.CgroupnsMode))
	s.set("isolation", string(h.Isolation))
	s.set("sysctls", h.Sysctls)
	if h.Umask != nil {
		p.losing("--umask %04o", *h.Umask)
	}
}

func trimmed(caps []string) []string {
	var all []string
	for _, c := range caps {
		all = append(all, strings.TrimPrefix(c, "CAP_"))
	}
	return all
}

func (p *project) memory() {
	s, h := p.s, p.o.Request.HostConfig
	s.set("mem_limit", sizeText(h.Memory))
	s.set("mem_reservation", sizeText(h.MemoryReservation))
	if h.MemorySwap == -1 {
		s.put("memswap_limit", int64(-1))
	} else {
		s.set("memswap_limit", sizeText(h.MemorySwap))
	}
	if h.MemorySwappiness != nil {
		s.put("mem_swappiness", *h.MemorySwappiness)
	}
	if h.OomKillDisable != nil {
		s.put("oom_kill_disable", *h.OomKillDisable)
	}
	s.set("oom_score_adj", int64(h.OomScoreAdj))
	if h.PidsLimit != nil {
		s.put("pids_limit", *h.PidsLimit)
	}
	limits := &mapping{}
	for _, u := range h.Ulimits {
		both := &mapping{}
		both.put("soft", u.Soft)
		both.put("hard", u.Hard)
		limits.put(u.Name, both)
	}
	s.set("ulimits", limits)
	s.set("cgroup_parent", h.CgroupParent)
}

func (p *project) processors() {
	s, h := p.s, p.o.Request.HostConfig
	s.set("cpus", cpusText(h.NanoCPUs))
	s.set("cpu_shares", h.CPUShares)
	s.set("cpu_period", h.CPUPeriod)
	s.set("cpu_quota", h.CPUQuota)
	s.set("cpu_rt_period", h.CPURealtimePeriod)
	s.set("cpu_rt_runtime", h.CPURealtimeRuntime)
	s.set("cpuset", h.CpusetCpus)
	s.set("cpu_count", h.CPUCount)
	s.set("cpu_percent", h.CPUPercent)
	if h.CpusetMems != "" {
		p.losing("--cpuset-mems %s", h.CpusetMems)
	}
}

func (p *project) disks() {
	h, all := p.o.Request.HostConfig, &mapping{}
	all.set("weight", int64(h.BlkioWeight))
	if n := p.o.Request.Berth.NetClass; n != 0 {
		p.losing("--net-cls %d", n)
	}
	device := func(path, key string, n any) *mapping {
		d := &mapping{}
		d.put("path", path)
		d.put(key, n)
		return d
	}
	var weights []any
	for _, d := range h.BlkioWeightDevice {
		weights = append(weights, device(d.Path, "weight", d.Weight))
	}
	all.set("weight_device", weights)
	for _, t := range []struct {
		key  string
		list []*blkiodev.ThrottleDevice
	}{{"device_read_bps", h.BlkioDeviceReadBps}, {"device_write_bps", h.BlkioDeviceWriteBps},
		{"device_read_iops", h.BlkioDeviceReadIOps}, {"device_write_iops", h.BlkioDeviceWriteIOps}} {
		var list []any
		for _, d := range t.list {
			list = append(list, device(d.Path, "rate", d.Rate))
		}
		all.set(t.key, list)
	}
	p.s.set("blkio_config", all)
}

func (p *project) devices() {
	h := p.o.Request.HostConfig
	var devices []string
	for _, d := range h.Devices {
		permissions := d.CgroupPermissions
		if permissions == "" {
			permissions = "rwm"
		}
		devices = append(devices, d.PathOnHost+":"+d.PathInContainer+":"+permissions)
	}
	var gpus []any
	for _, r := range h.DeviceRequests {
		if r.Driver == "cdi" {
			devices = append(devices, r.DeviceIDs...)
			continue
		}
		if len(r.Capabilities) > 1 {
			p.losing("alternatives among the capabilities of a device request: %v", r.Capabilities)
		}
		g := &mapping{}
		g.set("driver", r.Driver)
		g.set("count", int64(r.Count))
		g.set("device_ids", r.DeviceIDs)
		if len(r.Capabilities) > 0 {
			g.set("capabilities", r.Capabilities[0])
		}
		g.set("options", r.Options)
		gpus = append(gpus, g)
	}
	p.s.set("devices", devices)
	p.s.set("gpus", gpus)
	p.s.set("device_cgroup_rules", h.DeviceCgroupRules)
}

func (p *project) health() {
	if action := p.o.Request.Berth.HealthOnFailure; action != "" {
		p.losing("--health-on-failure %s", action)
	}
	h := p.o.Request.Config.Healthcheck
	if h == nil {
		return
	}
	check := &mapping{}
	if len(h.Test) > 0 && h.Test[0] == "NONE" {
		check.set("disable", true)
	} else {
		check.set("test", h.Test)
	}
	for _, d := range []struct {
		key string
		d   time.Duration
	}{{"interval", h.Interval}, {"timeout", h.Timeout}, {"start_period", h.StartPeriod}, {"start_interval", h.StartInterval}} {
		if d.d != 0 {
			check.set(d.key, d.d.String())
		}
	}
	check.set("retries", int64(h.Retries))
	p.s.set("healthcheck", check)
}
