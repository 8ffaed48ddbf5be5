// Package contexts keeps the files that clients build from, so that the next build of the same directory sends only what changed.
//
// It reads no Dockerfile and knows no client: what is there, the other end of package transfer lists, and what is needed, patterns say. Invariant: a
// file that is said to have a digest has that content, whatever died when; what is not sure is sent again.
package contexts

import (
	"archive/tar"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"

	"berth/build/transfer"
	"berth/fault"
	"berth/kernel"
)

// Store is a directory of trees. All methods may be called concurrently.
//
//	DIR/KEY/files    a tree
//	DIR/KEY/index    what it has
//	DIR/context-…    one that goes with its build
type Store struct {
	dir string

	mu   sync.Mutex
	busy map[string]bool
}

// Limits on what stays for a next build that may never come.
const (
	maxAge  = 14 * 24 * time.Hour
	maxKept = 64
)

// keys are the names of kept trees; whoever makes one hashes what tells a client's directory from others.
var keys = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Open makes dir a store, and removes what an engine that died left in it of builds, and what was not used for long.
func Open(dir string) (*Store, error) {
	s := &Store{dir: dir, busy: map[string]bool{}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the build contexts: %w", err)
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open the build contexts: %w", err)
	}
	for _, n := range names {
		if !keys.MatchString(n.Name()) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, n.Name())))
		}
	}
	if err = errors.Join(err, s.tidy()); err != nil {
		return nil, fmt.Errorf("open the build contexts: %w", err)
	}
	return s, nil
}

// Kept is a tree that stays for the next build.
type Kept struct {
	Key  string
	From string // what it is a copy of, for people
	Size int64  // of its files, in bytes
	Made time.Time
	Used time.Time
	Busy bool // a build has it
}

// List tells what there is, what was used longest ago first.
func (s *Store) List() (all []Kept, err error) {
	names, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list the build contexts: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range names {
		if !keys.MatchString(n.Name()) {
			continue
		}
		k := Kept{Key: n.Name(), Busy: s.busy[n.Name()]}
		if x, info, err := readHead(filepath.Join(s.dir, n.Name(), "index")); err == nil {
			k.From, k.Size, k.Made, k.Used = x.from, x.size, time.Unix(0, x.made), info.ModTime()
		}
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b Kept) int { return cmp.Or(a.Used.Compare(b.Used), cmp.Compare(a.Key, b.Key)) })
	return all, nil
}

// Remove removes a tree; fault.Conflict when a build has it.
func (s *Store) Remove(key string) error {
	if !keys.MatchString(key) {
		return fault.New(fault.Invalid, "%q names no build context", key)
	}
	if !s.take(key) {
		return fault.New(fault.Conflict, "the build context %s is in use", key)
	}
	defer s.give(key)
	return s.discard(key)
}

func (s *Store) discard(key string) error {
	err := os.Remove(filepath.Join(s.dir, key, "index")) // first: files without an index are nothing
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, os.RemoveAll(filepath.Join(s.dir, key)))
}

func (s *Store) take(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	free := !s.busy[key]
	s.busy[key] = true
	return free
}

func (s *Store) give(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.busy, key)
}

// tidy removes what was not used for long.
func (s *Store) tidy() error {
	all, err := s.List()
	for n, k := range all {
		if k.Busy || time.Since(k.Used) < maxAge && len(all)-n <= maxKept {
			continue
		}
		if rmErr := s.Remove(k.Key); !errors.Is(rmErr, fault.Conflict) {
			err = errors.Join(err, rmErr)
		}
	}
	return err
}

// Tree is a tree of files that a build has for itself.
type Tree struct {
	store *Store
	key   string // "": it goes with the build
	dir   string
	top   *os.File
	index index
}

// Tree gives the tree of a key, or an empty one that goes with the build when another build has that, or key is "". from says what it is
// a copy of. The caller closes it.
func (s *Store) Tree(key, from string) (t *Tree, err error) {
	if key != "" && !keys.MatchString(key) {
		return nil, fault.New(fault.Invalid, "%q names no build context", key)
	}
	if key == "" || !s.take(key) {
		dir, err := os.MkdirTemp(s.dir, "context-")
		if err != nil {
			return nil, fmt.Errorf("make a build context: %w", err)
		}
		t = &Tree{store: s, dir: dir}
	} else {
		t = &Tree{store: s, key: key, dir: filepath.Join(s.dir, key)}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.Close())
		}
	}()
	if t.key != "" {
		if t.index, err = readIndex(t.path("index")); err != nil { // a new one, or one that can't be trusted
			if err := errors.Join(s.tidy(), s.discard(key)); err != nil {
				return nil, err
			}
		}
	}
	t.index.from, t.index.made = from, cmp.Or(t.index.made, time.Now().UnixNano())
	if err := os.MkdirAll(t.path("files"), 0o700); err != nil {
		return nil, fmt.Errorf("make a build context: %w", err)
	}
	if t.top, err = kernel.OpenIn(nil, t.path("files"), kernel.ODirectory, 0, 0); err != nil {
		return nil, err
	}
	return t, kernel.ScatterDirs(t.top)
}

func (t *Tree) path(name string) string { return filepath.Join(t.dir, name) }

// Top is the tree's directory, which stays the tree's, and which nobody else writes to.
func (t *Tree) Top() *os.File { return t.top }

// Each tells all that lies at p and below it, as package archive packs it, with the digests of the files' contents. ok is false when p is not
// what the index has it under, such as a path with links.
func (t *Tree) Each(p string, fn func(hdr *tar.Header, digest string)) (ok bool) {
	p = filepath.Clean("/" + p)[1:]
	from, to := t.index.span(p)
	if from == to && p != "" {
		return false
	}
	for k := from; k < to; k++ {
		if t.index.all[k].state == unsure {
			return false
		}
	}
	first := map[string]string{} // a file's first name here, by its first name
	for k := from; k < to; k++ {
		one := &t.index.all[k]
		if one.state == gone {
			continue
		}
		hdr := &tar.Header{Name: one.Path, Mode: int64(one.Mode & 0o7777), Typeflag: typeflag(&one.Entry), Linkname: one.Target}
		for name, value := range one.Xattrs {
			if hdr.PAXRecords == nil {
				hdr.PAXRecords = map[string]string{}
			}
			hdr.PAXRecords["SCHILY.xattr."+name] = value
		}
		sum := ""
		switch hdr.Typeflag {
		case tar.TypeReg:
			name := cmp.Or(one.link, one.Path)
			if before := first[name]; before != "" {
				hdr.Typeflag, hdr.Linkname, hdr.PAXRecords = tar.TypeLink, before, nil
				break
			}
			first[name] = one.Path
			sum = hex.EncodeToString(one.digest[:])
		case tar.TypeChar, tar.TypeBlock:
			major, minor := kernel.DevNumbers(one.Device)
			hdr.Devmajor, hdr.Devminor = int64(major), int64(minor)
		}
		fn(hdr, sum)
	}
	return true
}

func typeflag(e *transfer.Entry) byte {
	switch e.Mode & kernel.TypeMask {
	case kernel.TypeDir:
		return tar.TypeDir
	case kernel.TypeSymlink:
		return tar.TypeSymlink
	case kernel.TypeFifo:
		return tar.TypeFifo
	case kernel.TypeChar:
		return tar.TypeChar
	case kernel.TypeBlock:
		return tar.TypeBlock
	}
	return tar.TypeReg
}

// Close ends the build's use of the tree. It stays when it has a key.
func (t *Tree) Close() error {
	var err error
	if t.top != nil {
		err = t.top.Close()
	}
	if t.key == "" {
		return errors.Join(err, os.RemoveAll(t.dir))
	}
	t.store.give(t.key)
	return err
}
