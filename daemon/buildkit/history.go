package buildkit

import (
	"context"
	"maps"
	"net/url"
	"slices"
	"sync"

	"berth/build/progress"

	control "github.com/moby/buildkit/api/services/control"
	"github.com/opencontainers/go-digest"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// maxRecords is how many builds are remembered.
const maxRecords = 100

// record is what is remembered of a build until the daemon ends: for people who look back, nothing depends on it.
type record struct {
	mu       sync.Mutex
	said     *control.BuildHistoryRecord
	internal bool // the client wants it to be forgotten
	steps    map[digest.Digest]*progress.Vertex
}

func newRecord(r *control.SolveRequest) *record {
	said := &control.BuildHistoryRecord{Ref: r.Ref, Frontend: r.Frontend, FrontendAttrs: open(r.FrontendAttrs), Exporters: r.Exporters, CreatedAt: timestamppb.Now()}
	return &record{said: said, internal: r.Internal, steps: map[digest.Digest]*progress.Vertex{}}
}

// open are attributes without what addresses have of credentials.
func open(attrs map[string]string) map[string]string {
	attrs = maps.Clone(attrs)
	for k, v := range attrs {
		if u, err := url.Parse(v); err == nil && u.User != nil {
			u.User = nil
			attrs[k] = u.String()
		}
	}
	return attrs
}

// count takes note of what is told.
func (r *record) count(s *progress.Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.steps == nil { // it has ended
		return
	}
	for _, v := range s.Vertexes {
		r.steps[v.Digest] = v
	}
	r.said.NumWarnings += int32(len(s.Warnings))
	r.said.NumTotalSteps, r.said.NumCompletedSteps, r.said.NumCachedSteps = int32(len(r.steps)), 0, 0
	for _, v := range r.steps {
		if v.Completed != nil {
			r.said.NumCompletedSteps++
		}
		if v.Cached {
			r.said.NumCachedSteps++
		}
	}
}

// copied is the record as it is now.
func (r *record) copied() *control.BuildHistoryRecord {
	r.mu.Lock()
	defer r.mu.Unlock()
	return proto.CloneOf(r.said)
}

// remember keeps the record of a build that ended. The lock is not held.
func (all *jobs) remember(j *job, response map[string]string, err error) {
	r := j.record
	r.mu.Lock()
	r.said.CompletedAt, r.said.ExporterResponse = timestamppb.Now(), response
	if err != nil {
		r.said.Error = status.Convert(statusOf(context.Background(), err)).Proto()
		r.said.Error.Details = nil
	}
	r.steps = nil
	r.mu.Unlock()
	all.mu.Lock()
	defer all.mu.Unlock()
	if !r.internal {
		all.records = append(all.records, r)
		if len(all.records) > maxRecords {
			at := slices.IndexFunc(all.records, func(r *record) bool { return !r.said.Pinned })
			all.records = slices.Delete(all.records, max(at, 0), max(at, 0)+1)
		}
	}
	notify(&all.heard)
}

// history gives what is remembered, the builds under way too, newest first.
func (all *jobs) history() (events []*control.BuildHistoryEvent, changed <-chan struct{}) {
	all.mu.Lock()
	defer all.mu.Unlock()
	for _, r := range all.records {
		events = append(events, &control.BuildHistoryEvent{Type: control.BuildHistoryEventType_COMPLETE, Record: r.copied()})
	}
	for _, j := range all.byRef {
		if one := j.record.copied(); one.CompletedAt == nil && !j.record.internal {
			events = append(events, &control.BuildHistoryEvent{Type: control.BuildHistoryEventType_STARTED, Record: one})
		}
	}
	slices.SortFunc(events, func(a, b *control.BuildHistoryEvent) int {
		return b.Record.CreatedAt.AsTime().Compare(a.Record.CreatedAt.AsTime())
	})
	return events, waiter(&all.heard)
}

// ListenBuildHistory tells of builds: those that there were, and those to come unless the client only wants to know.
func (c *controller) ListenBuildHistory(r *control.BuildHistoryRequest, stream control.Control_ListenBuildHistoryServer) error {
	told := map[string]control.BuildHistoryEventType{}
	for {
		events, changed := c.jobs.history()
		sent := int32(0)
		for _, e := range events {
			ref := e.Record.Ref
			if r.Ref != "" && r.Ref != ref || r.ActiveOnly && e.Type != control.BuildHistoryEventType_STARTED || r.Limit > 0 && sent >= r.Limit {
				continue
			}
			if before, known := told[ref]; known && before == e.Type {
				continue
			}
			told[ref] = e.Type
			if err := stream.Send(e); err != nil {
				return err
			}
			sent++
		}
		if r.EarlyExit {
			return nil
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return nil
		}
	}
}

// UpdateBuildHistory forgets a record, or keeps it for good.
func (c *controller) UpdateBuildHistory(_ context.Context, r *control.UpdateBuildHistoryRequest) (*control.UpdateBuildHistoryResponse, error) {
	c.jobs.mu.Lock()
	defer c.jobs.mu.Unlock()
	for k, one := range c.jobs.records {
		if one.said.Ref != r.Ref {
			continue
		}
		if r.Delete {
			c.jobs.records = slices.Delete(c.jobs.records, k, k+1)
		} else if !r.Finalize {
			one.mu.Lock()
			one.said.Pinned = r.Pinned
			one.mu.Unlock()
		}
		break
	}
	return &control.UpdateBuildHistoryResponse{}, nil
}
