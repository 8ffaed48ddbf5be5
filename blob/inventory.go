package blob

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/fault"
	"berth/kernel"
)

// File is one file of the store, for those who account for it.
type File struct {
	Path   string
	Digest digest.Digest // of content, and of a download that Resume would continue; else ""
	Disk   int64         // allocated bytes
}

// Files lists all content, in the order of digests.
func (s *Store) Files() (all []File, err error) {
	err = s.files(s.content(), func(f File) error {
		f.Digest = digest.NewDigestFromEncoded(digest.SHA256, filepath.Base(f.Path))
		if f.Digest.Validate() == nil {
			all = append(all, f)
		}
		return nil
	})
	slices.SortFunc(all, func(a, b File) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	return all, err
}

// Partials lists the unfinished content: what is being written, and downloads that can be resumed.
func (s *Store) Partials() (all []File, err error) {
	err = s.files(s.ingest(), func(f File) error {
		if digits, ok := strings.CutSuffix(filepath.Base(f.Path), partSuffix); ok {
			f.Digest = digest.NewDigestFromEncoded(digest.SHA256, digits)
		}
		all = append(all, f)
		return nil
	})
	return all, err
}

// Strays lists the files that nobody writes or will read: unfinished content whose writer died, and what has no digest's name.
func (s *Store) Strays() (all []File, err error) {
	err = s.files(s.content(), func(f File) error {
		if digest.NewDigestFromEncoded(digest.SHA256, filepath.Base(f.Path)).Validate() != nil {
			all = append(all, f)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = s.files(s.ingest(), func(f File) error {
		dead, err := s.dead(f.Path)
		if dead {
			all = append(all, f)
		}
		return err
	})
	return all, err
}

// Drop removes a stray. fault.Conflict: it is none.
func (s *Store) Drop(f File) error {
	if filepath.Dir(f.Path) == s.content() {
		if digest.NewDigestFromEncoded(digest.SHA256, filepath.Base(f.Path)).Validate() == nil {
			return fault.New(fault.Conflict, "%s is content", f.Path)
		}
		return os.RemoveAll(f.Path)
	}
	if dead, err := s.dead(f.Path); err != nil || !dead {
		return errors.Join(err, fault.New(fault.Conflict, "%s is being written", f.Path))
	}
	return os.RemoveAll(f.Path)
}

// dead tells whether unfinished content is worth nothing: no writer holds it, and Resume would not continue it.
func (s *Store) dead(path string) (dead bool, err error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !info.Mode().IsRegular() {
		return true, nil
	}
	if strings.HasSuffix(path, partSuffix) && time.Since(info.ModTime()) < keepPartial {
		return false, nil
	}
	if time.Since(info.ModTime()) < time.Second {
		return false, nil // its writer may be between making and locking it
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer fault.Close(f, &err)
	return kernel.TryLock(f)
}

func (s *Store) files(dir string, fn func(File) error) (err error) {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer fault.Close(d, &err)
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		st, err := kernel.StatIn(d, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := fn(File{Path: filepath.Join(dir, name), Disk: st.Blocks * 512}); err != nil {
			return err
		}
	}
	return nil
}

// Disk is how many bytes the disk that the blobs lie on still takes, and how many it has in all.
func (s *Store) Disk() (free, size int64, err error) {
	f, err := os.Open(s.dir)
	if err != nil {
		return 0, 0, err
	}
	defer fault.Close(f, &err)
	if free, err = kernel.FreeSpace(f); err != nil {
		return 0, 0, err
	}
	size, err = kernel.DiskSize(f)
	return free, size, err
}
