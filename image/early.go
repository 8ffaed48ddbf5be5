package image

import (
	"bytes"
	"context"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/archive"
	"berth/blob"
)

// early is a layer that is unpacked while its archive is read, before anybody knows whose layer it is: the archive's
// tables may come last. What fails here is unpacked once more when it is known to be needed, and then the error counts.
type early struct {
	stop context.CancelFunc
	done chan struct{} // closed when unpacked or failed
	st   atomic.Pointer[staged]

	budget *archive.Budget // what the layer takes is charged to its image by whoever takes it
}

// take waits for the layer and returns it to the first who asks, who owns it then; nil to others, and when it failed.
func (e *early) take(ctx context.Context) *staged {
	if e == nil {
		return nil
	}
	select {
	case <-e.done:
		return e.st.Swap(nil)
	case <-ctx.Done():
		return nil
	}
}

// drop ends the work and discards what nobody took. It has to be called.
func (e *early) drop() {
	e.stop()
	<-e.done
	e.st.Swap(nil).abort()
}

// maxEarly bounds the layers of an archive that are unpacked before they are known to be needed: each keeps a directory and a descriptor.
const maxEarly = 256

// startEarly unpacks what is being written to w, unless all workers are busy. The caller calls the follower's advance and
// finish; nil: there is none.
func (sp *spool) startEarly(ctx context.Context, w *blob.Writer, m *meter) (*early, *follower) {
	s := sp.c.s
	if len(sp.c.early) >= maxEarly {
		return nil, nil
	}
	select {
	case s.loaders <- struct{}{}:
	default:
		return nil, nil
	}
	f, err := w.Open()
	if err != nil {
		<-s.loaders
		return nil, nil
	}
	from := &follower{f: f, changed: make(chan struct{}, 1)}
	ctx, stop := context.WithCancel(ctx)
	e := &early{stop: stop, done: make(chan struct{}), budget: s.Limits.budget()}
	go func() {
		defer close(e.done)
		defer func() { <-s.loaders }()
		defer f.Close()
		if st, err := s.unpack(ctx, metered{from, m}, e.budget); err == nil {
			m.event.Current = m.event.Total
			m.to(m.event)
			e.st.Store(st)
		}
	}()
	return e, from
}

// follower reads a file to which somebody else writes, as far as he has got.
type follower struct {
	f       *os.File
	changed chan struct{} // has an entry when size or end may have changed
	mu      sync.Mutex
	size    int64 // bytes that can be read
	end     error // io.EOF: no more will come
	at      int64
}

// Read returns what is there, and waits when that is nothing.
func (f *follower) Read(p []byte) (int, error) {
	for {
		f.mu.Lock()
		size, end := f.size, f.end
		f.mu.Unlock()
		if left := size - f.at; left > 0 {
			n, err := f.f.ReadAt(p[:min(int64(len(p)), left)], f.at)
			f.at += int64(n)
			if n > 0 {
				return n, nil
			}
			return 0, err
		}
		if end != nil {
			return 0, end
		}
		<-f.changed
	}
}

func (f *follower) advance(n int) { f.change(n, nil) }

// finish ends the stream with err, io.EOF when it is complete. Further calls change nothing.
func (f *follower) finish(err error) { f.change(0, err) }

func (f *follower) change(n int, end error) {
	if f == nil {
		return
	}
	f.mu.Lock()
	f.size += int64(n)
	if f.end == nil {
		f.end = end
	}
	f.mu.Unlock()
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

// layerLike tells by a file's beginning whether it may be a layer: a tar, or compressed.
func layerLike(head []byte) bool {
	for _, magic := range []string{"\x1f\x8b", "\x28\xb5\x2f\xfd", "BZh", "\xfd7zXZ\x00"} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return true
		}
	}
	return len(head) > 262 && string(head[257:262]) == "ustar"
}

// learn finds out from a manifest or index that was just stored which layers need not be unpacked: those of other platforms.
func (sp *spool) learn(d digest.Digest, data []byte) {
	doc, err := parseDocument(ocispec.Descriptor{Digest: d}, data)
	if err != nil {
		return
	}
	for _, m := range doc.Manifests {
		if m.Platform != nil && !sp.c.wants(*m.Platform) {
			sp.others[m.Digest] = true
		}
	}
	if sp.others[d] {
		for _, l := range doc.Layers {
			sp.others[l.Digest] = true
		}
	}
}

// errOrEOF is how a stream ends that ended with err.
func errOrEOF(err error) error {
	if err == nil {
		return io.EOF
	}
	return err
}
