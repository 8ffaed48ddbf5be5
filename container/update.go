package container

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"berth/fault"
	"berth/internal/record"
)

// Update is a change of a container that is under way. It lies beside the record from before the first step until after the
// last, so that an engine that finds one knows what was begun, and goes back to Before.
type Update struct {
	Before, After *Record
	Ran           bool   // the container ran before, and is ended in between
	Boot          string // boot id: after a reboot nothing runs that could be put back
}

const updateFile = "update.json"

func (s *Store) updatePath(id string) string { return filepath.Join(s.Dir(id), updateFile) }

// BeginUpdate notes what is about to change.
func (s *Store) BeginUpdate(u *Update) error { return record.Put(s.updatePath(u.Before.ID), u) }

// EndUpdate forgets the note. None is no error.
func (s *Store) EndUpdate(id string) error {
	err := os.Remove(s.updatePath(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Updating is the change that a former engine did not finish; nil when there is none. A note that a power cut left unreadable
// is none: the record itself is whole, old or new.
func (s *Store) Updating(id string) (*Update, error) {
	u := &Update{}
	err := record.Load(s.updatePath(id), u)
	if errors.Is(err, fault.NotFound) || errors.Is(err, fault.Corrupt) || err == nil && (u.Before == nil || u.After == nil) {
		return nil, s.EndUpdate(id)
	}
	return u, err
}
