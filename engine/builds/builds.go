// Package builds builds images for the engine: it takes a context and what a client asked for, and has it carried out.
//
// It reads no Dockerfile and runs nothing itself (package build and those below it do). Invariant: a build leaves nothing behind but what the
// build cache keeps and the image that was asked for.
package builds

import (
	"bytes"
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
	"berth/build/contexts"
	"berth/build/dockerfile"
	"berth/build/output"
	"berth/engine/images"
	"berth/fault"
	"berth/image"

	"github.com/moby/moby/api/types/jsonstream"
	wire "github.com/moby/moby/api/types/registry"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Service builds. The fields are set once, before it is used.
type Service struct {
	Builder  *build.Builder
	Images   *images.Service
	Caches   *Caches
	Dir      string          // for contexts; what is of a build goes at the start
	Contexts *contexts.Store // in Dir, when the service is open
	Ended    func()          // hears of the end of each build; may be nil
	Granted  Grants

	writer *output.Writer
}

// Options are what a client asked for.
type Options struct {
	Dockerfile string // in the context; "": Dockerfile
	Remote     string // the address of the context; "": the client has it
	Text       []byte // of the Dockerfile; nil: it is in the context
	Ignore     []byte // of the ignore file
	Tags       []string
	Args       map[string]string
	Labels     map[string]string
	Target     string
	Platforms  []ocispec.Platform // none: the machine's own; several become an index
	Squash     bool               // what lies above the base image becomes one layer
	Attest     map[string]string  // what is attested of the result: by kind, such as provenance, its options (mode=min)
	Network    string
	Allow      []string // entitlements: network.host, security.insecure
	NoCache    bool
	NoCacheFor []string          // stages to which NoCache applies alone
	Named      map[string]string // further contexts, by name or name::platform
	CacheFrom  []CacheSpec
	CacheTo    []CacheSpec
	Pull       bool // look for newer base images
	Settings   build.Settings
	Auth       map[string]wire.AuthConfig // by registry, as in X-Registry-Config
}

// Teller hears of a build. Calls of one kind come one at a time; each but Plan and Event may be nil.
type Teller struct {
	Read  func(file string, text []byte, platforms int) // the Dockerfile, before all that concerns it, and for how many platforms it is built
	Plan  func(*dockerfile.Plan)                        // once for each platform, before the first event
	Event func(build.Event)
	Warn  func(dockerfile.Warning)
	Pull  func(jsonstream.Message)
	Push  func(jsonstream.Message)
	Put   func(output, what string) (end func(error)) // something began that puts an output out, such as "exporting layers"
	Work  func(Work)                                  // what is no step; may be called concurrently
	Fail  func(error)                                 // why there is no result
}

// Build builds an image from a context, an archive of any compression; nil: there is none.
func (s *Service) Build(ctx context.Context, o Options, body io.Reader, t Teller) (img *image.Image, err error) {
	outputs := []Output{{Type: "image", Attrs: map[string]string{"name": strings.Join(o.Tags, ",")}}} // the classic builder has no other
	if err := CheckOutputs(outputs); err != nil {
		return nil, err
	}
	if o.Remote != "" {
		body = nil
	}
	dir, err := s.context(ctx, body)
	if err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, removeContext(dir))
	}()
	if o.Text == nil && o.Remote == "" {
		if err := o.readFrom(dir); err != nil {
			return nil, err
		}
		if err := o.leaveOut(dir); err != nil {
			return nil, err
		}
	}
	client := &sent{dir, o.Auth}
	solved, err := s.Solve(ctx, o, client, t)
	if err != nil {
		return nil, err
	}
	defer solved.Release()
	answer, err := s.Export(ctx, solved, outputs, client, t)
	if err != nil {
		return nil, err
	}
	return s.Images.Store.Get(answer["containerimage.digest"])
}

// Unpack unpacks an archive of any compression into a directory that the caller closes and removes.
func (s *Service) Unpack(ctx context.Context, body io.Reader) (*os.File, error) {
	return s.context(ctx, body)
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

func removeContext(dir *os.File) error { return errors.Join(dir.Close(), os.RemoveAll(dir.Name())) }

// maxDockerfile is how long one may be, in bytes.
const maxDockerfile = 16 << 20

// readFrom reads the Dockerfile and the ignore file from a context.
func (o *Options) readFrom(dir *os.File) (err error) {
	if o.Dockerfile == "" {
		o.Dockerfile = "Dockerfile"
	}
	o.Text, err = archive.ReadFile(dir, o.Dockerfile, maxDockerfile)
	if errors.Is(err, os.ErrNotExist) {
		return fault.New(fault.Invalid, "Cannot locate specified Dockerfile: %s", o.Dockerfile)
	}
	if err != nil {
		return err
	}
	for _, file := range []string{o.Dockerfile + ".dockerignore", ".dockerignore"} {
		o.Ignore, err = archive.ReadFile(dir, file, maxDockerfile)
		if !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// ignored tells what the ignore file leaves out; nil when it can't be told of a single path.
func (o *Options) ignored() (func(string) bool, error) {
	m, err := o.ignoring()
	if err != nil {
		return nil, err
	}
	if m.Exclusions() { // a directory that is left out may have files that are not
		return nil, nil
	}
	return func(p string) bool {
		out, err := m.MatchesOrParentMatches(filepath.FromSlash(p))
		return err == nil && out
	}, nil
}

// bases finds a build's base images.
type bases struct {
	*Service
	o      Options
	client Client
	t      Teller

	contexts map[string]*dockerfile.Base // those that were found, by name
}

// Image implements dockerfile.Resolver.
func (b *bases) Image(ctx context.Context, name string, platform ocispec.Platform) (_ *dockerfile.Image, err error) {
	end := b.t.Begin(metadata(name))
	defer func() { end(err) }()
	wanted := foreign(platform)
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

// foreign is a platform that is not the machine's own, or nil.
func foreign(p ocispec.Platform) *ocispec.Platform {
	if host := image.Host(); p.OS == host.OS && p.Architecture == host.Architecture {
		return nil
	}
	return &p
}

func (b *bases) pull(ctx context.Context, name string, platform *ocispec.Platform) error {
	r := images.PullRequest{Ref: name, Platform: platform}
	named, err := image.ParseName(name)
	if err != nil {
		return err
	}
	if r.Auth, err = b.client.Credentials(ctx, named); err != nil {
		return err
	}
	return b.Images.Pull(ctx, r, b.t.pulling(metadata(name)))
}

// Open makes the service ready: what an engine that died left of builds goes.
func (s *Service) Open() (err error) {
	s.writer = &output.Writer{Layers: s.Builder.Layers, NewID: s.Builder.NewID}
	s.Contexts, err = contexts.Open(s.Dir)
	return err
}

// ignoring reads the ignore file.
func (o *Options) ignoring() (*patternmatcher.PatternMatcher, error) {
	patterns, err := ignorefile.ReadAll(bytes.NewReader(o.Ignore))
	if err != nil {
		return nil, fault.New(fault.Invalid, "error reading the ignore file: %w", err)
	}
	m, err := patternmatcher.New(patterns)
	if err != nil {
		return nil, fault.New(fault.Invalid, "error reading the ignore file: %w", err)
	}
	return m, nil
}

// leaveOut removes what a client sent for the builder alone: the Dockerfile and the ignore files, where the ignore file names them. They were read.
func (o *Options) leaveOut(dir *os.File) (err error) {
	m, err := o.ignoring()
	if err != nil {
		return err
	}
	top, err := os.OpenRoot(dir.Name())
	if err != nil {
		return err
	}
	defer fault.Close(top, &err)
	for _, name := range []string{o.Dockerfile, o.Dockerfile + ".dockerignore", ".dockerignore"} {
		name = strings.TrimPrefix(path.Clean("/"+name), "/")
		if out, err := m.MatchesOrParentMatches(name); err != nil || !out {
			continue // of the wrong pattern that gives an error, the client has told
		}
		if err := top.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("leave %s out of the build context: %w", name, err)
		}
	}
	return nil
}
