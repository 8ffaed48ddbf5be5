package buildkit

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/engine/builds"
	"berth/engine/disk"
	"berth/fault"
	"berth/image"

	control "github.com/moby/buildkit/api/services/control"
	apitypes "github.com/moby/buildkit/api/types"
	"github.com/moby/buildkit/solver/pb"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// controller is the service that solves.
type controller struct {
	control.UnimplementedControlServer
	*Server
}

// Solve builds what the request names, or waits for what the client composes through the bridge, and puts it out.
func (c *controller) Solve(ctx context.Context, r *control.SolveRequest) (*control.SolveResponse, error) {
	response, err := c.solve(ctx, r)
	return &control.SolveResponse{ExporterResponse: response}, err
}

func (s *Server) solve(ctx context.Context, r *control.SolveRequest) (response map[string]string, err error) {
	list := outputs(r)
	if err := errors.Join(checkRequest(r), builds.CheckOutputs(plainOutputs(list))); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	j := &job{ref: r.Ref, ctx: ctx, cancel: cancel, returned: make(chan returned, 1), open: make(chan struct{}), request: r, record: newRecord(r)}
	j.status = &builds.Status{Out: j.tell}
	if err := s.jobs.add(j); err != nil {
		return nil, err
	}
	kept := &directories{}
	defer func() {
		j.stop()
		if left := kept.close(); left != nil { // joined only then: a client's own error keeps its form
			err = errors.Join(err, left)
		}
		s.jobs.end(j, response, err)
	}()
	client, err := s.sessions.get(ctx, r.Session)
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(client.gone, func() {
		cancel(fault.New(fault.Canceled, "the client has closed its session"))
	})()
	j.client = &asker{Server: s, session: client, outputs: list, dirs: kept}
	close(j.open)
	result := returned{}
	about := r.FrontendAttrs["requestid"]
	switch {
	case r.Frontend == "":
		select {
		case result = <-j.returned:
		case <-ctx.Done():
			result.err = fault.Wrap(fault.Canceled, context.Cause(ctx))
		}
	case about != "":
		return s.ask(ctx, j, about, r.FrontendAttrs)
	default:
		result.solved, result.err = s.build(ctx, j, r.FrontendAttrs)
		if result.err == nil {
			defer result.solved.Release()
		}
	}
	if result.err != nil || result.solved == nil {
		return nil, result.err
	}
	return s.export(ctx, j, result.solved)
}

// checkRequest refuses what is not ours to build.
func checkRequest(r *control.SolveRequest) error {
	switch {
	case r.Definition != nil && len(r.Definition.Def) > 0:
		return rawGraph()
	case len(r.FrontendInputs) > 0:
		return rawGraph()
	case r.SourcePolicy != nil && len(r.SourcePolicy.Rules) > 0:
		return fault.New(fault.Unsupported, "source policies are not supported: pin images by their digests in the Dockerfile")
	case r.Session == "":
		return fault.New(fault.Invalid, "the request names no session")
	case r.Frontend != "":
		return checkFrontend(r.Frontend, r.FrontendAttrs)
	}
	return nil
}

func rawGraph() error {
	return fault.New(fault.Unsupported, "graphs of the client's own (LLB) are not supported: berth builds Dockerfiles (%s)", dockerfileFrontend)
}

// build carries out the Dockerfile that attrs describe. The caller releases the result.
func (s *Server) build(ctx context.Context, j *job, attrs map[string]string) (*builds.Solved, error) {
	o, client, t, err := s.prepare(ctx, j, attrs)
	if err != nil {
		return nil, err
	}
	if err := client.dockerfile(ctx, &o); err != nil {
		return nil, err
	}
	solved, err := s.Builds.Solve(ctx, o, client, t)
	if err != nil {
		return nil, located(err, &o)
	}
	return solved, nil
}

// export puts a result out as the request wants it.
func (s *Server) export(ctx context.Context, j *job, solved *builds.Solved) (map[string]string, error) {
	return s.Builds.Export(ctx, solved, plainOutputs(j.client.outputs), j.client, j.status.Teller())
}

// Status tells of a build until it has ended.
func (c *controller) Status(r *control.StatusRequest, stream control.Control_StatusServer) error {
	j, err := c.jobs.get(stream.Context(), r.Ref)
	if err != nil {
		return err
	}
	return j.hear(stream.Context(), stream.Send)
}

// Session is a session within this connection, as clients open one that several of their builds share.
func (c *controller) Session(stream control.Control_SessionServer) error {
	head, _ := metadata.FromIncomingContext(stream.Context())
	ids := head.Get(headerID)
	if len(ids) != 1 {
		return fault.New(fault.Invalid, "the request names no session: header %s is missing", headerID)
	}
	return c.sessions.run(ids[0], strings.Join(head.Get(headerShared), ""), head.Get(headerMethods), &within{bytesStream{stream: stream, cancel: func() {}}})
}

// Info tells who serves.
func (c *controller) Info(context.Context, *control.InfoRequest) (*control.InfoResponse, error) {
	return &control.InfoResponse{BuildkitVersion: c.version()}, nil
}

func (s *Server) version() *apitypes.BuildkitVersion {
	return &apitypes.BuildkitVersion{Package: "berth", Version: s.Version}
}

// ListWorkers tells of the engine, as of the only worker.
func (c *controller) ListWorkers(context.Context, *control.ListWorkersRequest) (*control.ListWorkersResponse, error) {
	return &control.ListWorkersResponse{Record: []*apitypes.WorkerRecord{c.worker()}}, nil
}

// worker describes the engine. The label of a snapshotter is how clients know an engine that keeps images by their manifests.
func (s *Server) worker() *apitypes.WorkerRecord {
	host := image.Host()
	return &apitypes.WorkerRecord{
		ID: "berth", BuildkitVersion: s.version(),
		Labels: map[string]string{
			"org.mobyproject.buildkit.worker.executor":    "berth",
			"org.mobyproject.buildkit.worker.snapshotter": s.Builds.Builder.Layers.Name(),
		},
		Platforms: []*pb.Platform{{OS: host.OS, Architecture: host.Architecture, Variant: host.Variant}},
	}
}

// DiskUsage tells what the build cache has.
func (c *controller) DiskUsage(ctx context.Context, r *control.DiskUsageRequest) (*control.DiskUsageResponse, error) {
	u, err := c.Disk.Usage(ctx, disk.Want{BuildCache: true})
	if err != nil {
		return nil, err
	}
	keep, err := cacheFilter(r.Filter)
	if err != nil {
		return nil, err
	}
	answer := &control.DiskUsageResponse{}
	for _, e := range u.BuildCacheUsage.Items {
		one := &control.UsageRecord{ID: e.ID, InUse: e.InUse, Size: e.Size, Parents: e.Parents, CreatedAt: timestamppb.New(e.CreatedAt), LastUsedAt: stamp(e.LastUsedAt),
			UsageCount: int64(e.UsageCount), Description: e.Description, RecordType: e.Type, Shared: e.Shared, Mutable: e.Type == "exec.cachemount"}
		if keep(one) {
			answer.Record = append(answer.Record, one)
		}
	}
	return answer, nil
}

// Prune removes results from the build cache and tells of those that went.
func (c *controller) Prune(r *control.PruneRequest, stream control.Control_PruneServer) error {
	ctx := stream.Context()
	before, err := c.DiskUsage(ctx, &control.DiskUsageRequest{Filter: r.Filter})
	if err != nil {
		return err
	}
	p := disk.CachePrune{All: r.All, Reserved: r.ReservedSpace, MaxUsed: r.MaxUsedSpace, MinFree: r.MinFreeSpace, Unused: time.Duration(r.KeepDuration), IDs: []string{}}
	for _, one := range before.Record {
		p.IDs = append(p.IDs, one.ID)
	}
	report, err := c.Disk.PruneBuildCache(ctx, p)
	if err != nil {
		return err
	}
	for _, one := range before.Record {
		if slices.Contains(report.CachesDeleted, one.ID) {
			if err := stream.Send(one); err != nil {
				return err
			}
		}
	}
	return nil
}

// cacheFilter reads filters as FIELD==VALUE, FIELD!=VALUE or FIELD~=PART with commas between what must all hold; of several, one has to.
func cacheFilter(filters []string) (func(*control.UsageRecord) bool, error) {
	var any []func(*control.UsageRecord) bool
	for _, f := range filters {
		var all []func(*control.UsageRecord) bool
		for _, one := range list(f) {
			test, err := condition(one)
			if err != nil {
				return nil, err
			}
			all = append(all, test)
		}
		any = append(any, func(u *control.UsageRecord) bool {
			return !slices.ContainsFunc(all, func(test func(*control.UsageRecord) bool) bool { return !test(u) })
		})
	}
	return func(u *control.UsageRecord) bool {
		return len(any) == 0 || slices.ContainsFunc(any, func(test func(*control.UsageRecord) bool) bool { return test(u) })
	}, nil
}

// condition reads one condition on what the cache has.
func condition(text string) (func(*control.UsageRecord) bool, error) {
	at := strings.IndexAny(text, "=!~")
	name, op, value := text, "==", "true"
	if at >= 0 {
		name = text[:at]
		op = "=="
		value = strings.TrimLeft(text[at:], "=")
		for _, known := range []string{"==", "!=", "~="} {
			if rest, ok := strings.CutPrefix(text[at:], known); ok {
				op, value = known, rest
			}
		}
	}
	fields := map[string]func(*control.UsageRecord) string{
		"id":          func(u *control.UsageRecord) string { return u.ID },
		"type":        func(u *control.UsageRecord) string { return u.RecordType },
		"description": func(u *control.UsageRecord) string { return u.Description },
		"inuse":       func(u *control.UsageRecord) string { return strconv.FormatBool(u.InUse) },
		"shared":      func(u *control.UsageRecord) string { return strconv.FormatBool(u.Shared) },
		"private":     func(u *control.UsageRecord) string { return strconv.FormatBool(!u.Shared) },
		"mutable":     func(u *control.UsageRecord) string { return strconv.FormatBool(u.Mutable) },
		"immutable":   func(u *control.UsageRecord) string { return strconv.FormatBool(!u.Mutable) },
	}
	field := fields[name]
	if field == nil {
		return nil, fault.New(fault.Invalid, "invalid filter '%s'", text)
	}
	return func(u *control.UsageRecord) bool {
		switch got := field(u); op {
		case "!=":
			return got != value
		case "~=":
			return strings.Contains(got, value)
		default:
			return got == value
		}
	}, nil
}
