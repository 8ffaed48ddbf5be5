package engine

import (
	"context"
	"errors"
	"time"

	"berth/container"
	"berth/engine/bundle"
	"berth/engine/stream"
	"berth/engine/toolbox"
	"berth/fault"
	"berth/image"
	"berth/oci"
	"berth/union"

	api "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Insight looks into containers from outside.
type Insight struct{ containers *Containers }

// DebugRequest is a process with tools at its side, in a container that has none. Without Cmd and Script
// it is the tools' shell.
type DebugRequest struct {
	toolbox.Session
	Image string // whose programs are the tools; "": one that is here
}

// DebugResponse tells what was prepared: an exec to be started, in a container that runs; or else a container
// to be started, which is removed when it ends, and when it isn't started soon.
type DebugResponse struct {
	Exec      string `json:",omitempty"`
	Container string `json:",omitempty"`
	Image     string // that the tools are from
	Tools     string // where they are
	Files     string // where the container's are
}

// Debug prepares a process with tools in a container that runs, or in a new one with the files of ref: a container that
// doesn't run, or an image. What it writes there is discarded at its end. fault.NotFound: no such container or image, or no image with
// tools that run anywhere.
func (s *Insight) Debug(ctx context.Context, ref string, r DebugRequest) (none DebugResponse, err error) {
	c := s.containers
	if _, err := stream.ParseKeys(r.DetachKeys); err != nil {
		return none, err
	}
	if r.Script != "" && len(r.Cmd) > 0 {
		return none, invalid("conflicting options: a command and a script for the shell")
	}
	if r.User == "" {
		r.User = "0" // whoever the container runs as, its troubles are hardly seen with few rights
	}
	i, err := c.index.Get(ref)
	if errors.Is(err, fault.NotFound) {
		img, imgErr := c.images.ForCreate(ctx, ref, nil)
		if imgErr != nil {
			return none, fault.New(fault.NotFound, "No such container or image: %s", ref)
		}
		config := &api.Config{Image: img.ID.String(), Env: img.Config.Config.Env}
		return s.debugNew(ctx, config, &api.HostConfig{}, "", ref, r)
	}
	if err != nil {
		return none, err
	}
	if rec := i.record(); !rec.State.Status.Alive() && rec.State.Status != container.Restarting {
		config, host, err := toolbox.Like(rec)
		if err != nil {
			return none, err
		}
		return s.debugNew(ctx, config, host, rec.ID, rec.Name, r)
	}
	if name := i.record().HostConfig.Runtime; name != "" {
		if _, own, err := c.defaults.Runtimes.Find(name); err != nil || !own {
			return none, errors.Join(err, fault.New(fault.Unsupported, "container %s is run by %s, which gives no tools to a process: only containers of --runtime berth can be debugged while they run", ref, name))
		}
	}
	live, err := c.runnable(i, i.id)
	if err != nil {
		return none, err
	}
	img, kit, err := c.findTools(r.Image, true)
	if err != nil {
		return none, err
	}
	r.Cmd = r.Command(kit, kit.Place())
	e := c.prepare(i, live, r.ExecCreateRequest)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tools = func(spec *oci.ExecSpec) (release func(), err error) {
		m, err := c.lender().Hold(e.id, img, toolbox.Side)
		kit.Lend(spec, m)
		return func() { c.logged("let tools go", c.lender().LetGo(e.id)) }, err
	}
	return DebugResponse{Exec: e.id, Image: imageName(img), Tools: kit.Place(), Files: "/" + kit.Rooted}, nil
}

func imageName(img *image.Image) string {
	if tags := img.Tags(); len(tags) > 0 {
		return tags[0]
	}
	return img.ID.String()
}

// debugNew makes a container for the process; of is the one whose written files lie below its own, "" for none.
func (s *Insight) debugNew(ctx context.Context, config *api.Config, host *api.HostConfig, of, name string, r DebugRequest) (DebugResponse, error) {
	c := s.containers
	img, kit, err := c.findTools(r.Image, false)
	if err != nil {
		return DebugResponse{}, err
	}
	toolbox.Furnish(config, host, name, &r.Session, kit)
	id, _, err := c.Create(ctx, "", CreateRequest{Config: config, HostConfig: host,
		Settings: container.Settings{Debug: &container.Debug{Tools: img.ID.String(), Of: of}}})
	if err != nil {
		return DebugResponse{}, err
	}
	c.watchers.Go(func() {
		const patience = 30 * time.Second // for the client, which may have died
		timer := time.NewTimer(patience)
		defer timer.Stop()
		select {
		case <-c.life.Done():
		case <-timer.C:
			s.sweep(c.life, id)
		}
	})
	return DebugResponse{Container: id, Image: imageName(img), Tools: toolbox.Fresh, Files: "/"}, nil
}

// sweep removes containers for tools that were never started: the one of that id, or, for "", all.
func (s *Insight) sweep(ctx context.Context, id string) {
	c := s.containers
	for _, i := range c.index.All() {
		if r := i.record(); r.Settings.Debug != nil && r.State.Status == container.Created && (id == "" || id == i.id) {
			c.logged("remove an unused container for tools", c.Remove(ctx, i.id, RemoveOptions{Volumes: true}))
		}
	}
}

func (c *shared) lender() toolbox.Lender { return toolbox.Lender{Layers: c.layers} }

// findTools finds the image that a user wants, or one that will do; rooted: its programs may need it as their root.
func (c *shared) findTools(wanted string, rooted bool) (*image.Image, toolbox.Kit, error) {
	if wanted == "" {
		all, err := c.images.Store.List()
		if err != nil {
			return nil, toolbox.Kit{}, err
		}
		return c.lender().Choose(all, rooted)
	}
	img, err := c.images.Store.Get(wanted)
	if err != nil {
		return nil, toolbox.Kit{}, err
	}
	kit, err := c.lender().Look(img)
	if err != nil {
		return nil, kit, fault.New(fault.Invalid, "image %s can't lend tools: %w", wanted, err)
	}
	if kit.Rooted != "" && !rooted {
		return nil, kit, fault.New(fault.Invalid, "image %s can lend tools only to a container that runs: %s", wanted, kit.Why)
	}
	return img, kit, nil
}

// addTools completes the facts of a container that was made for tools: what another one wrote lies below what it
// writes itself.
func (c *shared) addTools(r *container.Record, f *bundle.Facts) (specs.Mount, error) {
	d := r.Settings.Debug
	if d.Of != "" {
		other, err := c.index.Get(d.Of)
		if err != nil {
			return specs.Mount{}, err
		}
		if o := other.record(); o.State.Status.Alive() {
			return specs.Mount{}, fault.New(fault.Conflict, "container %s was started meanwhile: debug it again", o.Name)
		}
		if f.Root, err = union.Beneath(c.layers, r.ID, d.Of); err != nil {
			return specs.Mount{}, err
		}
	}
	img, err := c.images.Store.Get(d.Tools)
	if err != nil {
		return specs.Mount{}, err
	}
	return c.lender().Hold(r.ID, img, toolbox.Fresh) // until it is erased
}
