package build

import (
	"context"
	"sync"

	"berth/fault"
)

// steps are those that a build is at, by what their results are kept under. The zero value is none.
type steps struct {
	mu sync.Mutex
	at map[string]chan struct{} // closed when the step has ended
}

// begin waits until no other stage is at the same step: then its result is in the cache. end lets others go on.
func (s *steps) begin(ctx context.Context, hash string) (end func(), err error) {
	for {
		s.mu.Lock()
		other := s.at[hash]
		if other == nil {
			mine := make(chan struct{})
			if s.at == nil {
				s.at = map[string]chan struct{}{}
			}
			s.at[hash] = mine
			s.mu.Unlock()
			return func() {
				s.mu.Lock()
				defer s.mu.Unlock()
				delete(s.at, hash)
				close(mine)
			}, nil
		}
		s.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, fault.Wrap(fault.Canceled, ctx.Err())
		}
	}
}
