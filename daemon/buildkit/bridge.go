package buildkit

import (
	"context"
	"crypto/rand"
	"slices"

	"berth/fault"

	apitypes "github.com/moby/buildkit/api/types"
	gateway "github.com/moby/buildkit/frontend/gateway/pb"
	caps "github.com/moby/buildkit/util/apicaps/pb"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// bridge is how a client composes its build itself, as buildx does: it asks for parts of it, and gives back what shall be put out.
type bridge struct {
	gateway.UnimplementedLLBBridgeServer
	*Server
}

// job gives the build that a call belongs to.
func (b *bridge) job(ctx context.Context) (*job, error) {
	head, _ := metadata.FromIncomingContext(ctx)
	ids := head.Get("buildkit-controlapi-buildid")
	if len(ids) != 1 {
		return nil, fault.New(fault.Invalid, "the call names no build")
	}
	return b.jobs.get(ctx, ids[0])
}

// bridgeCaps are what calls of the bridge can do, graphCaps what clients take for granted of what is built.
var (
	bridgeCaps = []string{"solve.base", "return", "returnmap", "proto.refarray", "importcaches", "gateway.solve.metadata", "gateway.solve.evaluate", "gateway.evaluate", "readfile", "statfile"}
	graphCaps  = []string{"source.image", "source.local", "source.local.unique", "source.local.sessionid", "source.local.includepatterns", "source.local.followpaths",
		"source.local.excludepatterns", "source.local.sharedkeyhint", "source.git", "source.http", "exec.meta.base", "constraints", "platform", "meta.ignorecache",
		"exporter.multiple", "exporter.sourcedateepoch", "exporter.image.annotations", "exporter.image.attestations", "gc.freespacefilter"}
)

// Ping tells what can be asked for.
func (b *bridge) Ping(context.Context, *gateway.PingRequest) (*gateway.PongResponse, error) {
	list := func(ids []string) (all []*caps.APICap) {
		for _, id := range ids {
			all = append(all, &caps.APICap{ID: id, Enabled: true})
		}
		return all
	}
	return &gateway.PongResponse{FrontendAPICaps: list(bridgeCaps), LLBCaps: list(slices.Concat(lookCaps, graphCaps)), Workers: []*apitypes.WorkerRecord{b.worker()}}, nil
}

// Solve builds. Nothing is put off until it is needed: who asks wants it.
func (b *bridge) Solve(ctx context.Context, r *gateway.SolveRequest) (*gateway.SolveResponse, error) {
	j, err := b.job(ctx)
	if err != nil {
		return nil, err
	}
	if r.Definition != nil {
		if address := addressOf(r.Definition); address != "" {
			return j.look(address), nil
		}
	}
	if r.Definition != nil && len(r.Definition.Def) > 0 || len(r.FrontendInputs) > 0 {
		return nil, rawGraph()
	}
	if err := checkFrontend(r.Frontend, r.FrontendOpt); err != nil {
		return nil, err
	}
	if !j.begin() {
		return nil, fault.New(fault.Canceled, "the build has ended meanwhile")
	}
	defer j.work.Done()
	if about := r.FrontendOpt["requestid"]; about != "" {
		return b.answer(ctx, j, about, r.FrontendOpt)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(j.ctx, func() { cancel(context.Cause(j.ctx)) })()
	solved, err := b.build(ctx, j, r.FrontendOpt)
	if err != nil {
		return nil, err
	}
	ref := rand.Text()
	j.keep(ref, solved)
	return &gateway.SolveResponse{Result: &gateway.Result{Result: &gateway.Result_Ref{Ref: &gateway.Ref{Id: ref}}}}, nil
}

// Evaluate is there for clients that want to be sure that something is built: it is.
func (b *bridge) Evaluate(ctx context.Context, r *gateway.EvaluateRequest) (*gateway.EvaluateResponse, error) {
	j, err := b.job(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := j.result(r.Ref); err != nil {
		return nil, err
	}
	return &gateway.EvaluateResponse{}, nil
}

// Return takes what shall be put out, or why there is nothing.
func (b *bridge) Return(ctx context.Context, r *gateway.ReturnRequest) (*gateway.ReturnResponse, error) {
	j, err := b.job(ctx)
	if err != nil {
		return nil, err
	}
	var back returned
	switch {
	case r.Error != nil:
		back.err = status.FromProto(r.Error).Err()
	case r.Result != nil:
		if ref := refOf(r.Result); ref != "" {
			if back.solved, err = j.result(ref); err != nil {
				return nil, err
			}
		}
	}
	select {
	case j.returned <- back:
		return &gateway.ReturnResponse{}, nil
	default:
		return nil, fault.New(fault.Conflict, "the build was returned already")
	}
}

// refOf is the only result that a client gives back; "" when there is none, as of questions.
func refOf(r *gateway.Result) string {
	switch one := r.Result.(type) {
	case *gateway.Result_Ref:
		return one.Ref.GetId()
	case *gateway.Result_RefDeprecated:
		return one.RefDeprecated
	}
	return ""
}

// Warn passes a warning of the client's on to it.
func (b *bridge) Warn(ctx context.Context, r *gateway.WarnRequest) (*gateway.WarnResponse, error) {
	return &gateway.WarnResponse{}, nil
}

// Inputs are graphs of the client's own: it has none.
func (b *bridge) Inputs(context.Context, *gateway.InputsRequest) (*gateway.InputsResponse, error) {
	return &gateway.InputsResponse{}, nil
}

// NewContainer would run a program in a result.
func (b *bridge) NewContainer(context.Context, *gateway.NewContainerRequest) (*gateway.NewContainerResponse, error) {
	return nil, fault.New(fault.Unsupported, "programs in a result of a build are not supported: build the stage with --target and run the image")
}
