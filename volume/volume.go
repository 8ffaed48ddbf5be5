// Package volume keeps named directories that outlive containers.
//
// It is not a mount table and knows no containers: who uses a volume, and whether it
// may go, is decided above. Invariant: a volume that is listed has its directory and
// its record, and first content appears in one step.
//
//	DIR/NAME/_data        what containers see
//	DIR/NAME/volume.json
package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"berth/archive"
	"berth/fault"
	"berth/internal/record"
	"berth/kernel"
)

// Volume is one named directory.
type Volume struct {
	Name      string
	Moving    string `json:",omitempty"` // the name that it gets, or just got, while a renaming is not done with
	Created   time.Time
	Anonymous bool              // named by us; a prune may take it
	Driver    string            `json:",omitempty"` // that keeps it; "" is this store
	Labels    map[string]string `json:",omitempty"`
	Options   map[string]string `json:",omitempty"`

	Project uint32 `json:",omitempty"` // whose quota bounds it; 0: nothing does

	Path string `json:"-"` // the directory that containers see

	recorded string // the name in the record
}

// Store is the volumes of one data root. Its methods may be called concurrently; whoever changes the content of one volume keeps others from doing so.
type Store struct {
	dir    string
	mu     sync.Mutex      // what is listed, and stages
	stages map[string]bool // that somebody is at work in
}

const (
	dataDir     = "_data"
	stagePrefix = ".stage-" // no name of a volume begins with a dot
	recordFile  = "volume.json"
)

var namePattern = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`) })

// CheckName is fault.Invalid, in the words that tools know, for what can't be a volume's name.
func CheckName(name string) error {
	if namePattern().MatchString(name) {
		return nil
	}
	return fault.New(fault.Invalid, "create %s: %q includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path", name, name)
}

// Open returns the store in dir, made when missing, and removes what a crash left half-made.
func Open(dir string) (*Store, error) {
	// Nobody else passes: root's setuid programs in a volume may come from inside a container (CVE-2021-41091).
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.Chmod(dir, 0o700)); err != nil {
		return nil, fmt.Errorf("open the store of volumes: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open the store of volumes: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), stagePrefix) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
			continue
		}
		if _, statErr := os.Stat(filepath.Join(dir, e.Name(), recordFile)); statErr != nil {
			continue
		}
		if mkErr := os.Mkdir(filepath.Join(dir, e.Name(), dataDir), 0o755); !errors.Is(mkErr, fs.ErrExist) {
			err = errors.Join(err, mkErr)
		}
	}
	return &Store{dir: dir}, err
}

func (s *Store) path(name string) string { return filepath.Join(s.dir, name) }

// Get finds a volume. fault.NotFound in the words that tools know.
func (s *Store) Get(name string) (*Volume, error) {
	if namePattern().MatchString(name) {
		v := &Volume{}
		err := record.Load(filepath.Join(s.path(name), recordFile), v)
		if err == nil {
			v.recorded, v.Name = v.Name, name // a renaming moves the directory first
			v.Path = filepath.Join(s.path(name), dataDir)
			return v, nil
		}
		if !errors.Is(err, fault.NotFound) {
			return nil, fmt.Errorf("get volume %s: %w", name, err)
		}
	}
	return nil, fault.New(fault.NotFound, "get %s: no such volume", name)
}

// Create makes a volume, or returns the one that has the name already; created tells which.
func (s *Store) Create(v Volume) (made *Volume, created bool, err error) {
	return s.CreateFilled(v, func(string) error { return nil })
}

// CreateFilled is Create of a volume that begins with what fill puts into its directory.
func (s *Store) CreateFilled(v Volume, fill func(dir string) error) (made *Volume, created bool, err error) {
	if err := CheckName(v.Name); err != nil {
		return nil, false, err
	}
	if old, err := s.Get(v.Name); err == nil || !errors.Is(err, fault.NotFound) {
		return old, false, err
	}
	if v.Created.IsZero() {
		v.Created = time.Now().UTC()
	}
	save := record.Save
	if v.Anonymous {
		save = record.Put
	}
	if _, size, err := ParseOptions(v.Options); err == nil && size > 0 && v.Driver == "" {
		if err := s.bound(&v, size); err != nil {
			return nil, false, fmt.Errorf("create %s: %w", v.Name, err)
		}
		defer func() {
			if !created {
				err = errors.Join(err, s.unbound(&v))
			}
		}()
	}
	err = s.staged(func(stage string) error {
		dir := filepath.Join(stage, dataDir)
		err := errors.Join(os.Chmod(stage, 0o711), os.Mkdir(dir, 0o755), os.Chmod(dir, 0o755), save(filepath.Join(stage, recordFile), v))
		if err == nil {
			err = v.join(dir)
		}
		if err == nil {
			err = fill(dir)
		}
		if err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if made, err = s.Get(v.Name); err == nil || !errors.Is(err, fault.NotFound) {
			return err // somebody was faster
		}
		created = true
		// A directory without a record is what a removal left.
		return errors.Join(os.RemoveAll(s.path(v.Name)), os.Rename(stage, s.path(v.Name)))
	})
	if err != nil {
		return nil, false, fmt.Errorf("create volume %s: %w", v.Name, err)
	}
	if created {
		v.Path = filepath.Join(s.path(v.Name), dataDir)
		made = &v
	}
	return made, created, nil
}

// staged runs work with a directory that is not listed. What is left of it afterwards is removed.
func (s *Store) staged(work func(stage string) error) error {
	s.mu.Lock()
	stage, err := os.MkdirTemp(s.dir, stagePrefix)
	if err == nil {
		if s.stages == nil {
			s.stages = map[string]bool{}
		}
		s.stages[filepath.Base(stage)] = true
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	err = errors.Join(work(stage), os.RemoveAll(stage))
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.stages, filepath.Base(stage))
	return err
}

// FillIn is Fill for a directory anywhere. It is empty, or what it has is from a copy that was cut short; that is removed.
func FillIn(ctx context.Context, dir string, tree *os.File) error {
	stage := filepath.Join(dir, stagePrefix+"copy")
	if _, err := os.Lstat(stage); err != nil {
		if empty, err := isEmpty(dir); err != nil || !empty {
			return err
		}
	} else if err := clear(dir, filepath.Base(stage)); err != nil {
		return err
	}
	if err := os.Mkdir(stage, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := copyTree(ctx, stage, tree); err != nil {
		return errors.Join(fmt.Errorf("fill %s: %w", dir, err), os.RemoveAll(stage))
	}
	top, err := os.Open(stage)
	if err != nil {
		return err
	}
	defer top.Close()
	names, err := top.Readdirnames(-1)
	for _, name := range names {
		err = errors.Join(err, os.Rename(filepath.Join(stage, name), filepath.Join(dir, name)))
	}
	if err != nil {
		return err
	}
	// What a tree has of its own at its top.
	return errors.Join(sameTop(top, dir), os.Remove(stage))
}

// clear removes all of a directory but one name.
func clear(dir, but string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if e.Name() != but {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(err, os.RemoveAll(filepath.Join(dir, but)))
}

// sameTop gives dir owner, mode and time of the directory from.
func sameTop(from *os.File, dir string) error {
	to, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer to.Close()
	st, err := kernel.Stat(from)
	if err != nil {
		return err
	}
	return errors.Join(kernel.Chown(to, st.Uid, st.Gid), kernel.Chmod(to, st.Mode&^kernel.TypeMask))
}

// Fill copies a tree into a volume that is still empty, owner and mode of its top included. A volume
// with content is left as it is. The copy appears in one step.
func (s *Store) Fill(ctx context.Context, name string, tree *os.File) error {
	v, err := s.Get(name)
	if err != nil {
		return err
	}
	if empty, err := isEmpty(v.Path); err != nil || !empty {
		return err
	}
	err = s.staged(func(stage string) error {
		if err := errors.Join(v.join(stage), copyTree(ctx, stage, tree)); err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		// The empty directory makes way. When all stops here, Open makes it again.
		if err := os.Remove(v.Path); err != nil {
			if empty, emptyErr := isEmpty(v.Path); emptyErr == nil && !empty {
				return nil // somebody was faster
			}
			return err
		}
		return os.Rename(stage, v.Path)
	})
	if err != nil {
		return fmt.Errorf("fill volume %s: %w", name, err)
	}
	return nil
}

func isEmpty(dir string) (bool, error) {
	d, err := os.Open(dir)
	if err != nil {
		return false, err
	}
	_, err = d.Readdirnames(1)
	if err == io.EOF {
		return true, d.Close()
	}
	return false, errors.Join(err, d.Close())
}

// copyTree copies by way of a tar stream, which carries owners, modes, times, links and attributes.
func copyTree(ctx context.Context, to string, from *os.File) (err error) {
	root, err := os.Open(to)
	if err != nil {
		return err
	}
	defer fault.Close(root, &err)
	r, w := io.Pipe()
	packed := make(chan error, 1)
	go func() {
		err := archive.Pack(ctx, w, from, archive.PackOptions{})
		w.CloseWithError(err)
		packed <- err
	}()
	_, err = archive.Unpack(ctx, r, root, archive.UnpackOptions{})
	r.CloseWithError(errors.Join(err, io.ErrClosedPipe))
	if packErr := <-packed; err == nil {
		err = packErr
	}
	return err
}

// Remove deletes a volume with all in it, its snapshots too. fault.NotFound when there is none.
func (s *Store) Remove(name string) error {
	v, err := s.Get(name)
	if err != nil && !errors.Is(err, fault.Corrupt) {
		return err
	}
	if err := s.unbound(v); err != nil {
		return fmt.Errorf("remove volume %s: %w", name, err)
	}
	if err := s.discard(s.path(name)); err != nil {
		return fmt.Errorf("remove volume %s: %w", name, err)
	}
	return nil
}

// discard takes a directory out of sight by one rename, and then deletes it at leisure.
func (s *Store) discard(dir string) error {
	return s.staged(func(stage string) error { return os.Rename(dir, filepath.Join(stage, dataDir)) })
}

// List returns all volumes by name; those whose record can't be read are in err.
func (s *Store) List() (all []*Volume, err error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || !e.IsDir() {
			continue
		}
		v, getErr := s.Get(e.Name())
		switch {
		case getErr == nil:
			all = append(all, v)
		case !errors.Is(getErr, fault.NotFound) && !errors.Is(getErr, fs.ErrNotExist):
			err = errors.Join(err, getErr)
		}
	}
	return all, err
}

// Path is the directory that containers see of the volume of that name, whether it exists or not.
func (s *Store) Path(name string) string { return filepath.Join(s.path(name), dataDir) }
