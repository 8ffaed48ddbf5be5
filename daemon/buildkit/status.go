package buildkit

import (
	"context"
	"errors"
	"time"

	"berth/build"
	"berth/build/dockerfile"
	"berth/build/progress"
	"berth/engine/builds"
	"berth/fault"

	control "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// wireStatus is a status as it goes to clients.
func wireStatus(s *progress.Status) *control.StatusResponse {
	w := &control.StatusResponse{}
	for _, v := range s.Vertexes {
		one := &control.Vertex{Digest: string(v.Digest), Name: v.Name, Cached: v.Cached, Started: stamp(v.Started), Completed: stamp(v.Completed), Error: v.Error}
		for _, in := range v.Inputs {
			one.Inputs = append(one.Inputs, string(in))
		}
		w.Vertexes = append(w.Vertexes, one)
	}
	for _, p := range s.Statuses {
		w.Statuses = append(w.Statuses, &control.VertexStatus{ID: p.ID, Vertex: string(p.Vertex), Name: p.Name, Current: p.Current, Total: p.Total,
			Timestamp: timestamppb.New(p.Timestamp), Started: stamp(p.Started), Completed: stamp(p.Completed)})
	}
	for _, l := range s.Logs {
		w.Logs = append(w.Logs, &control.VertexLog{Vertex: string(l.Vertex), Stream: int64(l.Stream), Msg: l.Data, Timestamp: timestamppb.New(l.Timestamp)})
	}
	for _, x := range s.Warnings {
		one := &control.VertexWarning{Vertex: string(x.Vertex), Level: int64(x.Level), Short: x.Short, Detail: x.Detail, Url: x.URL}
		if i := x.SourceInfo; i != nil {
			one.Info = &pb.SourceInfo{Filename: i.Filename, Data: i.Data, Language: i.Language}
		}
		for _, r := range x.Range {
			one.Ranges = append(one.Ranges, &pb.Range{Start: place(r.Start), End: place(r.End)})
		}
		w.Warnings = append(w.Warnings, one)
	}
	return w
}

func place(p progress.Position) *pb.Position {
	return &pb.Position{Line: p.Line, Character: p.Character}
}

func stamp(t *time.Time) *timestamppb.Timestamp {
	if t == nil {
		return nil
	}
	return timestamppb.New(*t)
}

// codeOf is the one table from kinds of failure to codes. Most have none: clients print a code before the words.
var codeOf = map[fault.Kind]codes.Code{
	fault.Unsupported: codes.Unimplemented, fault.Canceled: codes.Canceled, fault.Unavailable: codes.Unavailable, fault.NotFound: codes.NotFound,
}

// coded is an error with the words and the code in which clients read it.
type coded struct {
	error
	words string
	code  codes.Code
}

func (c *coded) Error() string { return c.words }

// Code is what package grpcerrors asks for.
func (c *coded) Code() codes.Code { return c.code }

// statusOf gives an error the form that goes to clients; what it says of a place in a Dockerfile goes along.
func statusOf(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	if _, is := status.FromError(err); is {
		return err
	}
	code, known := codeOf[fault.Of(err)]
	if !known {
		code = codes.Unknown
	}
	var told error = &coded{error: err, words: builds.Words(err), code: code}
	var source *errdefs.SourceError
	if errors.As(err, &source) {
		told = errdefs.WithSource(told, source.Source)
	}
	return grpcerrors.ToGRPC(ctx, told)
}

// located adds the place in the Dockerfile that err is about, so that clients quote it.
func located(err error, o *builds.Options) error {
	line, end := 0, 0
	var wrong *dockerfile.Error
	var step *build.StepError
	switch {
	case errors.As(err, &wrong):
		line, end = wrong.Line, wrong.End
	case errors.As(err, &step) && step.Step != nil:
		line, end = step.Step.Line, step.Step.End
	}
	if line == 0 {
		return err
	}
	return errdefs.WithSource(err, &errdefs.Source{
		Info:   &pb.SourceInfo{Filename: o.Dockerfile, Data: o.Text, Language: "Dockerfile"},
		Ranges: []*pb.Range{{Start: &pb.Position{Line: int32(line)}, End: &pb.Position{Line: int32(max(line, end))}}},
	})
}
