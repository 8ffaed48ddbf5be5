package create

import (
	"errors"
	"time"

	"berth/cli/flag"
	"berth/client"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"
)

// Update holds what the options of update say.
type Update struct {
	request client.UpdateRequest

	restart                 string
	pids                    int64
	labels, publish, envAdd []string
	health                  healthFlags
	flags                   *pflag.FlagSet
	lookup                  func(string) (string, bool)
}

// NewUpdate declares the options of update. getenv finds the values of variables that --env-add names alone.
func NewUpdate(fs *pflag.FlagSet, getenv func(string) (string, bool)) *Update {
	u := &Update{flags: fs, lookup: getenv}
	u.limitFlags(fs)
	u.changeFlags(fs)
	return u
}

func (u *Update) limitFlags(fs *pflag.FlagSet) {
	r := &u.request.Resources
	fs.Uint16Var(&r.BlkioWeight, "blkio-weight", 0, "Block IO (relative weight), between 10 and 1000, or 0 to disable")
	fs.Var(flag.Parsed("list", &r.BlkioWeightDevice, parseWeightDevice), "blkio-weight-device", "Block IO weight (relative device weight)")
	fs.Int64Var(&r.CPUPeriod, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period")
	fs.Int64Var(&r.CPUQuota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota")
	fs.Int64Var(&r.CPURealtimePeriod, "cpu-rt-period", 0, "Limit the CPU real-time period in microseconds")
	fs.Int64Var(&r.CPURealtimeRuntime, "cpu-rt-runtime", 0, "Limit the CPU real-time runtime in microseconds")
	fs.Int64VarP(&r.CPUShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	fs.Var(flag.Value{Kind: "decimal", Take: func(v string) (err error) { r.NanoCPUs, err = parseCPUs(v); return err }}, "cpus", "Number of CPUs")
	fs.StringVar(&r.CpusetCpus, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	fs.StringVar(&r.CpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	fs.Var(flag.Parsed("list", &r.BlkioDeviceReadBps, parseBps), "device-read-bps", "Limit read rate (bytes per second) from a device")
	fs.Var(flag.Parsed("list", &r.BlkioDeviceReadIOps, parseIOps), "device-read-iops", "Limit read rate (IO per second) from a device")
	fs.Var(flag.Parsed("list", &r.BlkioDeviceWriteBps, parseBps), "device-write-bps", "Limit write rate (bytes per second) to a device")
	fs.Var(flag.Parsed("list", &r.BlkioDeviceWriteIOps, parseIOps), "device-write-iops", "Limit write rate (IO per second) to a device")
	fs.VarP(flag.Size(&r.Memory, false), "memory", "m", "Memory limit")
	fs.Var(flag.Size(&r.MemoryReservation, false), "memory-reservation", "Memory soft limit")
	fs.Var(flag.Size(&r.MemorySwap, true), "memory-swap", "Swap limit equal to memory plus swap: -1 to enable unlimited swap")
	fs.Int64Var(&u.pids, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
	fs.StringVar(&u.restart, "restart", "", "Restart policy to apply when a container exits")
	fs.Var(flag.Size(new(int64), false), "kernel-memory", "Kernel memory limit")
	flag.Old(fs, "kernel-memory", "the kernel no longer has this limit, and it is ignored.")
}

func (u *Update) changeFlags(fs *pflag.FlagSet) {
	c := &u.request.Berth
	fs.Var(flag.Checked(&u.envAdd, ValidEnv), "env-add", "Add or change an environment variable (starts the container again)")
	fs.Var(flag.List(&c.EnvRemove), "env-rm", "Remove an environment variable (starts the container again)")
	fs.Var(flag.Checked(&u.labels, validLabel), "label-add", "Add or change a label")
	fs.Var(flag.List(&c.LabelRemove), "label-rm", "Remove a label by its key")
	fs.Var(flag.Parsed("mount", &c.MountAdd, parseMount), "mount-add", "Add a mount")
	fs.Var(flag.List(&c.MountRemove), "mount-rm", "Remove a mount by its path in the container")
	fs.Var(flag.List(&u.publish), "publish-add", "Publish a port, or change where it is published")
	fs.Var(flag.List(&c.PublishRemove), "publish-rm", "Withdraw a published port by the container's port, or HOST:CONTAINER")
	h := &u.health
	fs.StringVar(&h.cmd, "health-cmd", "", "Command to run to check health")
	fs.DurationVar(&h.interval, "health-interval", 0, "Time between running the check (ms|s|m|h)")
	fs.IntVar(&h.retries, "health-retries", 0, "Consecutive failures needed to report unhealthy")
	fs.DurationVar(&h.startInterval, "health-start-interval", 0, "Time between running the check during the start period (ms|s|m|h)")
	fs.DurationVar(&h.startPeriod, "health-start-period", 0, "Start period for the container to initialize before counting retries (ms|s|m|h)")
	fs.DurationVar(&h.timeout, "health-timeout", 0, "Maximum time to allow one check to run (ms|s|m|h)")
	fs.BoolVar(&h.none, "no-healthcheck", false, "Disable any HEALTHCHECK")
}

// Request makes the request of all that the options say.
func (u *Update) Request() (client.UpdateRequest, error) {
	r := &u.request
	given := false
	u.flags.Visit(func(f *pflag.Flag) { given = given || f.Name != "help" })
	if !given {
		return *r, errors.New("you must provide one or more flags when using this command")
	}
	if u.flags.Changed("pids-limit") {
		r.PidsLimit = &u.pids
	}
	var err error
	if u.restart != "" {
		if r.RestartPolicy, err = parseRestart(u.restart); err == nil {
			err = container.ValidateRestartPolicy(r.RestartPolicy)
		}
		if err != nil {
			return *r, err
		}
	}
	c := &r.Berth
	if c.EnvAdd, err = Environment(nil, u.envAdd, u.lookup); err != nil {
		return *r, err
	}
	if c.LabelAdd, err = labels(nil, u.labels); err != nil {
		return *r, err
	}
	if len(u.publish) > 0 {
		if _, c.PublishAdd, err = ports(u.publish, nil); err != nil {
			return *r, err
		}
	}
	c.Health, err = u.healthcheck()
	return *r, err
}

func (u *Update) healthcheck() (*container.HealthConfig, error) {
	h := u.health
	given := h.cmd != "" || h.interval != 0 || h.timeout != 0 || h.startPeriod != 0 || h.startInterval != 0 || h.retries != 0
	switch {
	case h.none && given:
		return nil, errors.New("--no-healthcheck conflicts with --health-* options")
	case h.none:
		return &container.HealthConfig{Test: []string{"NONE"}}, nil
	case !given:
		return nil, nil
	case h.retries < 0 || min(h.interval, h.timeout, h.startPeriod, h.startInterval) < time.Duration(0):
		return nil, errors.New("--health-* options cannot be negative")
	}
	c := &container.HealthConfig{Interval: h.interval, Timeout: h.timeout, StartPeriod: h.startPeriod, StartInterval: h.startInterval, Retries: h.retries}
	if h.cmd != "" {
		c.Test = []string{"CMD-SHELL", h.cmd}
	}
	return c, nil
}
