package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/archive"
	"berth/archive/compress"
	"berth/blob"
	"berth/fault"
	"berth/union"
)

// job is one layer that shall be in the blob store and unpacked in its chain.
type job struct {
	desc          ocispec.Descriptor
	diffID, chain digest.Digest   // "" where the image's manifest does not tell, as in schema 1
	below         *job            // the layer it lies on; nil: it is the lowest
	same          *job            // an earlier layer of the image with the same blob, which brings it
	done          chan struct{}   // closed when in place or failed
	err           error           // set before done is closed
	budget        *archive.Budget // of its image
	loading       bool            // it comes from an archive: other words for the progress
	kept          bool            // it is part of an artifact, and not unpacked
	early         *early          // it may be unpacked already; nil: it is not
}

func (j *job) parent() digest.Digest {
	if j.below == nil {
		return ""
	}
	return j.below.chain
}

// total is the blob's size in bytes for people, 0 when unknown.
func (j *job) total() int64 { return max(0, j.desc.Size) }

func (j *job) event(status string) Event { return Event{ID: shortID(j.desc.Digest), Status: status} }

// wait returns when the layer is in place; nil waits for nothing.
func (j *job) wait(ctx context.Context) error {
	if j == nil {
		return nil
	}
	select {
	case <-j.done:
		return j.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// place does one job: what is missing of blob and unpacked layer is brought. The expensive part runs beside
// that of other layers; only the last step, a rename, waits for the layer below.
func (s *Store) place(ctx context.Context, src Source, j *job, report func(Event)) error {
	st, err := s.prepare(ctx, src, j, report)
	if err != nil || st == nil {
		return err
	}
	defer st.stage.Abort()
	if err := j.below.wait(ctx); err != nil {
		return err
	}
	if err := st.stage.Commit(j.chain, j.parent(), st.unpacked); err != nil {
		return fmt.Errorf("keep layer %s: %w", j.desc.Digest, err)
	}
	if !j.loading {
		report(j.event(StatusComplete))
	}
	return nil
}

// prepare brings the blob and returns the unpacked layer, nil when it was here already.
func (s *Store) prepare(ctx context.Context, src Source, j *job, report func(Event)) (*staged, error) {
	if st := j.early.take(ctx); st != nil {
		if err := j.budget.Charge(j.early.budget); err != nil {
			return nil, errors.Join(err, st.stage.Abort())
		}
		return st.checked(j)
	}
	select {
	case s.slots <- struct{}{}:
	default:
		if !j.loading {
			report(j.event(StatusWaiting))
		}
		select {
		case s.slots <- struct{}{}:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	defer func() { <-s.slots }()
	haveChain := j.kept || s.layers.Has(j.chain)
	if s.blobs.Has(j.desc.Digest) {
		if haveChain {
			return nil, nil
		}
		st, err := s.unpackBlob(ctx, j, report)
		if err == nil || j.loading || !errors.Is(s.blobs.Verify(j.desc.Digest), fault.Corrupt) {
			return st, err
		}
		// What lies on disk is damaged, and the source may have it whole.
		if err := s.blobs.Remove(j.desc.Digest); err != nil {
			return nil, err
		}
	}
	w, _, err := s.blobs.Resume(j.desc.Digest)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	st, err := s.bring(ctx, src, j, w, haveChain, report)
	if err != nil && !resumable(err) {
		if dropErr := w.Restart(); !errors.Is(dropErr, fs.ErrClosed) { // else the blob was complete
			err = errors.Join(err, dropErr)
		}
	}
	if err == nil && st == nil {
		report(j.event(StatusComplete))
	}
	return st, err
}

// bring downloads a blob, and unpacks it meanwhile unless nobody needs that.
func (s *Store) bring(ctx context.Context, src Source, j *job, w *blob.Writer, unpacked bool, report func(Event)) (*staged, error) {
	if !unpacked {
		return s.downloadUnpack(ctx, src, j, w, report)
	}
	if err := s.download(ctx, src, j, w, nil, report); err != nil {
		return nil, fmt.Errorf("layer %s: %w", j.desc.Digest, err)
	}
	return nil, nil
}

// remote marks a failure of the place that content comes from.
type remote struct{ error }

// Unwrap returns the failure itself.
func (r remote) Unwrap() error { return r.error }

// resumable tells whether a later pull is likely to go on where err ended this one: the source broke off or was busy, or
// somebody canceled. Wrong content and a full disk are not; what arrived so far then does more harm than good.
func resumable(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	kind := fault.Of(err)
	return kind == fault.Unavailable || kind == "" && errors.As(err, &remote{})
}

// downloadUnpack stores the blob and unpacks it in the same pass.
func (s *Store) downloadUnpack(ctx context.Context, src Source, j *job, w *blob.Writer, report func(Event)) (*staged, error) {
	st, err := s.unpackWhile(ctx, j.budget, w, func(ctx context.Context, told func(int)) error {
		return s.download(ctx, src, j, w, told, report)
	})
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", j.desc.Digest, err)
	}
	report(Event{ID: shortID(j.desc.Digest), Status: StatusExtracting, Current: j.total(), Total: j.total()})
	return st.checked(j)
}

// unpackWhile runs store, which writes to w and calls the function that it gets with each step's bytes, and unpacks what is
// there of the blob meanwhile. The page cache lies between the two, so a slow unpacker holds no transfer up, and takes no memory of ours.
// store's error counts more.
func (s *Store) unpackWhile(ctx context.Context, budget *archive.Budget, w *blob.Writer, store func(context.Context, func(int)) error) (*staged, error) {
	f, err := w.Open()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var st *staged
	from := &follower{f: f, changed: make(chan struct{}, 1), size: w.Size()}
	unpacked := make(chan error, 1)
	go func() {
		got, err := s.unpack(ctx, from, budget)
		st = got
		// Damaged content may be the transfer's fault: it goes on, to compare the digest. All else ends it.
		if err != nil && !errors.Is(err, fault.Corrupt) {
			stop(err)
		}
		unpacked <- err
	}()
	err = store(ctx, from.advance)
	from.finish(errOrEOF(err))
	unpackErr := <-unpacked
	if err != nil {
		st.abort()
		return nil, err
	}
	return st, unpackErr
}

// download appends what is missing of the blob to w and commits it; told, unless nil, hears of each step's bytes. A broken
// stream leaves w to be resumed.
func (s *Store) download(ctx context.Context, src Source, j *job, w *blob.Writer, told func(int), report func(Event)) error {
	r, err := src.Fetch(ctx, j.desc, w.Size())
	if err != nil {
		return fmt.Errorf("fetch: %w", remote{err})
	}
	defer r.Close()
	m := &meter{event: Event{ID: shortID(j.desc.Digest), Status: StatusDownload, Current: w.Size(), Total: j.total()}, to: report}
	step := func(n int) {
		if told != nil {
			told(n)
		}
		m.add(n)
	}
	if err := copyChunks(ctx, r, w, j.desc.Size, step); err != nil {
		return fmt.Errorf("download: %w", err)
	}
	report(j.event(StatusVerifying))
	if _, err := w.Commit(j.desc.Digest, j.desc.Size); err != nil {
		return fmt.Errorf("download: %w", err)
	}
	report(j.event(StatusDownloaded))
	return nil
}

// copyChunks moves r into w; told hears of each step's bytes. More than size bytes are an error at once, fewer at
// the end; size -1 takes any number.
func copyChunks(ctx context.Context, r io.Reader, w *blob.Writer, size int64, told func(int)) error {
	c := chunk{data: chunks.Get().(*[chunkSize]byte)}
	defer func() { chunks.Put(c.data) }()
	for {
		err := c.fill(r)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if size >= 0 && w.Size()+int64(c.n) > size {
			return fault.New(fault.Corrupt, "more than the announced %d bytes came", size)
		}
		if _, werr := w.Write(c.data[:c.n]); werr != nil {
			return werr
		}
		told(c.n)
		if err == io.EOF {
			break
		}
		if err != nil {
			return remote{err}
		}
	}
	if size >= 0 && w.Size() < size {
		return fault.New(fault.Unavailable, "the stream ended after %d of %d bytes: pull again to fetch the rest", w.Size(), size)
	}
	return nil
}

// unpackBlob unpacks a layer from the blob store.
func (s *Store) unpackBlob(ctx context.Context, j *job, report func(Event)) (*staged, error) {
	f, err := s.blobs.Open(j.desc.Digest)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	m := &meter{event: Event{ID: shortID(j.desc.Digest), Status: StatusExtracting, Total: j.total()}, to: report}
	if j.loading {
		m.event.Status = StatusLoading
	}
	st, err := s.unpack(ctx, metered{f, m}, j.budget)
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", j.desc.Digest, err)
	}
	m.event.Current = j.total()
	report(m.event)
	return st.checked(j)
}

// staged is a layer that is unpacked but not yet part of a chain.
type staged struct {
	stage       *union.Stage
	unpacked    archive.Unpacked
	diffID      digest.Digest // "": the stream was plain, and has the digest of its blob
	compression compress.Kind
}

func (st *staged) abort() {
	if st != nil {
		st.stage.Abort()
	}
}

// checked returns st if it is the content that the image's config names.
func (st *staged) checked(j *job) (*staged, error) {
	if st.diffID == "" {
		st.diffID = j.desc.Digest // which was compared when the blob was committed
	}
	if st.diffID == j.diffID || j.diffID == "" {
		return st, nil
	}
	st.abort()
	return nil, fault.New(fault.Corrupt, "layer %s: uncompressed it has digest %s, but the image's config says %s", j.desc.Digest, st.diffID, j.diffID)
}

// unpack inflates r, hashes the plain stream and unpacks it into a stage, each in a goroutine of its own. It
// reads r to its end unless it fails.
func (s *Store) unpack(ctx context.Context, r io.Reader, budget *archive.Budget) (_ *staged, err error) {
	plain, compression, err := compress.Open(r)
	if err != nil {
		return nil, err
	}
	stage, err := s.layers.Stage()
	if err != nil {
		return nil, errors.Join(err, plain.Close())
	}
	out := newPipe()
	sum := sha256.New()
	var helpers sync.WaitGroup
	if compression == compress.None {
		helpers.Go(func() { pump(ctx, plain, out) })
	} else {
		inflated := newPipe()
		helpers.Go(func() { pump(ctx, plain, inflated) })
		helpers.Go(func() { hashing(inflated, out, sum) })
	}
	u, err := archive.Unpack(ctx, out, stage.Root(), archive.UnpackOptions{Whiteouts: true, MaxBytes: maxStream, Budget: budget})
	if err == nil {
		_, err = io.Copy(io.Discard, out) // none is left, if Unpack keeps its word
	}
	out.leave()
	helpers.Wait()
	err = errors.Join(err, plain.Close())
	if err != nil {
		return nil, errors.Join(err, stage.Abort())
	}
	st := &staged{stage: stage, unpacked: u, compression: compression}
	if compression != compress.None {
		st.diffID = digest.NewDigest(digest.SHA256, sum)
	}
	return st, nil
}

// pump reads r into the pipe until r ends or the pipe's reader is gone.
func pump(ctx context.Context, r io.Reader, to *pipe) {
	for {
		c, err := fill(r)
		if err == nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if !to.send(c) && err == nil {
			err = io.ErrClosedPipe
		}
		if err != nil {
			to.finish(err)
			return
		}
	}
}

// hashing passes chunks on and adds them to sum.
func hashing(from, to *pipe, sum hash.Hash) {
	defer from.leave()
	for {
		c, ok := from.next()
		if !ok {
			to.finish(from.end)
			return
		}
		sum.Write(c.data[:c.n])
		if !to.send(c) {
			to.finish(io.ErrClosedPipe)
			return
		}
	}
}
