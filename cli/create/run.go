package create

import (
	"encoding/csv"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
)

// Command is a command line that makes a container.
type Command struct {
	Options [][]string // each an option with its value, or both in one word
	Image   string
	Args    []string
	Lost    []string // what the container has and no option can say
}

// Words are the arguments of create; those of run are the same but for -d (see Detached).
func (c *Command) Words() []string {
	return slices.Concat(slices.Concat(c.Options...), []string{c.Image}, c.Args)
}

// add appends an option with its value, unless that is "".
func (c *Command) add(name, value string) {
	if value != "" {
		c.Options = append(c.Options, []string{"--" + name, value})
	}
}

func (c *Command) all(name string, values []string) {
	for _, v := range values {
		c.add(name, v)
	}
}

func (c *Command) on(name string, on bool) {
	if on {
		c.Options = append(c.Options, []string{"--" + name})
	}
}

func (c *Command) number(name string, n int64) {
	if n != 0 {
		c.add(name, strconv.FormatInt(n, 10))
	}
}

// pairs appends one option for each entry, sorted.
func (c *Command) pairs(name string, m map[string]string) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		c.add(name, k+"="+m[k])
	}
}

func (c *Command) lost(format string, args ...any) {
	c.Lost = append(c.Lost, fmt.Sprintf(format, args...))
}

// Detached tells whether the container was made by run -d, or by anybody else who joined no stream to it.
func (o *Origin) Detached() bool {
	f := o.Request.Config
	return !f.AttachStdin && !f.AttachStdout && !f.AttachStderr
}

// Command gives the options and arguments that make the container again.
func (o *Origin) Command() *Command {
	c := &Command{Image: o.Request.Image}
	c.add("name", o.Name)
	for _, part := range []func(*Command){o.identity, o.environment, o.network, o.storage, o.isolation, o.resources, o.devices, o.health} {
		part(c)
	}
	f := o.Request.Config
	if len(f.Entrypoint) == 1 {
		c.Options = append(c.Options, []string{"--entrypoint", f.Entrypoint[0]})
	}
	c.Args = f.Cmd
	if len(f.Shell) > 0 {
		c.lost("the shell %q, which only builds use", f.Shell)
	}
	if o.Request.Berth.Debug != nil {
		c.lost("that the container lends tools: berth debug makes such ones")
	}
	if f.NetworkDisabled {
		c.lost("NetworkDisabled of the API; --network none is much the same")
	}
	return c
}

func (o *Origin) identity(c *Command) {
	f, h := o.Request.Config, o.Request.HostConfig
	c.on("interactive", f.OpenStdin)
	c.on("tty", f.Tty)
	if !o.Detached() && !(f.AttachStdout && f.AttachStderr) {
		for _, s := range []struct {
			name string
			on   bool
		}{{"stdin", f.AttachStdin}, {"stdout", f.AttachStdout}, {"stderr", f.AttachStderr}} {
			if s.on {
				c.add("attach", s.name)
			}
		}
	}
	c.on("rm", h.AutoRemove)
	c.add("restart", restartText(h.RestartPolicy))
	c.all("depends-on", o.Request.Berth.DependsOn)
	c.add("hostname", f.Hostname)
	c.add("domainname", f.Domainname)
	c.add("user", f.User)
	c.add("workdir", f.WorkingDir)
	if h.Init != nil {
		c.Options = append(c.Options, []string{onOff("init", *h.Init)})
	}
	c.add("stop-signal", f.StopSignal)
	if f.StopTimeout != nil {
		c.add("stop-timeout", strconv.Itoa(*f.StopTimeout))
	}
	c.add("runtime", h.Runtime)
}

func onOff(name string, on bool) string {
	if on {
		return "--" + name
	}
	return "--" + name + "=false"
}

func restartText(p container.RestartPolicy) string {
	if p.MaximumRetryCount > 0 {
		return fmt.Sprintf("%s:%d", p.Name, p.MaximumRetryCount)
	}
	return string(p.Name)
}

func (o *Origin) environment(c *Command) {
	f, h := o.Request.Config, o.Request.HostConfig
	c.all("env", f.Env)
	c.pairs("label", f.Labels)
	c.pairs("annotation", h.Annotations)
	c.add("log-driver", h.LogConfig.Type)
	c.pairs("log-opt", h.LogConfig.Config)
}

func (o *Origin) network(c *Command) {
	f, h := o.Request.Config, o.Request.HostConfig
	names := o.networksOf()
	long := len(names) > 1
	for _, name := range names {
		c.add("network", networkText(name, o.endpoint(name), long))
	}
	if !long {
		e := o.endpoint(string(h.NetworkMode))
		c.all("network-alias", e.Aliases)
		if a := e.IPAMConfig; a != nil {
			c.add("ip", addressText(a.IPv4Address))
			c.add("ip6", addressText(a.IPv6Address))
			for _, l := range a.LinkLocalIPs {
				c.add("link-local-ip", l.String())
			}
		}
		c.add("mac-address", e.MacAddress.String())
	}
	links := h.Links
	if len(links) == 0 && len(names) > 0 {
		links = o.endpoint(names[0]).Links
	}
	c.all("link", links)
	for _, p := range sortedPorts(h.PortBindings) {
		for _, b := range h.PortBindings[p] {
			c.add("publish", publishText(p, b))
		}
	}
	c.on("publish-all", h.PublishAllPorts)
	for _, p := range sortedPorts(f.ExposedPorts) {
		c.add("expose", portText(p))
	}
	for _, a := range h.DNS {
		c.add("dns", a.String())
	}
	c.all("dns-option", h.DNSOptions)
	c.all("dns-search", h.DNSSearch)
	c.all("add-host", h.ExtraHosts)
}

func addressText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// networkText is one --network: the name alone, or key=value fields where there is more to say than other options can.
func networkText(name string, e *network.EndpointSettings, long bool) string {
	if !long && len(e.DriverOpts) == 0 && e.GwPriority == 0 {
		return name
	}
	fields := []string{"name=" + name}
	if long {
		for _, a := range e.Aliases {
			fields = append(fields, "alias="+a)
		}
		if a := e.IPAMConfig; a != nil {
			for key, addr := range map[string]netip.Addr{"ip": a.IPv4Address, "ip6": a.IPv6Address} {
				if addr.IsValid() {
					fields = append(fields, key+"="+addr.String())
				}
			}
			for _, l := range a.LinkLocalIPs {
				fields = append(fields, "link-local-ip="+l.String())
			}
		}
		if len(e.MacAddress) > 0 {
			fields = append(fields, "mac-address="+e.MacAddress.String())
		}
	}
	for _, k := range slices.Sorted(maps.Keys(e.DriverOpts)) {
		fields = append(fields, "driver-opt="+k+"="+e.DriverOpts[k])
	}
	if e.GwPriority != 0 {
		fields = append(fields, "gw-priority="+strconv.Itoa(e.GwPriority))
	}
	slices.Sort(fields[1:])
	return csvText(fields)
}

// csvText is one line of comma-separated values, quoted where needed (RFC 4180).
func csvText(fields []string) string {
	var b strings.Builder
	w := csv.NewWriter(&b)
	if w.Write(fields) != nil {
		return strings.Join(fields, ",")
	}
	w.Flush()
	return strings.TrimSuffix(b.String(), "\n")
}

func sortedPorts[V any](m map[network.Port]V) []network.Port {
	return slices.SortedFunc(maps.Keys(m), func(a, b network.Port) int {
		if a.Num() != b.Num() {
			return int(a.Num()) - int(b.Num())
		}
		return strings.Compare(string(a.Proto()), string(b.Proto()))
	})
}

func portText(p network.Port) string {
	if p.Proto() == network.TCP {
		return strconv.Itoa(int(p.Num()))
	}
	return p.String()
}

func publishText(p network.Port, b network.PortBinding) string {
	text := portText(p)
	host := b.HostPort
	if host == "0" {
		host = ""
	}
	switch {
	case b.HostIP.IsValid() && b.HostIP.Is6():
		return "[" + b.HostIP.String() + "]:" + host + ":" + text
	case b.HostIP.IsValid():
		return b.HostIP.String() + ":" + host + ":" + text
	case host != "":
		return host + ":" + text
	}
	return text
}

func (o *Origin) storage(c *Command) {
	f, h := o.Request.Config, o.Request.HostConfig
	c.all("volume", h.Binds)
	c.all("volume", slices.Sorted(maps.Keys(f.Volumes)))
	for i := range h.Mounts {
		c.add("mount", mountText(c, &h.Mounts[i]))
	}
	for _, path := range slices.Sorted(maps.Keys(h.Tmpfs)) {
		c.add("tmpfs", strings.TrimSuffix(path+":"+h.Tmpfs[path], ":"))
	}
	c.all("volumes-from", h.VolumesFrom)
	c.add("volume-driver", h.VolumeDriver)
	c.on("read-only", h.ReadonlyRootfs)
	c.add("shm-size", sizeText(h.ShmSize))
	c.pairs("storage-opt", h.StorageOpt)
}

// mountText is one --mount.
func mountText(c *Command, m *mount.Mount) string {
	f := []string{"type=" + string(m.Type)}
	add := func(key, value string) {
		if value != "" {
			f = append(f, key+"="+value)
		}
	}
	on := func(key string, on bool) {
		if on {
			f = append(f, key+"=true")
		}
	}
	add("source", m.Source)
	add("target", m.Target)
	on("readonly", m.ReadOnly)
	add("consistency", string(m.Consistency))
	if b := m.BindOptions; b != nil {
		add("bind-propagation", string(b.Propagation))
		on("bind-create-src", b.CreateMountpoint)
		switch {
		case b.NonRecursive:
			add("bind-recursive", "disabled")
		case b.ReadOnlyNonRecursive:
			add("bind-recursive", "writable")
		case b.ReadOnlyForceRecursive:
			add("bind-recursive", "readonly")
		}
	}
	if v := m.VolumeOptions; v != nil {
		on("volume-nocopy", v.NoCopy)
		add("volume-subpath", v.Subpath)
		for _, k := range slices.Sorted(maps.Keys(v.Labels)) {
			add("volume-label", k+"="+v.Labels[k])
		}
		if d := v.DriverConfig; d != nil {
			add("volume-driver", d.Name)
			for _, k := range slices.Sorted(maps.Keys(d.Options)) {
				add("volume-opt", k+"="+d.Options[k])
			}
		}
	}
	if t := m.TmpfsOptions; t != nil {
		add("tmpfs-size", sizeText(t.SizeBytes))
		if t.Mode != 0 {
			add("tmpfs-mode", strconv.FormatUint(uint64(t.Mode), 8))
		}
		if len(t.Options) > 0 {
			c.lost("options %q of the tmpfs at %s, which only the API takes", t.Options, m.Target)
		}
	}
	if i := m.ImageOptions; i != nil {
		add("image-subpath", i.Subpath)
	}
	return csvText(f)
}

func (o *Origin) isolation(c *Command) {
	h := o.Request.HostConfig
	c.on("privileged", h.Privileged)
	for _, l := range []struct {
		option string
		names  []string
	}{{"cap-add", h.CapAdd}, {"cap-drop", h.CapDrop}} {
		for _, n := range l.names {
			c.add(l.option, strings.TrimPrefix(n, "CAP_"))
		}
	}
	c.all("security-opt", h.SecurityOpt)
	if h.MaskedPaths != nil && h.ReadonlyPaths != nil {
		c.add("security-opt", "systempaths=unconfined")
	}
	c.all("group-add", h.GroupAdd)
	c.add("pid", string(h.PidMode))
	c.add("ipc", string(h.IpcMode))
	c.add("uts", string(h.UTSMode))
	c.add("userns", string(h.UsernsMode))
	c.add("cgroupns", string(h.CgroupnsMode))
	c.add("isolation", string(h.Isolation))
	c.pairs("sysctl", h.Sysctls)
	if h.Umask != nil {
		c.add("umask", fmt.Sprintf("%04o", *h.Umask))
	}
	if h.Cgroup != "" {
		c.lost("the shared cgroup %q, which only the API takes", h.Cgroup)
	}
}

func (o *Origin) resources(c *Command) {
	r := &o.Request.HostConfig.Resources
	c.add("memory", sizeText(r.Memory))
	c.add("memory-reservation", sizeText(r.MemoryReservation))
	if r.MemorySwap == -1 {
		c.add("memory-swap", "-1")
	} else {
		c.add("memory-swap", sizeText(r.MemorySwap))
	}
	if r.MemorySwappiness != nil {
		c.add("memory-swappiness", strconv.FormatInt(*r.MemorySwappiness, 10))
	}
	if r.OomKillDisable != nil {
		c.Options = append(c.Options, []string{onOff("oom-kill-disable", *r.OomKillDisable)})
	}
	c.number("oom-score-adj", int64(o.Request.HostConfig.OomScoreAdj))
	c.add("cpus", cpusText(r.NanoCPUs))
	c.number("cpu-shares", r.CPUShares)
	c.number("cpu-period", r.CPUPeriod)
	c.number("cpu-quota", r.CPUQuota)
	c.number("cpu-rt-period", r.CPURealtimePeriod)
	c.number("cpu-rt-runtime", r.CPURealtimeRuntime)
	c.add("cpuset-cpus", r.CpusetCpus)
	c.add("cpuset-mems", r.CpusetMems)
	c.number("cpu-count", r.CPUCount)
	c.number("cpu-percent", r.CPUPercent)
	if r.PidsLimit != nil {
		c.add("pids-limit", strconv.FormatInt(*r.PidsLimit, 10))
	}
	for _, u := range r.Ulimits {
		c.add("ulimit", u.String())
	}
	c.add("cgroup-parent", r.CgroupParent)
	c.number("blkio-weight", int64(r.BlkioWeight))
	for _, d := range r.BlkioWeightDevice {
		c.add("blkio-weight-device", fmt.Sprintf("%s:%d", d.Path, d.Weight))
	}
	for _, t := range []struct {
		option string
		list   []*blkiodev.ThrottleDevice
	}{{"device-read-bps", r.BlkioDeviceReadBps}, {"device-write-bps", r.BlkioDeviceWriteBps},
		{"device-read-iops", r.BlkioDeviceReadIOps}, {"device-write-iops", r.BlkioDeviceWriteIOps}} {
		for _, d := range t.list {
			c.add(t.option, fmt.Sprintf("%s:%d", d.Path, d.Rate))
		}
	}
	c.add("io-maxbandwidth", sizeText(int64(r.IOMaximumBandwidth)))
	c.number("io-maxiops", int64(r.IOMaximumIOps))
	c.number("net-cls", int64(o.Request.Berth.NetClass))
}

// sizeText writes bytes with the largest unit that leaves a whole number; "" for none.
func sizeText(n int64) string {
	if n == 0 {
		return ""
	}
	unit := ""
	for _, u := range []string{"k", "m", "g"} {
		if n%1024 != 0 {
			break
		}
		n, unit = n/1024, u
	}
	return strconv.FormatInt(n, 10) + unit
}

// cpusText writes billionths of a processor as a decimal number; "" for none.
func cpusText(nano int64) string {
	if nano == 0 {
		return ""
	}
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%d.%09d", nano/1e9, nano%1e9), "0"), ".")
}

func (o *Origin) devices(c *Command) {
	r := &o.Request.HostConfig.Resources
	for _, d := range r.Devices {
		text := d.PathOnHost
		if d.PathInContainer != d.PathOnHost {
			text += ":" + d.PathInContainer
		}
		if d.CgroupPermissions != "rwm" && d.CgroupPermissions != "" {
			text += ":" + d.CgroupPermissions
		}
		c.add("device", text)
	}
	c.all("device-cgroup-rule", r.DeviceCgroupRules)
	for _, d := range r.DeviceRequests {
		if d.Driver == "cdi" {
			c.all("device", d.DeviceIDs)
			continue
		}
		if text, ok := gpusText(&d); ok {
			c.add("gpus", text)
		} else {
			c.lost("a device request of driver %q for %v, which only the API takes", d.Driver, d.Capabilities)
		}
	}
}

// gpusText is one --gpus; ok is false for a request that it can't say.
func gpusText(d *container.DeviceRequest) (text string, ok bool) {
	if len(d.Capabilities) != 1 || !slices.Contains(d.Capabilities[0], "gpu") {
		return "", false
	}
	caps := slices.Clone(d.Capabilities[0])
	i := slices.Index(caps, "gpu")
	caps = slices.Delete(caps, i, i+1)
	var f []string
	if d.Driver != "" {
		f = append(f, "driver="+d.Driver)
	}
	switch {
	case d.Count == -1:
		f = append(f, "count=all")
	case d.Count != 0:
		f = append(f, "count="+strconv.Itoa(d.Count))
	}
	if len(d.DeviceIDs) > 0 {
		f = append(f, "device="+strings.Join(d.DeviceIDs, ","))
	}
	if len(caps) > 0 {
		f = append(f, "capabilities="+strings.Join(caps, ","))
	}
	if len(d.Options) > 0 {
		var options []string
		for _, k := range slices.Sorted(maps.Keys(d.Options)) {
			options = append(options, k+"="+d.Options[k])
		}
		f = append(f, "options="+csvText(options))
	}
	if len(f) == 1 && d.Count != 0 {
		return strings.TrimPrefix(f[0], "count="), true
	}
	return csvText(f), true
}

func (o *Origin) health(c *Command) {
	c.add("health-on-failure", o.Request.Berth.HealthOnFailure)
	h := o.Request.Config.Healthcheck
	if h == nil {
		return
	}
	if len(h.Test) > 0 && h.Test[0] == "NONE" {
		c.on("no-healthcheck", true)
		return
	}
	c.add("health-cmd", healthText(c, h.Test))
	for _, d := range []struct {
		option string
		d      time.Duration
	}{{"interval", h.Interval}, {"timeout", h.Timeout}, {"start-period", h.StartPeriod}, {"start-interval", h.StartInterval}} {
		if d.d != 0 {
			c.add("health-"+d.option, d.d.String())
		}
	}
	c.number("health-retries", int64(h.Retries))
}

// healthText is the shell command of a probe. One without a shell gets one.
func healthText(c *Command, test []string) string {
	switch {
	case len(test) == 0:
		return ""
	case test[0] == "CMD-SHELL" && len(test) > 1:
		return test[1]
	case test[0] == "CMD":
		c.lost("a health check without a shell; the one above needs /bin/sh in the image")
		return Quoted(test[1:])
	}
	return Quoted(test)
}
