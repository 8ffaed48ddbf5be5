// Package create is what a container is to be, as a command line says it: the options of create
// and run, read into the API's request.
//
// It sends nothing and knows no daemon; it reads the files that options name, and nothing else outside of itself.
// Invariant: two command lines that mean the same give the same request.
package create

import (
	"time"

	"berth/cli/flag"
	"berth/cli/format"
	"berth/client"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"
)

// Options holds what the options of run and create say. Most of them write
// straight into the request; the rest is text that request reads when all is known.
type Options struct {
	config   container.Config
	host     container.HostConfig
	settings client.Settings
	listFlags

	Name, Platform, Pull, CIDFile string
	Quiet                         bool
	Proxies                       []string // environment variables of the user's configuration, under those of -e

	apiSocket            bool
	entrypoint, restart  string
	init, oomKillDisable bool
	stopTimeout          int
	swappiness, pids     int64
	net                  networkFlags
	health               healthFlags
	networks             []networkRequest

	flags  *pflag.FlagSet
	getenv func(string) (string, bool)
}

// listFlags are options that may be given several times and are read when all of them are known.
type listFlags struct {
	Attach                                   []string // the streams of -a, in small letters
	env, envFiles, labels, labelFiles        []string
	publish, expose, volumes, tmpfs, devices []string
	logOpts, storage, security               []string
}

type networkFlags struct {
	aliases, links, linkLocal []string
	ip, ip6, mac              string
}

type healthFlags struct {
	none                                          bool
	cmd                                           string
	interval, timeout, startPeriod, startInterval time.Duration
	retries                                       int
}

// New declares in fs the options that run and create share. getenv is as os.LookupEnv.
func New(fs *pflag.FlagSet, getenv func(string) (string, bool)) *Options {
	c := &Options{flags: fs, getenv: getenv}
	c.Platform, _ = getenv("DOCKER_DEFAULT_PLATFORM")
	c.identityFlags(fs)
	c.environmentFlags(fs)
	c.resourceFlags(fs)
	c.deviceFlags(fs)
	c.networkFlags(fs)
	c.storageFlags(fs)
	c.isolationFlags(fs)
	c.healthFlags(fs)
	c.oldFlags(fs)
	return c
}

func (c *Options) identityFlags(fs *pflag.FlagSet) {
	fs.VarP(flag.Checked(&c.Attach, validAttach), "attach", "a", "Attach to STDIN, STDOUT or STDERR")
	fs.BoolVarP(&c.config.OpenStdin, "interactive", "i", false, "Keep STDIN open even if not attached")
	fs.BoolVarP(&c.config.Tty, "tty", "t", false, "Allocate a pseudo-TTY")
	fs.BoolVar(&c.host.AutoRemove, "rm", false, "Automatically remove the container and its associated anonymous volumes when it exits")
	fs.StringVar(&c.Name, "name", "", "Assign a name to the container")
	fs.StringVarP(&c.config.Hostname, "hostname", "h", "", "Container host name")
	fs.StringVar(&c.config.Domainname, "domainname", "", "Container NIS domain name")
	fs.StringVarP(&c.config.User, "user", "u", "", "Username or UID (format: <name|uid>[:<group|gid>])")
	fs.StringVarP(&c.config.WorkingDir, "workdir", "w", "", "Working directory inside the container")
	fs.StringVar(&c.entrypoint, "entrypoint", "", "Overwrite the default ENTRYPOINT of the image")
	fs.BoolVar(&c.init, "init", false, "Run an init inside the container that forwards signals and reaps processes")
	fs.StringVar(&c.restart, "restart", "no", "Restart policy to apply when a container exits")
	fs.StringVar(&c.config.StopSignal, "stop-signal", "", "Signal to stop the container")
	fs.IntVar(&c.stopTimeout, "stop-timeout", 0, "Timeout (in seconds) to stop a container")
	fs.StringVar(&c.CIDFile, "cidfile", "", "Write the container ID to the file")
	fs.StringVar(&c.Platform, "platform", c.Platform, "Set platform if server is multi-platform capable")
	fs.StringVar(&c.Pull, "pull", "missing", `Pull image before running ("always", "missing", "never")`)
	fs.BoolVarP(&c.Quiet, "quiet", "q", false, "Suppress the pull output")
	fs.StringVar(&c.host.Runtime, "runtime", "", "Runtime to use for this container")
	fs.BoolVar(&c.apiSocket, "use-api-socket", false, "Bind mount the engine's API socket into the container")
}

func (c *Options) environmentFlags(fs *pflag.FlagSet) {
	fs.VarP(flag.Checked(&c.env, ValidEnv), "env", "e", "Set environment variables")
	fs.Var(flag.List(&c.envFiles), "env-file", "Read in a file of environment variables")
	fs.VarP(flag.Checked(&c.labels, validLabel), "label", "l", "Set meta data on a container")
	fs.Var(flag.List(&c.labelFiles), "label-file", "Read in a line delimited file of labels")
	fs.Var(flag.Pairs(&c.host.Annotations, nil), "annotation", "Add an annotation to the container (passed through to the OCI runtime)")
	fs.StringVar(&c.host.LogConfig.Type, "log-driver", "", "Logging driver for the container")
	fs.Var(flag.List(&c.logOpts), "log-opt", "Log driver options")
}

func (c *Options) resourceFlags(fs *pflag.FlagSet) {
	r := &c.host.Resources
	fs.VarP(flag.Size(&r.Memory, false), "memory", "m", "Memory limit")
	fs.Var(flag.Size(&r.MemoryReservation, false), "memory-reservation", "Memory soft limit")
	fs.Var(flag.Size(&r.MemorySwap, true), "memory-swap", "Swap limit equal to memory plus swap: '-1' to enable unlimited swap")
	fs.Int64Var(&c.swappiness, "memory-swappiness", -1, "Tune container memory swappiness (0 to 100)")
	fs.BoolVar(&c.oomKillDisable, "oom-kill-disable", false, "Disable OOM Killer")
	fs.IntVar(&c.host.OomScoreAdj, "oom-score-adj", 0, "Tune host's OOM preferences (-1000 to 1000)")
	fs.Var(flag.Value{Kind: "decimal", Take: func(v string) (err error) { r.NanoCPUs, err = parseCPUs(v); return err }}, "cpus", "Number of CPUs")
	fs.Int64VarP(&r.CPUShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	fs.Int64Var(&r.CPUPeriod, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period")
	fs.Int64Var(&r.CPUQuota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota")
	fs.Int64Var(&r.CPURealtimePeriod, "cpu-rt-period", 0, "Limit CPU real-time period in microseconds")
	fs.Int64Var(&r.CPURealtimeRuntime, "cpu-rt-runtime", 0, "Limit CPU real-time runtime in microseconds")
	fs.StringVar(&r.CpusetCpus, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	fs.StringVar(&r.CpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	fs.Int64Var(&r.CPUCount, "cpu-count", 0, "CPU count (Windows only)")
	fs.Int64Var(&r.CPUPercent, "cpu-percent", 0, "CPU percent (Windows only)")
	fs.Int64Var(&c.pids, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
	fs.Var(flag.Ulimits(&r.Ulimits), "ulimit", "Ulimit options")
	fs.StringVar(&r.CgroupParent, "cgroup-parent", "", "Optional parent cgroup for the container")
	fs.Uint16Var(&r.BlkioWeight, "blkio-weight", 0, "Block IO (relative weight), between 10 and 1000, or 0 to disable")
	fs.Var(flag.Value{Kind: "class", Take: func(v string) (err error) {
		c.settings.NetClass, err = parseNetClass(v)
		return err
	}}, "net-cls", "Class of the container's packets, MAJOR:MINOR in hexadecimal or a number (cgroup v1 only)")
	fs.Var(flag.Parsed("list", &r.BlkioWeightDevice, parseWeightDevice), "blkio-weight-device", "Block IO weight (relative device weight)")
	fs.Var(flag.Parsed("list", &r.BlkioDeviceReadBps, parseBps), "device-read-bps", "Limit read rate (bytes per second) from a device")
	fs.Var(flag.Parsed("list", &r.BlkioDeviceWriteBps, parseBps), "device-write-bps", "Limit write rate (bytes per second) to a device")
	fs.Var(flag.Parsed("list", &r.BlkioDeviceReadIOps, parseIOps), "device-read-iops", "Limit read rate (IO per second) from a device")
	fs.Var(flag.Parsed("list", &r.BlkioDeviceWriteIOps, parseIOps), "device-write-iops", "Limit write rate (IO per second) to a device")
	fs.Var(flag.Value{Kind: "bytes", Take: func(v string) error {
		n, err := format.ParseSize(v)
		r.IOMaximumBandwidth = uint64(n)
		return err
	}}, "io-maxbandwidth", "Maximum IO bandwidth limit for the system drive (Windows only)")
	fs.Uint64Var(&r.IOMaximumIOps, "io-maxiops", 0, "Maximum IOps limit for the system drive (Windows only)")
}

func (c *Options) deviceFlags(fs *pflag.FlagSet) {
	r := &c.host.Resources
	fs.Var(flag.Checked(&c.devices, validDevice), "device", "Add a host device to the container")
	fs.Var(flag.Checked(&r.DeviceCgroupRules, validDeviceRule), "device-cgroup-rule", "Add a rule to the cgroup allowed devices list")
	fs.Var(flag.Parsed("gpu-request", &r.DeviceRequests, parseGPUs), "gpus", "GPU devices to add to the container ('all' to pass all GPUs)")
}

func (c *Options) networkFlags(fs *pflag.FlagSet) {
	n := &c.net
	fs.Var(flag.Parsed("network", &c.networks, parseNetwork), "network", "Connect a container to a network")
	flag.Alias(fs, "network", "net")
	fs.VarP(flag.List(&c.publish), "publish", "p", "Publish a container's port(s) to the host")
	fs.BoolVarP(&c.host.PublishAllPorts, "publish-all", "P", false, "Publish all exposed ports to random ports")
	fs.Var(flag.List(&c.expose), "expose", "Expose a port or a range of ports")
	fs.Var(flag.List(&n.aliases), "network-alias", "Add network-scoped alias for the container")
	flag.Alias(fs, "network-alias", "net-alias")
	fs.Var(flag.Checked(&n.links, validLink), "link", "Add link to another container")
	fs.Var(flag.List(&n.linkLocal), "link-local-ip", "Container IPv4/IPv6 link-local addresses")
	fs.StringVar(&n.ip, "ip", "", "IPv4 address (e.g., 172.30.100.104)")
	fs.StringVar(&n.ip6, "ip6", "", "IPv6 address (e.g., 2001:db8::33)")
	fs.StringVar(&n.mac, "mac-address", "", "Container MAC address (e.g., 92:d0:c6:0a:29:33)")
	fs.Var(flag.Parsed("list", &c.host.DNS, parseDNS), "dns", "Set custom DNS servers")
	fs.Var(flag.List(&c.host.DNSOptions), "dns-option", "Set DNS options")
	flag.Alias(fs, "dns-option", "dns-opt")
	fs.Var(flag.Checked(&c.host.DNSSearch, validSearch), "dns-search", "Set custom DNS search domains")
	fs.Var(flag.Checked(&c.host.ExtraHosts, flag.ExtraHost), "add-host", "Add a custom host-to-IP mapping (host:ip)")
}

func (c *Options) storageFlags(fs *pflag.FlagSet) {
	fs.VarP(flag.List(&c.volumes), "volume", "v", "Bind mount a volume")
	fs.Var(flag.Parsed("mount", &c.host.Mounts, parseMount), "mount", "Attach a filesystem mount to the container")
	fs.Var(flag.List(&c.tmpfs), "tmpfs", "Mount a tmpfs directory")
	fs.Var(flag.List(&c.host.VolumesFrom), "volumes-from", "Mount volumes from the specified container(s)")
	fs.StringVar(&c.host.VolumeDriver, "volume-driver", "", "Optional volume driver for the container")
	fs.BoolVar(&c.host.ReadonlyRootfs, "read-only", false, "Mount the container's root filesystem as read only")
	fs.Var(flag.Size(&c.host.ShmSize, false), "shm-size", "Size of /dev/shm")
	fs.Var(flag.List(&c.storage), "storage-opt", "Storage driver options for the container")
}

func (c *Options) isolationFlags(fs *pflag.FlagSet) {
	h := &c.host
	fs.Var(flag.List(&h.CapAdd), "cap-add", "Add Linux capabilities")
	fs.Var(flag.List(&h.CapDrop), "cap-drop", "Drop Linux capabilities")
	fs.BoolVar(&h.Privileged, "privileged", false, "Give extended privileges to this container")
	fs.Var(flag.List(&c.security), "security-opt", "Security Options")
	fs.Var(flag.List(&h.GroupAdd), "group-add", "Add additional groups to join")
	fs.StringVar((*string)(&h.PidMode), "pid", "", "PID namespace to use")
	fs.StringVar((*string)(&h.IpcMode), "ipc", "", "IPC mode to use")
	fs.StringVar((*string)(&h.UTSMode), "uts", "", "UTS namespace to use")
	fs.StringVar((*string)(&h.UsernsMode), "userns", "", "User namespace to use: host, auto[:size=N] for ids of its own")
	fs.StringVar((*string)(&h.CgroupnsMode), "cgroupns", "", "Cgroup namespace to use (host|private)")
	fs.StringVar((*string)(&h.Isolation), "isolation", "", "Container isolation technology")
	fs.Var(flag.Pairs(&h.Sysctls, validSysctl), "sysctl", "Sysctl options")
	fs.Var(flag.Value{Kind: "octal", Take: func(v string) error {
		u, err := parseUmask(v)
		h.Umask = &u
		return err
	}}, "umask", "Initial umask of the container's process")
}

func (c *Options) healthFlags(fs *pflag.FlagSet) {
	h := &c.health
	fs.BoolVar(&h.none, "no-healthcheck", false, "Disable any container-specified HEALTHCHECK")
	fs.StringVar(&h.cmd, "health-cmd", "", "Command to run to check health")
	fs.DurationVar(&h.interval, "health-interval", 0, "Time between running the check (ms|s|m|h)")
	fs.IntVar(&h.retries, "health-retries", 0, "Consecutive failures needed to report unhealthy")
	fs.DurationVar(&h.timeout, "health-timeout", 0, "Maximum time to allow one check to run (ms|s|m|h)")
	fs.DurationVar(&h.startPeriod, "health-start-period", 0, "Start period for the container to initialize before starting health-retries countdown (ms|s|m|h)")
	fs.DurationVar(&h.startInterval, "health-start-interval", 0, "Time between running the check during the start period (ms|s|m|h)")
	fs.StringVar(&c.settings.HealthOnFailure, "health-on-failure", "", "What to do when the container becomes unhealthy (none|kill|restart|stop)")
	fs.Var(flag.List(&c.settings.DependsOn), "depends-on", "Start after another container, when it is started or healthy (NAME[:started|healthy])")
}

// oldFlags are accepted, warned about, and have no effect.
func (c *Options) oldFlags(fs *pflag.FlagSet) {
	fs.Var(flag.Size(new(int64), false), "kernel-memory", "Kernel memory limit")
	flag.Old(fs, "kernel-memory", "the kernel no longer has this limit, and it is ignored.")
	fs.Bool("disable-content-trust", true, "Skip image verification")
	flag.Old(fs, "disable-content-trust", "and is ignored.")
}
