package build

import (
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/archive"
	"berth/build/dockerfile"
	"berth/fault"
	"berth/image"
	"berth/union"
)

// doing is one step under way.
type doing struct {
	*building
	s     *dockerfile.Stage
	st    *dockerfile.Step
	below []image.Layer
	key   *key

	remotes map[*dockerfile.Source]*bringer
}

// step gives the layers after a step, those below and, unless it changed nothing, one more; and when that was made.
func (w *building) step(ctx context.Context, s *dockerfile.Stage, st *dockerfile.Step, below []image.Layer) (layers []image.Layer, made time.Time, err error) {
	d := &doing{building: w, s: s, st: st, below: below}
	began := false
	defer func() {
		if err != nil {
			if !began {
				w.tell(Event{Kind: Began, Stage: s, Step: st})
			}
			failed := &StepError{Stage: s, Step: st, cause: err}
			if inner := (*StepError)(nil); errors.As(err, &inner) {
				failed = inner
			}
			w.tell(Event{Kind: Failed, Stage: s, Step: st, Err: failed})
			err = failed
		}
	}()
	defer func() { err = errors.Join(err, d.leave()) }()
	if d.key, err = d.newKey(ctx); err != nil {
		return nil, made, err
	}
	if !w.NoCache && !s.NoCache {
		end, err := w.steps.begin(ctx, d.key.hash())
		if err != nil {
			return nil, made, err
		}
		defer end()
		found, made, ok := w.Cache.find(d.key, below, w.draft)
		if !ok {
			found, made, ok = d.imported(ctx)
		}
		if ok {
			d.came(found, made)
			w.tell(Event{Kind: Cached, Stage: s, Step: st})
			return found, made, nil
		}
	}
	began = true
	w.tell(Event{Kind: Began, Stage: s, Step: st, Reason: d.reason()})
	l, err := d.do(ctx)
	if err != nil {
		return nil, made, err
	}
	made = time.Now().UTC()
	if err := w.Cache.keep(d.key, below, l, made); err != nil {
		return nil, made, err
	}
	w.tell(Event{Kind: Finished, Stage: s, Step: st})
	layers = below
	if l.DiffID != "" {
		layers = append(below[:len(below):len(below)], l)
	}
	d.came(layers, made)
	return layers, made, nil
}

// chain is the key of the files that the step begins with.
func chain(layers []image.Layer) digest.Digest {
	if len(layers) == 0 {
		return ""
	}
	all := image.Chains(layers)
	return all[len(all)-1]
}

// do makes the step's layer.
func (d *doing) do(ctx context.Context) (l image.Layer, err error) {
	id := d.NewID()
	var root union.Root
	var mounts *mounting
	brings, linked := d.st.Do.(*dockerfile.Copy)
	linked = linked && brings.Link
	if do, is := d.st.Do.(*dockerfile.Run); is {
		if mounts, err = d.mount(ctx, id, do); err == nil {
			root, err = mounts.createRoot(ctx)
		}
		defer func() { err = errors.Join(err, mounts.end()) }()
	} else {
		below := d.below
		if linked {
			below = nil
		}
		root, err = d.Layers.Create(id, chain(below), nil)
	}
	if err != nil {
		return l, err
	}
	defer func() { err = errors.Join(err, d.Layers.Delete(id)) }()
	pack := func(ctx context.Context, w io.Writer) error { return d.Pack(ctx, w, root) }
	switch do := d.st.Do.(type) {
	case *dockerfile.Run:
		err = d.run(ctx, id, do, mounts)
	case *dockerfile.Copy:
		if linked {
			pack, err = d.link(ctx, root, do)
			break
		}
		err = union.View(root, func(top *os.File) error {
			_, err := d.bring(ctx, top, do)
			return err
		})
	case *dockerfile.Mkdir:
		err = union.View(root, func(top *os.File) error { return d.mkdir(top, do) })
	}
	if err != nil {
		return l, err
	}
	if linked || !union.CanClaim(d.Layers, root) {
		return d.draft.Layer(ctx, d.below, pack)
	}
	return d.draft.Adopt(ctx, d.below, pack, func(ctx context.Context) (*union.Stage, archive.Unpacked, error) {
		return union.Claim(ctx, d.Layers, root)
	})
}

// mkdir makes a directory with those above it. Those that are there stay as they are.
func (d *doing) mkdir(top *os.File, do *dockerfile.Mkdir) error {
	owner, err := d.owner(top, do.User)
	if err != nil {
		return err
	}
	return makeDirFor(top, do.Path, *owner)
}

// owner looks up who gets files; nobody in particular is root.
func (d *doing) owner(top *os.File, name string) (*archive.Owner, error) {
	if name == "" {
		return &archive.Owner{}, nil
	}
	if n, err := strconv.ParseUint(name, 10, 31); err == nil { // a number alone is the group's too, and no table is needed
		return &archive.Owner{UID: uint32(n), GID: uint32(n)}, nil
	}
	uid, gid, err := d.Owner(top, name)
	return &archive.Owner{UID: uid, GID: gid}, err
}

// run runs a program.
func (d *doing) run(ctx context.Context, id string, do *dockerfile.Run, mounts *mounting) error {
	code, err := d.Run(ctx, Program{
		ID: id, Run: do, Settings: d.Settings, Mounts: mounts.list, Env: mounts.env,
		Stdout: &output{d, Stdout}, Stderr: &output{d, Stderr},
	})
	if err != nil {
		return err
	}
	if code != 0 {
		return &StepError{Stage: d.s, Step: d.st, Code: code, cause: fault.New(fault.Invalid, "The command '%s' returned a non-zero code: %d", strings.Join(do.Args, " "), code)}
	}
	return nil
}

// output tells what a program writes.
type output struct {
	d    *doing
	kind EventKind
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.d.tell(Event{Kind: o.kind, Stage: o.d.s, Step: o.d.st, Output: p})
	return len(p), nil
}
