package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"berth/fault"
	"berth/internal/record"
)

// Stray is a directory of the store that is no volume.
type Stray struct {
	Name  string // of the volume whose record is lost or can't be read; "": what a creation or a removal left
	Path  string
	Cause error // why the record can't be read
}

// Strays lists them.
func (s *Store) Strays() (all []Stray, err error) {
	s.mu.Lock() // nothing is half-made or half-removed
	defer s.mu.Unlock()
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("check volumes: %w", err)
	}
	for _, e := range entries {
		if one, is := s.stray(e.Name()); is {
			all = append(all, one)
		}
	}
	return all, nil
}

// stray judges one name in the store's directory. The caller holds mu.
func (s *Store) stray(name string) (one Stray, is bool) {
	one.Path = s.path(name)
	if s.stages[name] {
		return one, false
	}
	if strings.HasPrefix(name, stagePrefix) || !namePattern().MatchString(name) {
		return one, true
	}
	if one.Cause = record.Load(filepath.Join(one.Path, recordFile), &Volume{}); one.Cause == nil {
		return one, false
	}
	if _, err := os.Lstat(s.Path(name)); err == nil { // what users wrote is there
		one.Name = name
	}
	return one, true
}

// Drop removes what a creation or a removal left.
func (s *Store) Drop(one Stray) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, is := s.stray(filepath.Base(one.Path))
	if !is || now.Name != "" || now.Path != one.Path {
		return fault.New(fault.Conflict, "%s is a volume", one.Path)
	}
	return os.RemoveAll(one.Path)
}

// Adopt gives a volume whose record is lost a new one. It has no labels, and a prune of those that nobody named does not take it.
func (s *Store) Adopt(one Stray) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, is := s.stray(one.Name)
	if !is || now.Name == "" {
		return nil
	}
	info, err := os.Lstat(now.Path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	created := time.Now().UTC()
	if err == nil {
		created = info.ModTime().UTC()
	}
	return record.Save(filepath.Join(now.Path, recordFile), Volume{Name: one.Name, Created: created})
}
