// Package builds builds images for the engine: it takes a context and what a client asked for, and has it carried out.
//
// It reads no Dockerfile and runs nothing itself (package build and those below it do). Invariant: a build leaves nothing behind but what the
// build cache keeps and the image that was asked for.
package builds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"berth/archive"
	"berth/archive/compress"
	"berth/build"
	"berth/build/dockerfile"
	"berth/engine/images"
	"berth/engine/request"
	"berth/fault"
	"berth/image"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
	wire "github.com/moby/moby/api/types/registry"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Service builds. The fields are set once, before it is used.
type Service struct {
	Builder *build.Builder
	Images  *images.Service
	Dir     string // for contexts; it is emptied at the start
}

// Options are what a client asked for.
type Options struct {
	Dockerfile string // in the context; "": Dockerfile
	Text       []byte // of the Dockerfile, when it is not in the context
	Tags       []string
	Args       map[string]string
	Labels     map[string]string
	Target     string
	Platform   *ocispec.Platform
	Network    string
	NoCache    bool
	Pull       bool // look for newer base images
	Settings   build.Settings
	Auth       map[string]wire.AuthConfig // by registry, as in X-Registry-Config
}

// Teller hears of a build. Calls come one at a time.
type Teller struct {
	Plan  func(*dockerfile.Plan)
	Event func(build.Event)
	Warn  func(dockerfile.Warning)
	Pull  func(jsonstream.Message)
}

// Build builds an image from a context, an archive of any compression; nil: there is none.
func (s *Service) Build(ctx context.Context, o Options, body io.Reader, t Teller) (img *image.Image, err error) {
	tags, err := parseTags(o.Tags)
	if err != nil {
		return nil, err
	}
	if o.Dockerfile == "" {
		o.Dockerfile = "Dockerfile"
	}
	dir, err := s.context(ctx, body)
	if err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, dir.Close(), os.RemoveAll(dir.Name()))
	}()
	if o.Text == nil {
		if o.Text, err = readDockerfile(dir, o.Dockerfile); err != nil {
			return nil, err
		}
	}
	ignored, err := readIgnored(dir, o.Dockerfile)
	if err != nil {
		return nil, err
	}
	file, err := dockerfile.Parse(o.Text, dockerfile.Options{
		Name: path.Base(o.Dockerfile), Target: o.Target, Args: o.Args, Labels: o.Labels, Platform: o.Platform, Host: image.Host(), Network: o.Network,
		Ignored: ignored, Warn: t.Warn, NoCache: func(string) bool { return o.NoCache },
		Signal: func(name string) error { _, err := request.Signal(name); return err },
	})
	if err != nil {
		return nil, err
	}
	plan, err := file.Plan(ctx, &bases{s, o, t})
	if err != nil {
		return nil, err
	}
	t.Plan(plan)
	img, err = s.Builder.Build(ctx, build.Request{Plan: plan, Context: dir, Tags: tags, NoCache: o.NoCache, Settings: o.Settings, Tell: t.Event})
	if err != nil {
		return nil, err
	}
	for _, tag := range tags {
		s.Images.Announce(events.ActionTag, img.ID.String(), reference.FamiliarString(tag))
	}
	return img, nil
}

func parseTags(list []string) (all []reference.NamedTagged, err error) {
	for _, t := range list {
		named, err := images.TargetName(t, "")
		if err != nil {
			return nil, err
		}
		all = append(all, named)
	}
	return all, nil
}

// context unpacks what came, into a directory of the build's own.
func (s *Service) context(ctx context.Context, body io.Reader) (dir *os.File, err error) {
	at, err := os.MkdirTemp(s.Dir, "context-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(at))
		}
	}()
	if dir, err = os.Open(at); err != nil || body == nil {
		return dir, err
	}
	plain, _, err := compress.Open(body)
	if err == nil {
		_, err = archive.Unpack(ctx, plain, dir, archive.UnpackOptions{Into: "/", Owner: &archive.Owner{}, Budget: archive.NewBudget(0, 0)})
		err = errors.Join(err, plain.Close())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read the build context: %w", err), dir.Close())
	}
	return dir, nil
}

// maxDockerfile is how long one may be, in bytes.
const maxDockerfile = 16 << 20

func readDockerfile(dir *os.File, name string) ([]byte, error) {
	text, err := archive.ReadFile(dir, name, maxDockerfile)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fault.New(fault.Invalid, "Cannot locate specified Dockerfile: %s", name)
	}
	return text, err
}

// readIgnored reads the ignore file: that of the Dockerfile's own name, or .dockerignore.
func readIgnored(dir *os.File, name string) (ignored func(string) bool, err error) {
	for _, file := range []string{name + ".dockerignore", ".dockerignore"} {
		text, err := archive.ReadFile(dir, file, maxDockerfile)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		patterns, err := ignorefile.ReadAll(strings.NewReader(string(text)))
		if err != nil {
			return nil, fault.New(fault.Invalid, "error reading %s: %w", file, err)
		}
		m, err := patternmatcher.New(patterns)
		if err != nil {
			return nil, fault.New(fault.Invalid, "error reading %s: %w", file, err)
		}
		if m.Exclusions() { // a directory that is left out may have files that are not
			return nil, nil
		}
		return func(p string) bool {
			out, err := m.MatchesOrParentMatches(filepath.FromSlash(p))
			return err == nil && out
		}, nil
	}
	return nil, nil
}

// bases finds a build's base images.
type bases struct {
	*Service
	o Options
	t Teller
}

// Image implements dockerfile.Resolver.
func (b *bases) Image(ctx context.Context, name string, platform ocispec.Platform) (*dockerfile.Image, error) {
	var wanted *ocispec.Platform
	if platform.OS != image.Host().OS || platform.Architecture != image.Host().Architecture {
		wanted = &platform
	}
	img, err := b.Images.ForCreate(ctx, name, wanted)
	if errors.Is(err, fault.NotFound) || err == nil && b.o.Pull && len(img.Digests()) > 0 {
		pullErr := b.pull(ctx, name, wanted)
		if pullErr != nil && err != nil {
			return nil, pullErr
		}
		if pullErr == nil {
			img, err = b.Images.ForCreate(ctx, name, wanted)
		}
	}
	if err != nil {
		return nil, err
	}
	return &dockerfile.Image{Name: name, Digest: img.ID, Config: img.Config, Handle: img}, nil
}

func (b *bases) pull(ctx context.Context, name string, platform *ocispec.Platform) error {
	r := images.PullRequest{Ref: name, Platform: platform}
	named, err := image.ParseName(name)
	if err != nil {
		return err
	}
	r.Auth = images.ForHost(b.o.Auth, named)
	return b.Images.Pull(ctx, r, b.t.Pull)
}

// Open makes the service ready: what an engine that died left of contexts goes.
func (s *Service) Open() error {
	if err := os.RemoveAll(s.Dir); err != nil {
		return fmt.Errorf("clear away old build contexts: %w", err)
	}
	return os.MkdirAll(s.Dir, 0o700)
}
