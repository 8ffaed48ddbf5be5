// Package build makes images: it carries out a Dockerfile's plan, step by step, and never a step whose result it has.
//
// It is no container engine: whoever calls it brings what runs programs. It reads no Dockerfile (package dockerfile does) and fetches nothing.
// Invariant: a result is kept under the content of all that the step could see, so that what is found is what would be made.
package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/docker/go-units"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"berth/build/dockerfile"
	"berth/fault"
	"berth/image"
	"berth/union"
)

// Builder carries out plans. The fields are set once, before it is used.
type Builder struct {
	Images *image.Store
	Layers union.Driver
	Cache  *Cache
	Dir    string // for sockets that steps have; who supplies it empties it when it may have some of a build that was cut off
	Log    *slog.Logger

	// NewID names a root; who supplies it sees to it that no two are alike, and sweeps roots of a build that was cut off.
	NewID func() string
	// Prepare makes what every container has in its root, which is no part of any layer.
	Prepare func(root *os.File) error
	// Pack writes what was written to a root as a layer.
	Pack func(ctx context.Context, w io.Writer, root union.Root) error
	// Run runs a program in a root, and returns its exit code. What it leaves when it is cut off is swept by whoever supplies it.
	Run func(ctx context.Context, p Program) (code int, err error)
	// TakeCaches gives the names of the volumes that a program's caches are, made where they are missing; user is its ID. give ends that. waiting is
	// told of those that another program has to give back first.
	TakeCaches func(ctx context.Context, user string, all []CacheMount, waiting func(CacheMount)) (volumes []string, give func() error, err error)
	// Owner looks up user[:group] in a root's own tables.
	Owner func(root *os.File, name string) (uid, gid uint32, err error)
	// IDs tells whose ids programs have; nil: those that they see.
	IDs func() IDs
	// Find looks for what is in another place.
	Find Finder
}

// Program is a RUN instruction, ready to run.
type Program struct {
	ID       string // of the root, and unique
	Run      *dockerfile.Run
	Mounts   []Mount
	Env      []string // that comes with mounts
	Stdout   io.Writer
	Stderr   io.Writer
	Settings Settings
}

// Settings are those of a build that programs are run with.
type Settings struct {
	Hosts        []string // as --add-host has them
	ShmSize      int64
	Memory       int64
	MemorySwap   int64
	CPUShares    int64
	CPUPeriod    int64
	CPUQuota     int64
	CPUSet       string
	CPUSetMems   string
	CgroupParent string
	SecurityOpt  []string
	Ulimits      []*units.Ulimit
}

// Request is what is to be built.
type Request struct {
	Plan     *dockerfile.Plan
	Client   Client
	NoCache  bool
	Imports  []Import // caches from elsewhere, the best first
	Settings Settings
	Tell     func(Event) // calls come one at a time
}

// Event is one thing that happened; Step is nil when it concerns a stage's base.
type Event struct {
	Kind   EventKind
	Stage  *dockerfile.Stage
	Step   *dockerfile.Step
	Output []byte   // of Stdout and Stderr
	Reason string   // of Began: why its result is not in the cache; "": it was never done
	Err    error    // of Failed
	At     Progress // of Progressed
	Time   time.Time
}

// EventKind says what happened.
type EventKind string

// The kinds of events.
const (
	Began    EventKind = "began"
	Cached   EventKind = "cached"
	Finished EventKind = "finished"
	Failed   EventKind = "failed"
	Stdout   EventKind = "stdout"
	Stderr   EventKind = "stderr"

	Progressed EventKind = "progressed"
)

// StepError is a step that failed, with its place in the Dockerfile.
type StepError struct {
	Stage *dockerfile.Stage
	Step  *dockerfile.Step
	Code  int // the program's; 0: it was not the program
	cause error
}

func (e *StepError) Error() string { return e.cause.Error() }

// StepExit is the exit code of the program that a step ran; 0: it was not the program.
func (e *StepError) StepExit() int { return e.Code }

// Unwrap gives the cause.
func (e *StepError) Unwrap() error { return e.cause }

// building is one build under way.
type building struct {
	*Builder
	Request
	draft *image.Draft
	told  sync.Mutex             // held for outcomes too
	files func() (*Files, error) // the build context, brought once
	steps steps

	stages   map[*dockerfile.Stage]*stageResult
	outcomes []Outcome
}

// stageResult is a stage that is done, or will be.
type stageResult struct {
	ready  chan struct{}
	tree   *tree // what it begins with, when that is a named context
	view   view  // of its files, for those that copy from it
	layers []image.Layer
	times  []time.Time // of the lines of history, as far as they are not the base image's
	same   []bool      // which of those steps changed nothing, and have no layer
	err    error
}

// Result is what a plan came to. It holds its layers until it is released.
type Result struct {
	Plan     *dockerfile.Plan
	Settings dockerspec.DockerOCIImage
	Layers   []image.Layer
	Base     int // how many of Layers are those of the base image
	Lines    int // how many lines of the history are those of the base image

	draft    *image.Draft
	built    []image.Layer // Layers as they were made
	outcomes []Outcome
}

// Draft holds the layers, and whatever else an image of the result needs. It goes with the result.
func (r *Result) Draft() *image.Draft { return r.draft }

// Release gives up what no image came to need.
func (r *Result) Release() { r.draft.Release() }

// Build carries out r's plan. Steps that were done stay done when a later one fails. The caller releases the result.
func (b *Builder) Build(ctx context.Context, r Request) (result *Result, err error) {
	w := &building{Builder: b, Request: r, draft: b.Images.Draft(), stages: map[*dockerfile.Stage]*stageResult{}}
	defer func() {
		if err != nil {
			w.draft.Release()
		}
	}()
	for _, s := range r.Plan.Stages {
		w.stages[s] = &stageResult{ready: make(chan struct{})}
	}
	all, ctx := errgroup.WithContext(ctx)
	w.files = sync.OnceValues(func() (*Files, error) { return r.Client.Files(ctx, "", ofContext(r.Plan)) })
	defer func() {
		for _, res := range w.stages {
			err = errors.Join(err, res.view.close())
		}
		if err != nil && result != nil {
			result.Release()
			result = nil
		}
	}()
	for s, res := range w.stages {
		if s.Base.Files != nil {
			res.tree = w.newTree(ctx, s)
			defer func() { err = errors.Join(err, res.tree.close()) }()
		}
	}
	for _, s := range r.Plan.Stages {
		all.Go(func() error {
			res := w.stages[s]
			defer close(res.ready)
			res.err = w.stage(ctx, s, res)
			return res.err
		})
	}
	if err := all.Wait(); err != nil {
		if ctxErr := context.Cause(ctx); ctxErr != nil && errors.Is(err, context.Canceled) {
			err = fault.Wrap(fault.Canceled, ctxErr)
		}
		return nil, err
	}
	t := r.Plan.Target
	settings := t.Image
	w.date(&settings, w.stages[t])
	result = &Result{Plan: r.Plan, Settings: settings, Layers: w.stages[t].layers, draft: w.draft, built: w.stages[t].layers, outcomes: w.outcomes}
	for t.Base.Stage != nil {
		t = t.Base.Stage
	}
	if b := t.Base.Image; b != nil {
		result.Base, result.Lines = len(b.Config.RootFS.DiffIDs), len(b.Config.History)
	}
	return result, nil
}

// wait gives another stage when it is done.
func (w *building) wait(ctx context.Context, s *dockerfile.Stage) (*stageResult, error) {
	res := w.stages[s]
	select {
	case <-res.ready:
		return res, res.err
	case <-ctx.Done():
		return nil, fault.Wrap(fault.Canceled, ctx.Err())
	}
}

func (w *building) tell(e Event) {
	if w.Tell == nil {
		return
	}
	w.told.Lock()
	defer w.told.Unlock()
	e.Time = time.Now()
	w.Tell(e)
}

// stage makes one stage.
func (w *building) stage(ctx context.Context, s *dockerfile.Stage, res *stageResult) (err error) {
	last := time.Time{} // when the newest of what the stage has was made
	switch base := s.Base; {
	case base.Stage != nil:
		below, err := w.wait(ctx, base.Stage)
		if err != nil {
			return err
		}
		res.layers, res.times, res.same = slices.Clip(below.layers), slices.Clone(below.times), slices.Clone(below.same)
		if n := len(res.times); n > 0 {
			last = res.times[n-1]
		}
	case base.Image != nil:
		w.tell(Event{Kind: Began, Stage: s})
		here, err := w.base(ctx, base.Image, res)
		if err != nil {
			w.tell(Event{Kind: Failed, Stage: s, Err: err})
			return err
		}
		if c := base.Image.Config.Created; c != nil {
			last = *c
		}
		w.tell(Event{Kind: here, Stage: s})
	case base.Files != nil:
		w.tell(Event{Kind: Began, Stage: s})
		if err := w.beginWithTree(ctx, s, res); err != nil {
			w.tell(Event{Kind: Failed, Stage: s, Err: err})
			return err
		}
		last = res.tree.made
		w.tell(Event{Kind: Finished, Stage: s})
	}
	if last.IsZero() {
		last = time.Unix(0, 0).UTC()
	}
	for _, st := range s.Steps {
		n := len(res.layers)
		if st.Do == nil {
			w.tell(Event{Kind: Finished, Stage: s, Step: st})
		} else {
			made := time.Time{}
			if res.layers, made, err = w.step(ctx, s, st, res.layers); err != nil {
				return err
			}
			if made.After(last) {
				last = made
			}
		}
		res.times, res.same = append(res.times, last), append(res.same, len(res.layers) == n)
	}
	return nil
}

// base brings a base image's layers: Cached tells that they were here.
func (w *building) base(ctx context.Context, b *dockerfile.Image, res *stageResult) (EventKind, error) {
	img, ok := b.Handle.(*image.Image)
	if !ok {
		return "", fmt.Errorf("base image %s has no content", b.Name)
	}
	res.layers = image.LayersOf(img)
	if w.draft.Hold(res.layers) == len(res.layers) {
		return Cached, nil
	}
	if err := image.Unpack(ctx, w.Images, img); err != nil {
		return "", fmt.Errorf("prepare base image %s: %w", b.Name, err)
	}
	if w.draft.Hold(res.layers) < len(res.layers) {
		return "", fault.New(fault.Conflict, "base image %s was removed meanwhile: pull or load it again", b.Name)
	}
	return Finished, nil
}

// date says when the image was made and each line of its history: what the cache had is as old as it was, so that a build in which nothing
// is new gives the same image. An epoch that was asked for is the time of all.
func (w *building) date(settings *dockerspec.DockerOCIImage, res *stageResult) {
	times := res.times
	if first := slices.Index(res.same, false); first >= 0 { // what was set before the first layer is as old as that, not as the base image
		for k := range times[:first] {
			times[k] = times[first]
		}
	}
	for k := range settings.History {
		h := &settings.History[k]
		if n := k - (len(settings.History) - len(times)); n >= 0 {
			h.EmptyLayer = res.same[n]
			if h.Created == nil {
				h.Created = &times[n]
			}
		}
	}
	switch n := len(times); {
	case w.Plan.Epoch != nil:
		settings.Created = w.Plan.Epoch
	case n > 0:
		settings.Created = &times[n-1]
	default:
		now := time.Now().UTC()
		settings.Created = &now
	}
}
