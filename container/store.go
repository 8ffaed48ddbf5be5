package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"berth/fault"
	"berth/internal/record"
)

// Store keeps one directory per container: record.json (what a user configured, synced),
// state.json (how it stands, only renamed), the log and the files bound into the container.
// A directory without record.json is a removal or creation that died half-way.
type Store struct{ dir string }

const (
	recordFile = "record.json"
	stateFile  = "state.json"
)

// OpenStore makes dir if it is missing.
func OpenStore(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o710); err != nil {
		return nil, fmt.Errorf("open the store of containers: %w", err)
	}
	return &Store{dir}, nil
}

// Dir is the directory of one container.
func (s *Store) Dir(id string) string { return filepath.Join(s.dir, id) }

// Create makes the container's directory, still without a record.
func (s *Store) Create(id string) error { return os.Mkdir(s.Dir(id), 0o710) }

// Save writes the record. It survives a power cut unless the container removes itself at its end.
func (s *Store) Save(r *Record) error {
	path := filepath.Join(s.Dir(r.ID), recordFile)
	if r.HostConfig != nil && r.HostConfig.AutoRemove {
		return record.Put(path, r)
	}
	return record.Save(path, r)
}

// SaveState writes the run state, by rename and without a sync.
func (s *Store) SaveState(r *Record) error {
	return record.Put(filepath.Join(s.Dir(r.ID), stateFile), r.State)
}

// Load reads one container. fault.NotFound: it has no record; fault.Corrupt: the record can't be used.
func (s *Store) Load(id string) (*Record, error) {
	r := &Record{}
	path := filepath.Join(s.Dir(id), recordFile)
	if err := record.Load(path, r); err != nil {
		return nil, err
	}
	if r.ID != id || r.Config == nil || r.HostConfig == nil || r.Name == "" {
		return nil, fault.New(fault.Corrupt, "%s: incomplete record", path)
	}
	if r.Schema > Schema {
		return nil, fault.New(fault.Unsupported, "%s: written by a newer version (schema %d, this one knows %d)", path, r.Schema, Schema)
	}
	r.State = State{Status: Created}
	err := record.Load(filepath.Join(s.Dir(id), stateFile), &r.State)
	if errors.Is(err, fault.NotFound) {
		return r, nil
	}
	if errors.Is(err, fault.Corrupt) || err == nil && table(r.State.Status) == nil {
		// Never synced, so a power cut may leave it empty. What runs is observed, the rest is void.
		r.State = State{Status: Exited, ExitCode: 255, Error: "the run state was lost"}
		return r, nil
	}
	return r, err
}

// List returns the IDs of all directories, whole or not.
func (s *Store) List() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// Forget deletes the record, which makes the container gone for good; Delete sweeps the rest.
func (s *Store) Forget(id string) error {
	err := os.Remove(filepath.Join(s.Dir(id), recordFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Delete removes the container's directory with everything in it. It is idempotent.
func (s *Store) Delete(id string) error {
	if err := s.Forget(id); err != nil {
		return err
	}
	return os.RemoveAll(s.Dir(id))
}
