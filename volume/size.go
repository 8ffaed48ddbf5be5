package volume

import (
	"errors"
	"math/rand/v2"
	"os"

	"berth/fault"
	"berth/kernel/quota"
)

// Numbers of projects are drawn from here, as storage drivers draw theirs: people and other tools count from 1, 1,000 or 1,048,576. One that has a
// bound or files is somebody's.
const firstProject, lastProject = 1 << 30, 1<<31 - 1

// bound gives a volume that is new a project of its own, whose files may take that many bytes. fault.Unsupported, in the words that
// tools know and with the reason, where the file system keeps no quotas.
func (s *Store) bound(v *Volume, bytes int64) (err error) {
	top, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	defer fault.Close(top, &err)
	if err := quota.Check(top); err != nil {
		return fault.New(fault.Invalid, "quota size requested but no quota support: %w: put --data-root on xfs mounted with pquota, or on ext4 made with \"-O quota,project\" and mounted with prjquota", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for range 1000 {
		v.Project = firstProject + rand.Uint32N(lastProject-firstProject+1)
		if has, used, err := quota.Get(top, v.Project); err != nil {
			return err
		} else if has == 0 && used == 0 {
			return quota.Set(top, v.Project, bytes)
		}
	}
	return errors.New("every project of the file system is in use")
}

// join makes a directory, which is empty, part of the project of a volume that has one.
func (v *Volume) join(dir string) (err error) {
	if v.Project == 0 {
		return nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer fault.Close(f, &err)
	return quota.Assign(f, v.Project)
}

// unbound forgets a volume's bound.
func (s *Store) unbound(v *Volume) (err error) {
	if v == nil || v.Project == 0 {
		return nil
	}
	top, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	defer fault.Close(top, &err)
	return quota.Set(top, v.Project, 0)
}
