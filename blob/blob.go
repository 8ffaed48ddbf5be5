// Package blob keeps immutable content under its sha256 digest.
//
// It is not a cache with a policy and knows no references: who removes what is decided
// above. Invariant: a file with a digest's name holds exactly that content;
// it gets the name by rename after its last byte was hashed.
//
//	DIR/sha256/HEX        content
//	DIR/ingest/HEX.part   unfinished content of a known digest, continued by Resume
//	DIR/ingest/new-*      unfinished content
//	DIR/unsynced          boot id: content came since the last Sync, during this boot
package blob

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/fault"
	"berth/internal/record"
	"berth/kernel"
)

// Store is content by digest in one directory. Its methods may be called concurrently.
type Store struct {
	dir string

	mu    sync.Mutex
	dirty bool // DIR/unsynced exists

	flush flush
}

// keepPartial is how long a broken download can be resumed.
const keepPartial = 7 * 24 * time.Hour

// Open returns the store in dir, made when missing, after removing what dead
// writers left. Partial downloads that Resume could continue stay for a week. When the machine
// went down with content that was never synced, that content is read once and dropped if damaged.
func Open(dir string) (*Store, error) {
	s := &Store{dir: dir}
	for _, d := range []string{s.content(), s.ingest()} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("open blob store: %w", err)
		}
	}
	if err := s.sweep(); err != nil {
		return nil, fmt.Errorf("sweep blob store: %w", err)
	}
	if err := s.recover(); err != nil {
		return nil, fmt.Errorf("check blob store after a crash: %w", err)
	}
	return s, nil
}

func (s *Store) content() string  { return filepath.Join(s.dir, "sha256") }
func (s *Store) ingest() string   { return filepath.Join(s.dir, "ingest") }
func (s *Store) unsynced() string { return filepath.Join(s.dir, "unsynced") }

func (s *Store) path(d digest.Digest) (string, error) {
	if err := d.Validate(); err != nil || d.Algorithm() != digest.SHA256 {
		return "", fault.New(fault.Invalid, "digest %q: only sha256 with 64 hexadecimal digits is supported", d)
	}
	return filepath.Join(s.content(), d.Encoded()), nil
}

// sweep removes unfinished content that no writer holds; a writer's lock ends with its process.
func (s *Store) sweep() error {
	entries, err := os.ReadDir(s.ingest())
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(s.ingest(), e.Name())
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) || err == nil && strings.HasSuffix(e.Name(), partSuffix) && time.Since(info.ModTime()) < keepPartial {
			continue
		}
		if err != nil {
			return err
		}
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		free, err := kernel.TryLock(f)
		if free {
			err = os.Remove(path)
		}
		fault.Close(f, &err)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Open opens content for reading; fault.NotFound when absent. The caller closes it.
func (s *Store) Open(d digest.Digest) (*os.File, error) {
	path, err := s.path(d)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	return f, absent(d, err)
}

func absent(d digest.Digest, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.NotFound, "blob %s: not found", d)
	}
	if err != nil {
		return fmt.Errorf("blob %s: %w", d, err)
	}
	return nil
}

// Has tells whether the content is here.
func (s *Store) Has(d digest.Digest) bool {
	_, err := s.Size(d)
	return err == nil
}

// Size returns the content's length in bytes; fault.NotFound when absent.
func (s *Store) Size(d digest.Digest) (int64, error) {
	path, err := s.path(d)
	if err != nil {
		return 0, err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return 0, absent(d, err)
	}
	return info.Size(), nil
}

// Remove forgets the content; files that are open stay readable. Absent content is no error.
func (s *Store) Remove(d digest.Digest) error {
	path, err := s.path(d)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove blob %s: %w", d, err)
	}
	return nil
}

// Walk calls fn for all content, in the order of digests, until fn fails.
func (s *Store) Walk(fn func(d digest.Digest, size int64) error) error {
	entries, err := os.ReadDir(s.content())
	if err != nil {
		return fmt.Errorf("walk blobs: %w", err)
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	for _, e := range entries {
		d := digest.NewDigestFromEncoded(digest.SHA256, e.Name())
		info, err := e.Info()
		if d.Validate() != nil || errors.Is(err, fs.ErrNotExist) {
			continue // not ours, or removed meanwhile
		}
		if err != nil {
			return fmt.Errorf("walk blobs: %w", err)
		}
		if err := fn(d, info.Size()); err != nil {
			return err
		}
	}
	return nil
}

// Verify reads the content and compares it with its digest: fault.Corrupt when it differs.
func (s *Store) Verify(d digest.Digest) (err error) {
	f, err := s.Open(d)
	if err != nil {
		return err
	}
	defer fault.Close(f, &err)
	got, err := digest.SHA256.FromReader(f)
	if err != nil {
		return fmt.Errorf("verify blob %s: %w", d, err)
	}
	if got != d {
		return fault.New(fault.Corrupt, "blob %s: the stored content has digest %s", d, got)
	}
	return nil
}

// Sync makes everything committed so far survive a power cut (one syncfs for
// all of it). Call it before something durable refers to new content.
func (s *Store) Sync() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.dirty {
		return nil
	}
	if err := errors.Join(s.flush.failure(), s.syncFS()); err != nil {
		return fmt.Errorf("sync blobs: %w", err)
	}
	if err := os.Remove(s.unsynced()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("sync blobs: %w", err)
	}
	s.dirty = false
	return nil
}

// publish renames a finished file to its digest's name. That unsynced content exists is on disk before
// the name is, so that a power cut can't leave a name over missing bytes unnoticed.
func (s *Store) publish(from, to string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.dirty {
		boot, err := bootID()
		if err != nil {
			return err
		}
		if err := record.Save(s.unsynced(), boot); err != nil {
			return err
		}
		s.dirty = true
	}
	return os.Rename(from, to)
}

// recover acts on the mark that publish left. In the boot that wrote it
// the page cache holds everything; after another one, what came since may have lost its bytes.
func (s *Store) recover() error {
	var boot string
	err := record.Load(s.unsynced(), &boot)
	if errors.Is(err, fault.NotFound) {
		return record.Sweep(s.dir)
	}
	if err != nil && !errors.Is(err, fault.Corrupt) {
		return err
	}
	now, err := bootID()
	if err != nil {
		return err
	}
	s.dirty = true
	if boot != now {
		mark, err := os.Lstat(s.unsynced())
		if err != nil {
			return err
		}
		if err := s.dropDamaged(mark.ModTime()); err != nil {
			return err
		}
	}
	return s.Sync()
}

// dropDamaged verifies what was written at about since or later.
func (s *Store) dropDamaged(since time.Time) error {
	return s.Walk(func(d digest.Digest, _ int64) error {
		path, err := s.path(d)
		if err != nil {
			return err
		}
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		changed := kernel.ChangeTime(info)
		if changed.Before(since.Add(-time.Minute)) {
			return nil
		}
		err = s.Verify(d)
		if errors.Is(err, fault.Corrupt) {
			return s.Remove(d)
		}
		return err
	})
}

func bootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(data)), err
}
