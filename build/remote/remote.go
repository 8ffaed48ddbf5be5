// Package remote fetches what a build takes from other places: files by HTTP, trees of files out of git repositories.
//
// It is no cache of what was built, and knows no registry. It keeps copies, so that what did not change is not sent again.
// Invariant: a kept copy never changes, it is only replaced; what a caller gets is a directory of its own, gone when it is closed.
package remote

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"berth/build/dockerfile"
	"berth/fault"
	"berth/internal/record"
)

// Store fetches. Its methods may be called concurrently.
//
//	DIR/http/KEY/record.json, content-N   what an address gave
//	DIR/git/KEY.json, KEY/                a mirror of a repository, as far as it was needed
//	DIR/use/N/                            what is in use; emptied at the start
type Store struct {
	Limit int64 // of one file, and of one tree, in bytes; set before use

	dir   string
	files int64 // of one tree
	log   *slog.Logger
	user  *user // whom git runs as; nil: the daemon itself
	http  *http.Client

	mu    sync.Mutex
	locks map[string]*lock
}

// DefaultLimit is the size of the biggest file or tree that is fetched, in bytes.
const DefaultLimit = 64 << 30

// Client is whoever asked for the build, as far as other places ask for secrets.
type Client interface {
	// Secret gives a secret's content; fault.NotFound when there is none of that id.
	Secret(ctx context.Context, id string) ([]byte, error)
	// Agent opens a connection to an ssh agent; fault.NotFound when there is none of that id.
	Agent(ctx context.Context, id string) (io.ReadWriteCloser, error)
}

// Progress is how far something is that is fetched.
type Progress struct {
	Part    string // what
	Current int64  // bytes
	Total   int64  // 0: not known
	Done    bool
}

// Found is something that is there. The caller closes it.
type Found struct {
	Key  string // of its content: alike for what is alike
	Name string // of the file that it is; "": it is a tree

	s     *Store
	dir   string // below use, once it is fetched
	top   *os.File
	fetch func(ctx context.Context, f *Found) error // fills dir, and opens top
}

// Open makes a store in dir, whose parent is the engine's own, and clears away what one that died left in use.
func Open(dir string, log *slog.Logger) (*Store, error) {
	s := &Store{Limit: DefaultLimit, dir: dir, log: log, files: maxFiles, http: newClient(), locks: map[string]*lock{}}
	if err := os.RemoveAll(filepath.Join(dir, "use")); err != nil {
		return nil, fmt.Errorf("clear away what builds had fetched: %w", err)
	}
	for _, sub := range []string{"use", "http", "git"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o711); err != nil {
			return nil, fmt.Errorf("open the store of fetched files: %w", err)
		}
	}
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil { // whom git runs as goes through it; what lies beside is closed itself
		return nil, fmt.Errorf("open the store of fetched files: %w", err)
	}
	s.user = gitUser(filepath.Join(dir, "use"))
	if err := record.Sweep(filepath.Join(dir, "git")); err != nil {
		return nil, fmt.Errorf("open the store of fetched files: %w", err)
	}
	return s, nil
}

// Find looks for what from names, an address or something in a repository. What it has to know of it, it asks there; it fetches no more than that.
func (s *Store) Find(ctx context.Context, from *dockerfile.Source, c Client, tell func(Progress)) (*Found, error) {
	if tell == nil {
		tell = func(Progress) {}
	}
	if from.Git != nil {
		return s.findGit(ctx, *from.Git, c, tell)
	}
	return s.findHTTP(ctx, from, c, tell)
}

// Fetch brings it, once, and gives the directory that has it, which is f's.
func (f *Found) Fetch(ctx context.Context) (*os.File, error) {
	if f.top != nil {
		return f.top, nil
	}
	if err := f.own(); err != nil {
		return nil, err
	}
	if err := f.fetch(ctx, f); err != nil {
		return nil, err
	}
	return f.top, nil
}

// own makes the directory that f has for itself.
func (f *Found) own() (err error) {
	if f.dir == "" {
		f.dir, err = os.MkdirTemp(filepath.Join(f.s.dir, "use"), "")
	}
	return err
}

// Close gives up what was fetched.
func (f *Found) Close() (err error) {
	if f.top != nil {
		err = f.top.Close()
	}
	if f.dir != "" {
		err = errors.Join(err, os.RemoveAll(f.dir))
	}
	return err
}

// lock is held by one at a time.
type lock struct {
	free    chan struct{} // has one element when nobody holds it
	waiting int
}

// lock waits for what is kept under key to be nobody else's.
func (s *Store) lock(ctx context.Context, key string) (unlock func(), err error) {
	s.mu.Lock()
	l := s.locks[key]
	if l == nil {
		l = &lock{free: make(chan struct{}, 1)}
		l.free <- struct{}{}
		s.locks[key] = l
	}
	l.waiting++
	s.mu.Unlock()
	select {
	case <-l.free:
		return func() { l.free <- struct{}{}; s.leave(key, l) }, nil
	case <-ctx.Done():
		s.leave(key, l)
		return nil, fault.Wrap(fault.Canceled, ctx.Err())
	}
}

// lockFree locks what nobody else has, or gives nil.
func (s *Store) lockFree(key string) (unlock func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.locks[key] != nil {
		return nil
	}
	l := &lock{free: make(chan struct{}, 1), waiting: 1}
	s.locks[key] = l
	return func() { l.free <- struct{}{}; s.leave(key, l) }
}

// leave is called by who does not wait for a lock any more, nor has it.
func (s *Store) leave(key string, l *lock) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.waiting--; l.waiting == 0 {
		delete(s.locks, key)
	}
}

func hash(words ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(words, "\x00")))
	return hex.EncodeToString(sum[:16])
}

// Entry is a kept copy.
type Entry struct {
	ID   string
	From string // without a password
	Size int64  // bytes
	Made time.Time
	Used time.Time
	Uses int
}

// kept is the record of a copy.
type kept struct {
	From         string
	Digest       string `json:",omitempty"` // of a file
	Size         int64
	ETag         string `json:",omitempty"`
	LastModified string `json:",omitempty"`
	Name         string `json:",omitempty"` // that the server gave
	Content      string `json:",omitempty"` // the file beside the record
	Made, Used   time.Time
	Uses         int
}

// use says that a copy was of use. It may be lost, as that is no loss.
func (k *kept) use() {
	k.Used = time.Now().UTC()
	if k.Uses++; k.Made.IsZero() {
		k.Made = k.Used
	}
}

// Entries lists the kept copies.
func (s *Store) Entries() (all []Entry) {
	for _, kind := range []string{"http", "git"} {
		names, err := filepath.Glob(filepath.Join(s.dir, kind, "*"))
		if err != nil {
			continue // a bad pattern it is not
		}
		for _, name := range names {
			file, id := filepath.Join(name, "record.json"), kind+"/"+filepath.Base(name)
			if kind == "git" {
				if !strings.HasSuffix(name, ".json") {
					continue
				}
				file, id = name, strings.TrimSuffix(id, ".json")
			}
			var k kept
			if record.Load(file, &k) == nil {
				all = append(all, Entry{ID: id, From: k.From, Size: k.Size, Made: k.Made, Used: k.Used, Uses: k.Uses})
			}
		}
	}
	return all
}

// Remove forgets kept copies, but for those that are just made or read. Those who have something of them keep it.
func (s *Store) Remove(ids []string) (err error) {
	for _, id := range ids {
		kind, key, _ := strings.Cut(id, "/")
		if (kind != "http" && kind != "git") || key != filepath.Base(key) || key == ".." || key == "." {
			continue
		}
		unlock := s.lockFree(id)
		if unlock == nil {
			continue
		}
		path := filepath.Join(s.dir, kind, key)
		err = errors.Join(err, os.RemoveAll(path+".json"), os.RemoveAll(path))
		unlock()
	}
	return err
}
