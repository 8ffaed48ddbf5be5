package forward

import (
	"context"
	"log/slog"
	"sync"

	"berth/container"
)

// Set is the forwarders of an engine's containers. Containers whose driver sends nothing are passed over.
type Set struct {
	ctx  context.Context
	log  *slog.Logger
	mu   sync.Mutex
	byID map[string]*Forwarder
	all  sync.WaitGroup
}

// NewSet returns an empty set. All sending ends with ctx.
func NewSet(ctx context.Context, log *slog.Logger) *Set {
	return &Set{ctx: ctx, log: log, byID: map[string]*Forwarder{}}
}

// Begin has a container's log sent until ended is closed and all is sent; with a nil ended, for a container that doesn't run, only
// if something was left.
func (s *Set) Begin(r *container.Record, ended <-chan struct{}) {
	if !Is(r.HostConfig.LogConfig.Type) || ended == nil && !Behind(r.LogPath) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.start(r, ended)
}

// start does it under the lock.
func (s *Set) start(r *container.Record, ended <-chan struct{}) {
	if before := s.byID[r.ID]; before != nil {
		before.Stop() // what it has left is sent by the next one
	}
	f, err := Start(s.ctx, NewInfo(r), ended, s.log)
	if err != nil {
		s.log.Error("logs can't be forwarded", "container", r.Name, "error", err)
		return
	}
	s.byID[r.ID] = f
	s.all.Go(func() { <-f.Done() })
}

// Leave lets what a container has left be sent while it is removed. It doesn't wait.
func (s *Set) Leave(r *container.Record) {
	if !Is(r.HostConfig.LogConfig.Type) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID[r.ID] == nil && Behind(r.LogPath) {
		s.start(r, nil)
	}
	if f := s.byID[r.ID]; f != nil {
		f.Leave()
		delete(s.byID, r.ID)
	}
}

// Restart has the log of a container that doesn't run, and that empty does away with, sent from its beginning later.
func (s *Set) Restart(r *container.Record, empty func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.byID[r.ID]; f != nil {
		f.Stop()
		delete(s.byID, r.ID)
	}
	if err := empty(); err != nil {
		return err
	}
	return Forget(r.LogPath)
}

// Wait returns when all sending has ended.
func (s *Set) Wait() { s.all.Wait() }
