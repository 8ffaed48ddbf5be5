package builds

import (
	"context"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"berth/build"
	"berth/build/dockerfile"
	"berth/engine/images"
	"berth/engine/machine"
	"berth/engine/request"
	"berth/fault"
	"berth/image"

	"github.com/distribution/reference"
	wire "github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Client is whoever asked for a build, as far as he is asked back.
type Client interface {
	build.Client
	// Output opens where an output's content goes, a tar; the caller closes it. name is that of the output.
	Output(ctx context.Context, name string) (io.WriteCloser, error)
	// Credentials gives what a registry wants; empty when the client knows none.
	Credentials(ctx context.Context, name reference.Named) (wire.AuthConfig, error)
}

// Solved is a build's result before it is put out. It holds its layers until it is released.
type Solved struct {
	Results []*build.Result // one for each platform

	caches     []exchange  // where its steps' results go
	several    bool        // a list of platforms was asked for, be it one long
	provenance *provenance // nil: none is attested
	ended      func()      // hears that nothing of it is used any more; may be nil
	sweep      func()      // frees what was written for outputs that are no image here; nil: there was none
}

// Release gives up what no image came to need.
func (s *Solved) Release() {
	for _, r := range s.Results {
		r.Release()
	}
	if s.sweep != nil {
		s.sweep()
	}
	if s.ended != nil {
		s.ended()
	}
}

// Solve carries out the Dockerfile o.Text, for each platform. The caller releases what comes of it.
func (s *Service) Solve(ctx context.Context, o Options, client Client, t Teller) (_ *Solved, err error) {
	asked := o.Allow
	if o.Network == "host" { // for all programs at once
		asked = append(asked[:len(asked):len(asked)], dockerfile.NetworkHost)
	}
	if err := s.Granted.Check(asked); err != nil {
		return nil, err
	}
	caches, err := o.checkCaches()
	if err != nil {
		return nil, err
	}
	defer func() { t.fail(err) }()
	if o.Remote == "" {
		client = watched{client, t}
	} else {
		far, err := s.elsewhere(ctx, &o, client, t)
		if err != nil {
			return nil, err
		}
		defer far.leave(s.Builder.Log)
		client = far
	}
	t.read(o)
	var plans []*dockerfile.Plan
	for _, p := range o.targets() {
		plan, err := s.plan(ctx, o, p, client, t)
		if err != nil {
			return nil, err
		}
		plans = append(plans, plan)
		t.Warn = func(dockerfile.Warning) {} // the others have the same
	}
	for _, p := range plans {
		t.Plan(p)
	}
	solved := &Solved{several: len(plans) > 1 || isOn(o.Args["BUILDKIT_MULTI_PLATFORM"]), caches: caches, ended: s.Ended}
	here := s.Images.Store.Draft()
	defer here.Release()
	imports := s.imports(ctx, here, o.CacheFrom, client, t)
	if solved.provenance, err = o.attested(s.Builder.NewID); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			solved.Release()
		}
	}()
	for _, p := range plans { // one after the other: what they share is done once
		result, err := s.Builder.Build(ctx, build.Request{Plan: p, Client: client, NoCache: o.NoCache, Imports: imports, Settings: o.Settings, Tell: t.Event})
		if err != nil {
			return nil, err
		}
		solved.Results = append(solved.Results, result)
		if !o.Squash {
			continue
		}
		solved.sweep = s.sweep // the output may be none that keeps it
		end := t.Begin("squashing layers")
		err = s.writer.Squash(ctx, result)
		if end(err); err != nil {
			return nil, err
		}
	}
	solved.provenance.end()
	return solved, nil
}

// runs refuses programs that this machine can't run.
func runs(p ocispec.Platform) error {
	if machine.Runs(p.Architecture) {
		return nil
	}
	host := image.FormatPlatform(image.Host())
	return fault.New(fault.Unsupported, "RUN for %s on a machine that is %s: no emulator is registered with binfmt_misc: install one (Debian's package qemu-user-static, or qemu-user-binfmt), leave RUN to stages FROM --platform=$BUILDPLATFORM, or build for %s",
		image.FormatPlatform(p), host, host)
}

// fresh tells whether a stage is built without the cache.
func (o *Options) fresh(stage string) bool {
	return o.NoCache || slices.ContainsFunc(o.NoCacheFor, func(s string) bool { return strings.EqualFold(s, stage) })
}

// isOn tells an argument that switches something on.
func isOn(value string) bool {
	on, err := strconv.ParseBool(value)
	return err == nil && on
}

// targets are the platforms that are built for; nil is whatever there is.
func (o *Options) targets() (list []*ocispec.Platform) {
	for _, p := range o.Platforms {
		if !slices.ContainsFunc(list, func(have *ocispec.Platform) bool { return image.FormatPlatform(*have) == image.FormatPlatform(p) }) {
			list = append(list, &p)
		}
	}
	if len(list) == 0 {
		list = []*ocispec.Platform{nil}
	}
	return list
}

// plan reads the Dockerfile for one platform.
func (s *Service) plan(ctx context.Context, o Options, platform *ocispec.Platform, client Client, t Teller) (*dockerfile.Plan, error) {
	ignored, err := o.ignored()
	if err != nil {
		return nil, err
	}
	b := &bases{Service: s, o: o, client: client, t: t}
	file, err := dockerfile.Parse(o.Text, dockerfile.Options{
		Name: path.Base(o.Dockerfile), Target: o.Target, Args: o.Args, Labels: o.Labels, Platform: platform, Host: image.Host(), Network: o.Network,
		Ignored: ignored, Warn: t.Warn, Named: b.named, NoCache: o.fresh,
		Allow: entitled(o.Allow), Runs: runs, Signal: func(name string) error { _, err := request.Signal(name); return err },
	})
	if err != nil {
		return nil, err
	}
	return file.Plan(ctx, b)
}

// sent is a client that has sent all that it has.
type sent struct {
	dir  *os.File
	auth map[string]wire.AuthConfig
}

// Files implements build.Client.
func (s *sent) Files(_ context.Context, name string, _ []string) (*build.Files, error) {
	if name != "" {
		return nil, fault.New(fault.NotFound, "there is no build context %q", name)
	}
	return &build.Files{Top: s.dir}, nil
}

// Secret implements build.Client.
func (s *sent) Secret(_ context.Context, id string) ([]byte, error) {
	return nil, fault.New(fault.NotFound, "secret %s: not found", id)
}

// Agent implements build.Client.
func (s *sent) Agent(_ context.Context, id string) (io.ReadWriteCloser, error) {
	return nil, fault.New(fault.NotFound, "unset ssh forward key %s", id)
}

// Output implements Client.
func (s *sent) Output(_ context.Context, name string) (io.WriteCloser, error) {
	return nil, fault.New(fault.Unsupported, "output %s: a client of the classic builder gets an image only", name)
}

// Credentials implements Client.
func (s *sent) Credentials(_ context.Context, name reference.Named) (wire.AuthConfig, error) {
	return images.ForHost(s.auth, name), nil
}
