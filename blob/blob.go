// Package blob keeps immutable content under its sha256 digest.
//
// It is not a cache with a policy and knows no references: who removes what is decided
// above. Invariant: a file with a digest's name holds exactly that content;
// it gets the name by rename after its last byte was hashed.
//
//	DIR/sha256/HEX   content
//	DIR/ingest/      unfinished content
package blob

import (
	"os"

	"github.com/opencontainers/go-digest"

	"berth/fault"
)

// Store is content by digest in one directory. Its methods may be called concurrently.
type Store struct{ dir string }

var errNotBuilt = fault.New(fault.Unsupported, "blob: not built yet")

// Open returns the store in dir, made when missing, after removing what dead writers left.
// Partial downloads that Resume could continue stay for a week.
func Open(dir string) (*Store, error) { return nil, errNotBuilt }

// Create starts new content of a digest yet unknown. The caller closes the writer.
func (s *Store) Create() (*Writer, error) { return nil, errNotBuilt }

// Resume starts or continues the content of a known digest, such as a broken download, and
// returns how many bytes are there already (hashed). When another writer is busy with the same
// digest the new one starts at 0; whoever commits first wins and both succeed.
// Closing without Commit keeps the bytes for the next Resume.
func (s *Store) Resume(want digest.Digest) (*Writer, int64, error) { return nil, 0, errNotBuilt }

// Open opens content for reading; fault.NotFound when absent. The caller closes it.
func (s *Store) Open(d digest.Digest) (*os.File, error) { return nil, errNotBuilt }

// Has tells whether the content is here.
func (s *Store) Has(d digest.Digest) bool { return false }

// Size returns the content's length in bytes; fault.NotFound when absent.
func (s *Store) Size(d digest.Digest) (int64, error) { return 0, errNotBuilt }

// Remove forgets the content; files that are open stay readable. Absent content is no error.
func (s *Store) Remove(d digest.Digest) error { return errNotBuilt }

// Walk calls fn for all content, in the order of digests, until fn fails.
func (s *Store) Walk(fn func(d digest.Digest, size int64) error) error { return errNotBuilt }

// Verify reads the content and compares it with its digest: fault.Corrupt when it differs.
func (s *Store) Verify(d digest.Digest) error { return errNotBuilt }

// Sync makes everything committed so far survive a power cut (one syncfs for
// all of it). Call it before something durable refers to new content.
func (s *Store) Sync() error { return errNotBuilt }

// Writer takes the bytes of one blob. It is for one goroutine.
type Writer struct{}

// Write appends and hashes p.
func (w *Writer) Write(p []byte) (int, error) { return 0, errNotBuilt }

// Size returns the bytes so far, those from before Resume included.
func (w *Writer) Size() int64 { return 0 }

// Digest returns the digest of the bytes so far.
func (w *Writer) Digest() digest.Digest { return "" }

// Commit puts the content in the store and returns its digest. want "" and
// size -1 accept any; a mismatch is fault.Corrupt with both values and drops
// the content. The writer is finished in either case.
func (w *Writer) Commit(want digest.Digest, size int64) (digest.Digest, error) {
	return "", errNotBuilt
}

// Close releases the writer; without a Commit its content is dropped (Create) or kept for later (Resume). It may be called more than once.
func (w *Writer) Close() error { return nil }
