// Package build has the command that builds images.
//
// It sends a context and shows what the daemon says: it reads no Dockerfile. Invariant: nothing of what the ignore file names leaves the machine,
// but for the Dockerfile and the ignore file themselves.
package build

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"os"
	"strconv"
	"strings"

	"berth/cli/flag"
	"berth/cli/session"

	"github.com/spf13/cobra"
)

// options are the command's.
type options struct {
	tags, args, labels       []string
	file, target, network    string
	iidfile                  string
	platforms                []string
	noCache, pull, quiet     bool
	memory, swap, shm        int64
	cpuShares, period, quota int64
	cpus, mems, parent       string

	allowed
	settings
	calling
	caches
	showing
	secrets
	outputs
	contexts
}

// Build is the command "image build".
func Build(s *session.Session) *cobra.Command {
	o := &options{}
	cmd := &cobra.Command{
		Use: "build [OPTIONS] PATH | URL | -", Args: session.Exactly(1),
		Example: "build -t app .\nbuild -f docker/Dockerfile --build-arg VERSION=2 -t app:2 .\nbuild - < Dockerfile",
		RunE:    func(cmd *cobra.Command, args []string) error { return o.build(cmd.Context(), s, args[0]) },
	}
	fs := cmd.Flags()
	o.allowed.flags(fs)
	o.settings.flags(fs)
	o.caches.flags(fs)
	fs.StringArrayVarP(&o.tags, "tag", "t", nil, "Image identifier (format: \"[registry/]repository[:tag]\")")
	fs.StringArrayVar(&o.args, "build-arg", nil, "Set build-time variables")
	fs.StringArrayVar(&o.labels, "label", nil, "Set metadata for an image")
	fs.StringVarP(&o.file, "file", "f", "", "Name of the Dockerfile (default: \"PATH/Dockerfile\")")
	fs.StringVar(&o.target, "target", "", "Set the target build stage to build")
	fs.StringVar(&o.network, "network", "default", "Set the networking mode for the \"RUN\" instructions during build")
	fs.StringArrayVar(&o.platforms, "platform", nil, "Set target platforms for build (default $DOCKER_DEFAULT_PLATFORM)")
	fs.StringVar(&o.iidfile, "iidfile", "", "Write the image ID to a file")
	fs.BoolVar(&o.noCache, "no-cache", false, "Do not use cache when building the image")
	fs.BoolVar(&o.pull, "pull", false, "Always attempt to pull all referenced images")
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Suppress the build output and print image ID on success")
	fs.VarP(flag.Size(&o.memory, false), "memory", "m", "Memory limit")
	fs.Var(flag.Size(&o.swap, true), "memory-swap", "Swap limit equal to memory plus swap: -1 to enable unlimited swap")
	fs.Var(flag.Size(&o.shm, false), "shm-size", "Shared memory size for build containers")
	fs.Int64VarP(&o.cpuShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	fs.Int64Var(&o.period, "cpu-period", 0, "Limit the CPU CFS (Completely Fair Scheduler) period")
	fs.Int64Var(&o.quota, "cpu-quota", 0, "Limit the CPU CFS (Completely Fair Scheduler) quota")
	fs.StringVar(&o.cpus, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	fs.StringVar(&o.mems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	fs.StringVar(&o.parent, "cgroup-parent", "", "Set the parent cgroup for the \"RUN\" instructions during build")
	o.showing.flags(fs, s)
	o.calling.flags(fs)
	o.secrets.flags(fs)
	o.contexts.flags(fs)
	o.outputs.flags(fs)
	return cmd
}

// platform lists what is built for.
func (o *options) platform(s *session.Session) string {
	if len(o.platforms) == 0 {
		return s.Env("DOCKER_DEFAULT_PLATFORM")
	}
	return strings.Join(o.platforms, ",")
}

// query is what the daemon is told beside the context.
func (o *options) query(s *session.Session, dockerfile string) (url.Values, error) {
	q := url.Values{"dockerfile": {dockerfile}, "t": o.tags, "networkmode": {o.network}, "rm": {"1"}}
	for name, text := range map[string]string{"target": o.target, "platform": o.platform(s), "cpusetcpus": o.cpus, "cpusetmems": o.mems, "cgroupparent": o.parent} {
		if text != "" {
			q.Set(name, text)
		}
	}
	for name, on := range map[string]bool{"nocache": o.noCache, "pull": o.pull, "q": o.quiet} {
		if on {
			q.Set(name, "1")
		}
	}
	for name, n := range map[string]int64{"memory": o.memory, "memswap": o.swap, "shmsize": o.shm, "cpushares": o.cpuShares, "cpuperiod": o.period, "cpuquota": o.quota} {
		if n != 0 {
			q.Set(name, strconv.FormatInt(n, 10))
		}
	}
	o.allowed.apply(q)
	api, err := s.API()
	if err = errors.Join(err, o.settings.apply(q), o.calling.apply(q), o.caches.apply(q)); err != nil {
		return nil, err
	}
	args := arguments(s, epoch(s, o.args), s.Config().ProxyEnv(api.Host()))
	labels := map[string]string{}
	for _, kv := range o.labels {
		k, v, _ := strings.Cut(kv, "=")
		labels[k] = v
	}
	for name, v := range map[string]any{"buildargs": args, "labels": labels} {
		text, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		q.Set(name, string(text))
	}
	return q, nil
}

func (o *options) build(ctx context.Context, s *session.Session, place string) error {
	api, err := s.API()
	if err != nil {
		return err
	}
	if o.iidfile != "" { // a build that fails leaves no old one
		if err := os.Remove(o.iidfile); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	asks, err := api.Images.Asks(ctx)
	if err != nil {
		return err
	}
	if asks && s.Env("DOCKER_BUILDKIT") != "0" {
		return o.ask(ctx, s, api, place)
	}
	return o.classic(ctx, s, api, place, asks)
}
