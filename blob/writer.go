package blob

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"berth/fault"
	"berth/kernel"
)

const partSuffix = ".part"

// lookBytes is what is written between two looks at the room that the disk has left.
const lookBytes = 32 << 20

// Writer takes the bytes of one blob. It is for one goroutine.
type Writer struct {
	s    *Store
	f    *os.File // nil when finished
	hash hash.Hash
	size int64
	keep bool  // for a later Resume
	look int64 // size at which the disk is looked at next
	want digest.Digest
}

// Create starts new content of a digest yet unknown. The caller closes the writer.
func (s *Store) Create() (*Writer, error) {
	f, err := os.CreateTemp(s.ingest(), "new-*")
	if err != nil {
		return nil, fmt.Errorf("create blob: %w", err)
	}
	if err := lock(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &Writer{s: s, f: f, hash: sha256.New()}, nil
}

// lock marks f as in use for sweep. It is held by the open file.
func lock(f *os.File) error {
	free, err := kernel.TryLock(f)
	if err == nil && !free {
		err = fault.New(fault.Conflict, "%s is in use", f.Name())
	}
	return err
}

// Resume starts or continues the content of a known digest, such as a broken download, and
// returns how many bytes are there already (hashed). When another writer is busy with the same
// digest the new one starts at 0; whoever commits first wins and both succeed.
// Closing without Commit keeps the bytes for the next Resume.
func (s *Store) Resume(want digest.Digest) (*Writer, int64, error) {
	if _, err := s.path(want); err != nil {
		return nil, 0, err
	}
	path := filepath.Join(s.ingest(), want.Encoded()+partSuffix)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, 0, fmt.Errorf("resume blob %s: %w", want, err)
	}
	if !s.ours(f, path) {
		f.Close()
		w, err := s.Create()
		return w, 0, err
	}
	w := &Writer{s: s, f: f, hash: sha256.New(), keep: true, want: want}
	if w.size, err = io.Copy(w.hash, f); err != nil {
		return nil, 0, errors.Join(fmt.Errorf("resume blob %s: %w", want, err), f.Close())
	}
	return w, w.size, nil
}

// ours locks f and makes sure that path still names it: the writer before may have renamed it into the store.
func (s *Store) ours(f *os.File, path string) bool {
	if free, err := kernel.TryLock(f); err != nil || !free {
		return false
	}
	mine, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Lstat(path)
	return err == nil && os.SameFile(mine, named)
}

// Write appends and hashes p.
func (w *Writer) Write(p []byte) (int, error) {
	if w.f == nil {
		return 0, fmt.Errorf("write blob: %w", fs.ErrClosed)
	}
	if w.size >= w.look {
		if err := kernel.Room(w.f); err != nil {
			return 0, fmt.Errorf("write blob: %w", err)
		}
		w.look = w.size + lookBytes
	}
	n, err := w.f.Write(p)
	w.hash.Write(p[:n])
	w.size += int64(n)
	w.s.wrote(n)
	if err != nil {
		return n, fmt.Errorf("write blob: %w", err)
	}
	return n, nil
}

// Open opens the content for reading while it is written: what was written so far can be read. It stays open after Commit and
// Close. The caller closes it.
func (w *Writer) Open() (*os.File, error) {
	if w.f == nil {
		return nil, fmt.Errorf("open blob: %w", fs.ErrClosed)
	}
	return os.Open(w.f.Name())
}

// Size returns the bytes so far, those from before Resume included.
func (w *Writer) Size() int64 { return w.size }

// Digest returns the digest of the bytes so far.
func (w *Writer) Digest() digest.Digest { return digest.NewDigest(digest.SHA256, w.hash) }

// Restart drops the bytes so far, for a source that can't continue where it broke off.
func (w *Writer) Restart() error {
	if w.f == nil {
		return fmt.Errorf("restart blob: %w", fs.ErrClosed)
	}
	if err := w.f.Truncate(0); err != nil {
		return err
	}
	if _, err := w.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	w.hash.Reset()
	w.size = 0
	return nil
}

// Commit puts the content in the store and returns its digest. want "" (of a resumed
// writer: its own digest) and size -1 accept any; a mismatch is fault.Corrupt with both values
// and drops the content. The writer is finished in either case.
func (w *Writer) Commit(want digest.Digest, size int64) (digest.Digest, error) {
	if w.f == nil {
		return "", fmt.Errorf("commit blob: %w", fs.ErrClosed)
	}
	if want == "" {
		want = w.want
	}
	w.keep = false // what doesn't match can't be continued either
	got := w.Digest()
	err := check(want, got, size, w.size)
	if err == nil {
		err = w.publish(got)
	}
	return got, errors.Join(err, w.Close())
}

func check(want, got digest.Digest, size, n int64) error {
	if size >= 0 && size != n {
		return fault.New(fault.Corrupt, "the content has %d bytes, expected %d: digest %s", n, size, got)
	}
	if want != "" && want != got {
		return fault.New(fault.Corrupt, "digest mismatch: the content has %s, expected %s", got, want)
	}
	return nil
}

func (w *Writer) publish(d digest.Digest) error {
	path, err := w.s.path(d)
	if err != nil {
		return err
	}
	if err := w.s.publish(w.f.Name(), path); err != nil {
		return fmt.Errorf("commit blob %s: %w", d, err)
	}
	f := w.f
	w.f = nil
	return f.Close()
}

// Close releases the writer; without a Commit its content is dropped (Create) or kept for
// later (Resume). It may be called more than once.
func (w *Writer) Close() error {
	if w.f == nil {
		return nil
	}
	var err error
	if !w.keep || w.size == 0 {
		err = os.Remove(w.f.Name())
	}
	err = errors.Join(err, w.f.Close())
	w.f = nil
	return err
}
