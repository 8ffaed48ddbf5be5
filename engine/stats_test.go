package engine

import (
	"context"
	"errors"
	"testing"
	"time"

	"berth/fault"

	api "github.com/moby/moby/api/types/container"
)

// samples collects what Stats sends, until it has n or the stream ends.
func (w *world) samples(id string, o StatsRequest, n int) []*api.StatsResponse {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	defer cancel()
	begun := false
	var all []*api.StatsResponse
	err := w.Containers.Stats(ctx, id, o, func() error { begun = true; return nil }, func(s *api.StatsResponse) error {
		if all = append(all, s); len(all) == n {
			cancel()
		}
		return nil
	})
	if err != nil || !begun {
		w.t.Fatalf("%v; begun: %v", err, begun)
	}
	return all
}

func TestStats(t *testing.T) {
	w := newWorld(t)
	id := w.create(func(r *CreateRequest) {
		r.HostConfig.NetworkMode, r.HostConfig.Memory, r.HostConfig.PidsLimit = "bridge", 64*mega, new(int64(50))
	}, "sh", "-c", "dd if=/dev/zero of=/dev/shm/held bs=1M count=10 2>/dev/null; echo held; while :; do :; done")
	if none := w.samples(id, StatsRequest{}, 9); len(none) != 1 || none[0].CPUStats.SystemUsage != 0 || none[0].ID != id || none[0].BlkioStats.SectorsRecursive == nil {
		t.Errorf("before its start: %+v", none)
	}
	w.start(id)
	w.awaitLog(id, "held")
	stream := w.samples(id, StatsRequest{Stream: true}, 2)
	first, second := stream[0], stream[1]
	if !first.PreRead.IsZero() || first.PreCPUStats.SystemUsage != 0 || second.PreRead != first.Read || second.PreCPUStats.CPUUsage.TotalUsage != first.CPUStats.CPUUsage.TotalUsage {
		t.Errorf("%+v\n%+v", first, second)
	}
	used := second.CPUStats.CPUUsage.TotalUsage - first.CPUStats.CPUUsage.TotalUsage
	had := second.CPUStats.SystemUsage - first.CPUStats.SystemUsage
	if n := uint64(second.CPUStats.OnlineCPUs); n == 0 || used == 0 || used > had+had/10 {
		t.Errorf("a loop used %d of %d ns on %d processors", used, had, n)
	}
	m := second.MemoryStats
	if m.Limit != 64*mega || m.Usage < 10*mega || m.Usage > m.Limit || len(m.Stats) == 0 || second.PidsStats != (api.PidsStats{Current: 1, Limit: 50}) {
		t.Errorf("%+v %+v", m, second.PidsStats)
	}
	if _, ok := m.Stats["inactive_file"]; !ok {
		t.Errorf("memory.stat: %v", m.Stats)
	}
	if _, ok := second.Networks["eth0"]; !ok || len(second.Networks) != 1 {
		t.Errorf("%+v", second.Networks)
	}
	if one := w.samples(id, StatsRequest{OneShot: true}, 9); len(one) != 1 || !one[0].PreRead.IsZero() {
		t.Errorf("one shot: %+v", one)
	}
	if one := w.samples(id, StatsRequest{}, 9); len(one) != 1 || one[0].PreRead.IsZero() || one[0].PreCPUStats.CPUUsage.TotalUsage == 0 {
		t.Errorf("without a stream: %+v", one)
	}
	joined := w.create(func(r *CreateRequest) { r.HostConfig.NetworkMode = api.NetworkMode("container:" + id) }, "sleep", "1000")
	w.start(joined)
	if s := w.samples(joined, StatsRequest{OneShot: true}, 1); len(s[0].Networks) != 1 || s[0].MemoryStats.Limit <= 64*mega {
		t.Errorf("in another's network: %+v", s[0])
	}
	if err := w.Containers.Stats(t.Context(), "nosuch", StatsRequest{}, nil, nil); !errors.Is(err, fault.NotFound) {
		t.Error(err)
	}
}

// TestStatsFollowTheContainer: zeros while it does not run, no share before its new start, and the end with its removal.
func TestStatsFollowTheContainer(t *testing.T) {
	w := newWorld(t)
	id := w.create(nil, "sleep", "1000")
	w.start(id)
	got := make(chan *api.StatsResponse)
	ended := make(chan error, 1)
	go func() {
		ended <- w.Containers.Stats(t.Context(), id, StatsRequest{Stream: true}, func() error { return nil }, func(s *api.StatsResponse) error {
			got <- s
			return nil
		})
	}()
	if s := <-got; s.PidsStats.Current != 1 {
		t.Errorf("running: %+v", s)
	}
	if err := w.Containers.Stop(t.Context(), id, StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if s := <-got; s.PidsStats.Current != 0 || s.CPUStats.CPUUsage.TotalUsage != 0 || s.PreCPUStats.CPUUsage.TotalUsage != 0 {
		t.Errorf("stopped: %+v", s)
	}
	if err := w.Containers.Remove(t.Context(), id, RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	for {
		select {
		case <-got: // one may have been on its way
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
			return
		case <-time.After(30 * time.Second):
			t.Fatal("the stream goes on")
		}
	}
}

// BenchmarkStats takes one sample of each of a hundred containers.
func BenchmarkStats(b *testing.B) {
	w := newWorld(b)
	ids := make([]string, 100)
	for k := range ids {
		ids[k] = w.create(nil, "sleep", "1000")
		w.start(ids[k])
	}
	b.ResetTimer()
	for b.Loop() {
		for _, id := range ids {
			if s := w.samples(id, StatsRequest{OneShot: true}, 9); len(s) != 1 {
				b.Fatal("no sample")
			}
		}
	}
}
