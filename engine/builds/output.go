package builds

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"berth/build/output"
	"berth/engine/images"
	"berth/fault"
	"berth/image"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Output is one way in which what was built is put out.
type Output struct {
	Name  string            // by which the client is asked where it goes; no two of a build are alike
	Type  string            // image, registry, oci, docker, local, tar or cacheonly
	Attrs map[string]string // options, as BuildKit's exporters have them
}

// CheckOutputs refuses outputs that there are none of, before anything is built.
func CheckOutputs(list []Output) error {
	for _, o := range list {
		if _, err := o.wish(); err != nil {
			return err
		}
	}
	return nil
}

// Export puts a result out, in all the ways that are asked for, and gives what BuildKit's exporters answer: containerimage.digest,
// containerimage.config.digest, containerimage.descriptor and image.name as far as there is an image. One that fails leaves those before it.
func (s *Service) Export(ctx context.Context, solved *Solved, list []Output, client Client, t Teller) (map[string]string, error) {
	var wishes []*wish
	for _, o := range list {
		w, err := o.wish()
		if err != nil {
			return nil, err
		}
		if err := w.suits(solved); err != nil {
			return nil, err
		}
		wishes = append(wishes, w)
	}
	if t.Push == nil {
		t.Push = func(jsonstream.Message) {}
	}
	answer := map[string]string{}
	for _, w := range wishes {
		if w.Type == "oci" || w.Type == "docker" || w.Type == "image" && (!w.store || w.form.Rewrite) {
			solved.sweep = s.sweep
		}
		e := &export{s, solved, client, t, w, answer}
		end := t.Begin(exporting(w.Output.Type))
		err := e.run(ctx)
		if end(err); err != nil {
			return nil, err
		}
	}
	return answer, s.exportCaches(ctx, solved, client, t)
}

// sweep frees what was written for outputs, and is nobody's any more.
func (s *Service) sweep() {
	if _, err := s.Images.Store.Sweep(context.Background()); err != nil {
		s.Builder.Log.Warn("what was written for a build's outputs stays until the next prune", "error", err)
	}
}

// export is one output under way.
type export struct {
	*Service
	solved *Solved
	client Client
	t      Teller
	*wish
	answer map[string]string
}

// step tells that something begins, and gives what tells that it ended.
func (e *export) step(format string, args ...any) (end func(error) error) {
	if e.t.Put == nil {
		return func(err error) error { return err }
	}
	told := e.t.Put(e.Output.Type, fmt.Sprintf(format, args...))
	return func(err error) error {
		told(err)
		return err
	}
}

func (e *export) run(ctx context.Context) error {
	switch e.Type {
	case "cacheonly":
		return nil
	case "local", "tar":
		return e.send(ctx, "copying files", func(w io.Writer) error {
			return e.writer.Tree(ctx, w, e.solved.Results, e.split(e.solved))
		})
	}
	made, err := e.assemble(ctx)
	if err != nil {
		return err
	}
	if e.Type == "image" {
		err = e.keep(ctx, made)
	} else {
		err = e.send(ctx, "sending tarball", func(w io.Writer) error {
			var tags []reference.NamedTagged
			for _, n := range e.names {
				if tagged, ok := n.(reference.NamedTagged); ok {
					tags = append(tags, tagged)
				}
			}
			return e.solved.Results[0].Draft().Save(ctx, w, made.Target, tags, e.Type == "docker")
		})
	}
	if err != nil {
		return err
	}
	return e.tell(made)
}

// assemble writes the image down.
func (e *export) assemble(ctx context.Context) (made output.Image, err error) {
	end := e.step("exporting layers")
	f := e.form
	f.Index = e.solved.several
	for _, n := range e.names {
		f.Names = append(f.Names, n.String())
	}
	var parts []output.Part
	for _, r := range e.solved.Results {
		p := output.Part{Result: r}
		if e.solved.inline() {
			if p.Config, err = inlineCacheOf(r); err != nil {
				return made, end(err)
			}
		}
		if e.solved.provenance != nil && (e.Type == "image" || !e.solved.provenance.inline) {
			s, err := e.solved.origin(r)
			if err != nil {
				return made, end(err)
			}
			p.Statements = append(p.Statements, s)
		}
		parts = append(parts, p)
	}
	made, err = e.writer.Image(ctx, e.solved.Results[0].Draft(), parts, f)
	return made, end(err)
}

// tell says what there is now.
func (e *export) tell(made output.Image) error {
	if e.answer["containerimage.digest"] != "" && e.Type != "image" {
		return nil // the image that is kept is the one to know of
	}
	text, err := json.Marshal(made.Target)
	if err != nil {
		return err
	}
	e.answer["containerimage.digest"], e.answer["containerimage.descriptor"] = made.Target.Digest.String(), base64.StdEncoding.EncodeToString(text)
	if made.Config != "" {
		e.answer["containerimage.config.digest"] = made.Config.String()
	}
	var names []string
	for _, n := range e.names {
		names = append(names, n.String())
	}
	if len(names) > 0 {
		e.answer["image.name"] = strings.Join(names, ",")
	}
	return nil
}

// keep makes an image of this engine's of what was written down, and sends it where it shall go.
func (e *export) keep(ctx context.Context, made output.Image) error {
	draft := e.solved.Results[0].Draft()
	if e.store {
		end := e.step("writing image %s", made.Target.Digest)
		names, err := e.localNames(made.Target)
		var img *image.Image
		if err == nil {
			img, err = draft.Name(made.Target, names)
		}
		if err := end(err); err != nil {
			return err
		}
		for _, n := range names {
			if err := e.step("naming to %s", n)(nil); err != nil {
				return err
			}
			e.Images.Announce(events.ActionTag, img.ID.String(), reference.FamiliarString(n))
		}
	}
	if !e.push {
		return nil
	}
	for _, n := range e.names {
		if e.byDigest {
			n = reference.TrimNamed(n)
		}
		end := e.step("pushing %s", n)
		auth, err := e.client.Credentials(ctx, n)
		if err == nil {
			err = e.Images.PushDraft(ctx, draft, made.Target, images.PushRequest{Ref: n, Auth: auth}, e.insecure, e.t.Push)
		}
		if err := end(err); err != nil {
			return fmt.Errorf("failed to push %s: %w", reference.FamiliarString(n), err)
		}
	}
	return nil
}

// localNames are the names that the image gets here.
func (e *export) localNames(target ocispec.Descriptor) (all []reference.Named, err error) {
	canonical := func(n reference.Named) error {
		c, err := reference.WithDigest(reference.TrimNamed(n), target.Digest)
		all = append(all, c)
		return err
	}
	for _, n := range e.names {
		if !e.byDigest {
			all = append(all, n)
		}
		if e.canonical {
			err = errors.Join(err, canonical(n))
		}
	}
	if e.dangling != nil && (len(e.names) == 0 || !e.danglingOnly) {
		err = errors.Join(err, canonical(e.dangling))
	}
	return all, err
}

// send asks the client where an output goes, and sends it there.
func (e *export) send(ctx context.Context, what string, write func(io.Writer) error) error {
	end := e.step("%s", what)
	w, err := e.client.Output(ctx, e.Output.Name)
	if err != nil {
		return end(err)
	}
	stop := context.AfterFunc(ctx, func() { abort(w, context.Cause(ctx)) })
	defer stop()
	if err := write(w); err != nil {
		abort(w, err)
		return end(fmt.Errorf("send output %s: %w", e.Type, err))
	}
	if err := w.Close(); err != nil {
		return end(fmt.Errorf("send output %s: %w", e.Type, err))
	}
	return end(nil)
}

// abort ends a stream so that its reader knows that it is not whole, as far as the stream can say so.
func abort(w io.WriteCloser, cause error) {
	if c, ok := w.(interface{ CloseWithError(error) error }); ok {
		_ = c.CloseWithError(cause) // the cause is what counts
		return
	}
	_ = w.Close()
}

// suits refuses what the result can't be put out as.
func (w *wish) suits(solved *Solved) error {
	several, attested := len(solved.Results) > 1, solved.provenance != nil && !solved.provenance.inline
	switch {
	case w.Type == "docker" && (several || attested):
		return fault.New(fault.Invalid, "docker exporter does not currently support exporting manifest lists: use type=oci, or build for one platform and with --provenance=false")
	case (w.Type == "local" || w.Type == "tar") && attested:
		return fault.New(fault.Unsupported, "output type %s: attestations go with images only: leave --provenance out, or use type=image or type=oci", w.Type)
	case (w.Type == "local" || w.Type == "tar") && several && !w.split(solved):
		return fault.New(fault.Unsupported, "output type %s: platform-split=false: the files of several platforms have the same names: leave it out", w.Type)
	}
	return nil
}
