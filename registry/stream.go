package registry

import (
	"context"
	"errors"
	"fmt"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/fault"
)

// minStep is how many bytes count as getting further.
const minStep = 4 << 10

// stream is a download that takes up again where its connection broke.
type stream struct {
	ctx    context.Context
	cancel context.CancelFunc
	r      *Repository
	desc   ocispec.Descriptor
	body   io.ReadCloser
	from   *endpoint          // who sends it
	drop   context.CancelFunc // ends the present connection
	at     int64              // of the next byte
	skip   int64              // bytes of the present connection that are known already
	step   int64              // where the present connection began
	broken int                // connections in a row that got nowhere
	slot   func()             // gives back what bounds the downloads
}

func newStream(ctx context.Context, r *Repository, desc ocispec.Descriptor, offset int64) *stream {
	s := &stream{r: r, desc: desc, at: offset, slot: func() {}}
	s.ctx, s.cancel = context.WithCancel(ctx)
	return s
}

// connect opens a connection at the next byte.
func (s *stream) connect() error {
	ctx, drop := context.WithCancel(s.ctx)
	body, from, start, err := s.r.open(ctx, s.desc, s.at)
	if err != nil {
		drop()
		return err
	}
	s.skip = s.at - start
	s.body, s.from, s.drop, s.step = body, from, drop, s.at
	return nil
}

func (s *stream) disconnect() {
	if s.body != nil {
		s.drop()
		s.body.Close()
		s.body = nil
	}
}

// Read returns what the present connection has, and opens the next one when it breaks. Errors
// are those of the last try, with a kind.
func (s *stream) Read(p []byte) (int, error) {
	for {
		if s.body == nil {
			if err := s.connect(); err != nil {
				return 0, s.r.translate(err, s.r.name)
			}
		}
		n, err := s.body.Read(p)
		if known := int(min(s.skip, int64(n))); known > 0 {
			s.skip -= int64(known)
			n = copy(p, p[known:n])
		}
		s.at += int64(n)
		if n > 0 {
			return n, nil
		}
		if err == nil {
			continue
		}
		if err == io.EOF && (s.desc.Size <= 0 || s.at >= s.desc.Size) {
			s.slot()
			return 0, io.EOF
		}
		if s.ctx.Err() != nil {
			return 0, context.Cause(s.ctx)
		}
		if err := s.again(err); err != nil {
			return 0, err
		}
	}
}

// again decides whether to go on after a connection broke by cause, and waits.
func (s *stream) again(cause error) error {
	s.disconnect()
	if errors.Is(cause, io.EOF) {
		cause = io.ErrUnexpectedEOF
	}
	if s.broken++; s.at-s.step >= minStep {
		s.broken = 0
	}
	if s.broken > 1 && s.from.mirror {
		s.r.miss(s.from) // there is another place
		s.broken = 0
	}
	if tries := s.r.client.current().Attempts; s.broken >= tries {
		return fault.New(fault.Unavailable, "connection to %s broke after %d of %d bytes, %d tries got no further: %w", s.from.lane.host, s.at, s.desc.Size, tries, cause)
	}
	pause, _ := s.r.client.pause(s.broken, nil)
	if s.broken == 0 {
		return s.ctx.Err() // it got further: no reason to wait
	}
	return s.r.client.wait(s.ctx, s.from.lane.host, fmt.Sprintf("connection broke: %v", cause), pause)
}

// Close ends the download.
func (s *stream) Close() error {
	s.disconnect()
	s.cancel()
	s.slot()
	return nil
}
