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
	"slices"
	"sync"
	"time"

	"berth/archive"
	"berth/fault"
	"berth/internal/record"
	"berth/kernel"
	"berth/union/clone"
)

// Snapshot is a volume's content as it was.
type Snapshot struct {
	Name    string
	Created time.Time
	Shared  bool // its blocks were shared with the volume's when it was made (reflinks)

	Path string `json:"-"` // the directory with the content
}

const (
	snapshotDir    = "snapshots"
	snapshotRecord = "snapshot.json"
)

var snapshotPattern = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`) })

// Replace puts what fill makes in place of a volume's content, in one step: until fill is done, and when it fails, all is as it was. What containers that
// run have of the old content goes on to exist for them alone.
func (s *Store) Replace(name string, fill func(dir string) error) error {
	v, err := s.Get(name)
	if err != nil {
		return err
	}
	err = s.staged(func(stage string) error {
		dir := filepath.Join(stage, dataDir)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		old, err := os.Open(v.Path)
		if err != nil {
			return err
		}
		if err := errors.Join(sameTop(old, dir), old.Close(), v.join(dir)); err != nil {
			return err
		}
		if err := fill(dir); err != nil {
			return err
		}
		if err := settle(dir); err != nil {
			return err
		}
		return kernel.Exchange(dir, v.Path) // what was there goes with the stage
	})
	if err != nil {
		return fmt.Errorf("replace the content of volume %s: %w", name, err)
	}
	return nil
}

// settle returns when what is in dir would survive a power cut.
func settle(dir string) (err error) {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer fault.Close(d, &err)
	return kernel.SyncFS(d)
}

// Copy copies all that is in from into the directory to, which is empty, with owners, modes, times, links, holes and attributes; blocks are shared where the file system can. Others may
// work in from. shared: no block was copied.
func Copy(to, from string) (shared bool, err error) {
	tree, err := os.Open(from)
	if err != nil {
		return false, err
	}
	defer fault.Close(tree, &err)
	top, err := os.Open(to)
	if err != nil {
		return false, err
	}
	defer fault.Close(top, &err)
	c := clone.New(top)
	c.Live = true
	err = c.Tree(tree)
	return c.Shared(), err
}

// Pack writes a directory as a tar archive. Others may work in it.
func Pack(ctx context.Context, w io.Writer, dir string) (err error) {
	tree, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer fault.Close(tree, &err)
	return archive.Pack(ctx, w, tree, archive.PackOptions{Live: true})
}

// Unpack adds what a tar archive has to a directory. Nothing gets outside of it.
func Unpack(ctx context.Context, dir string, r io.Reader) (err error) {
	root, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer fault.Close(root, &err)
	_, err = archive.Unpack(ctx, r, root, archive.UnpackOptions{})
	return err
}

// Empty tells whether a directory has nothing in it.
func Empty(dir string) (bool, error) { return isEmpty(dir) }

// Snapshot keeps what copy puts into its directory beside a volume. fault.Exists: there is one of that name.
func (s *Store) Snapshot(name, snapshot string, copy func(dir string) (shared bool, err error)) (made Snapshot, err error) {
	if !snapshotPattern().MatchString(snapshot) {
		return made, fault.New(fault.Invalid, "snapshot %q: a name is of letters, digits and _.-, and begins with a letter or digit", snapshot)
	}
	if _, err := s.Get(name); err != nil {
		return made, err
	}
	place := filepath.Join(s.path(name), snapshotDir, snapshot)
	if _, err := os.Lstat(place); err == nil {
		return made, fault.New(fault.Exists, "volume %s has a snapshot %s already; give another name, or remove that one first", name, snapshot)
	}
	made = Snapshot{Name: snapshot, Created: time.Now().UTC(), Path: filepath.Join(place, dataDir)}
	err = s.staged(func(stage string) error {
		dir := filepath.Join(stage, dataDir)
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		if made.Shared, err = copy(dir); err != nil {
			return err
		}
		if err := errors.Join(settle(dir), record.Save(filepath.Join(stage, snapshotRecord), made)); err != nil {
			return err
		}
		if err := os.Mkdir(filepath.Dir(place), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return os.Rename(stage, place)
	})
	if err != nil {
		return made, fmt.Errorf("snapshot volume %s: %w", name, err)
	}
	return made, nil
}

// Snapshots lists those of a volume, the oldest first.
func (s *Store) Snapshots(name string) (all []Snapshot, err error) {
	if _, err := s.Get(name); err != nil {
		return nil, err
	}
	dir := filepath.Join(s.path(name), snapshotDir)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		one := Snapshot{}
		if err := record.Load(filepath.Join(dir, e.Name(), snapshotRecord), &one); err != nil {
			return all, fmt.Errorf("read snapshot %s of volume %s: %w", e.Name(), name, err)
		}
		one.Path = filepath.Join(dir, e.Name(), dataDir)
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b Snapshot) int { return a.Created.Compare(b.Created) })
	return all, nil
}

// FindSnapshot finds one, "" the newest. fault.NotFound.
func (s *Store) FindSnapshot(name, snapshot string) (Snapshot, error) {
	all, err := s.Snapshots(name)
	if err != nil {
		return Snapshot{}, err
	}
	for k := len(all) - 1; k >= 0; k-- {
		if snapshot == "" || all[k].Name == snapshot {
			return all[k], nil
		}
	}
	if snapshot == "" {
		return Snapshot{}, fault.New(fault.NotFound, "volume %s has no snapshots", name)
	}
	return Snapshot{}, fault.New(fault.NotFound, "volume %s has no snapshot %s", name, snapshot)
}

// RemoveSnapshot removes one. fault.NotFound.
func (s *Store) RemoveSnapshot(name, snapshot string) error {
	one, err := s.FindSnapshot(name, snapshot)
	if err != nil {
		return err
	}
	if err := s.discard(filepath.Dir(one.Path)); err != nil {
		return fmt.Errorf("remove snapshot %s of volume %s: %w", snapshot, name, err)
	}
	return nil
}

// Rename gives a volume another name. It stays marked, as Moving, until Moved says that all who refer to it know. fault.Exists, fault.NotFound.
func (s *Store) Rename(name, to string) error {
	if err := CheckName(to); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.Get(name)
	if err != nil {
		return err
	}
	if _, err := s.Get(to); err == nil || !errors.Is(err, fault.NotFound) {
		return errors.Join(fault.New(fault.Exists, "rename %s: there is a volume %s already", name, to), err)
	}
	v.Moving = to
	if err := record.Save(filepath.Join(s.path(name), recordFile), v); err != nil {
		return err
	}
	err = errors.Join(os.RemoveAll(s.path(to)), os.Rename(s.path(name), s.path(to)))
	if err != nil {
		v.Moving = ""
		return errors.Join(fmt.Errorf("rename volume %s: %w", name, err), record.Save(filepath.Join(s.path(name), recordFile), v))
	}
	return nil // the record has the old name still, by which Movings knows what is to be done
}

// Moved ends a renaming.
func (s *Store) Moved(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.Get(name)
	if err != nil || v.Moving == "" {
		return err
	}
	v.Moving = ""
	return record.Save(filepath.Join(s.path(name), recordFile), v)
}

// Movings lists the renamings that a crash cut short after the directory got its new name: from old name to new. One that had not come so far is undone.
func (s *Store) Movings() (all map[string]string, err error) {
	list, err := s.List()
	all = map[string]string{}
	for _, v := range list {
		switch {
		case v.Moving == "":
		case v.recorded == v.Name: // it has its old name still
			err = errors.Join(err, s.Moved(v.Name))
		default:
			all[v.recorded] = v.Name
		}
	}
	return all, err
}
