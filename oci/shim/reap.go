package shim

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"berth/fault"
	"berth/kernel"
	"berth/kernel/cgroup"
	"berth/oci"
)

// Reap kills what a dead supervisor left: its processes, unless their
// numbers belong to others by now, and its cgroup. It records exit code 137 when there is no record, and is
// idempotent. fault.NotFound: no run state; fault.Conflict: the supervisor lives.
func (l *Launcher) Reap(id string) error {
	path, err := l.path(id)
	if err != nil {
		return err
	}
	dir, err := lockDir(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	r, err := loadRun(path)
	switch fault.Of(err) {
	case "":
		if err != nil {
			return err
		}
	case fault.NotFound: // it died before it had made anything
		return recordDeath(path)
	default:
		return err
	}
	if r.Log != "" {
		os.Remove(r.Log + newSuffix)
		os.Remove(r.Log + tempSuffix) // a helper that still writes it comes to nothing
	}
	boot, err := bootID()
	if err != nil {
		return err
	}
	if r.BootID == boot {
		if err := r.clear(); err != nil {
			return err
		}
	}
	return recordDeath(path)
}

// orphanTime is how long a process that a supervisor forked may outlive it.
const orphanTime = time.Second

// lockDir opens a run directory whose supervisor is dead, and locks it.
func lockDir(path string) (*os.File, error) {
	dir, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fault.Wrap(fault.NotFound, err)
	}
	if err != nil {
		return nil, err
	}
	free, err := kernel.TryLock(dir)
	// What a killed supervisor had just forked holds the lock until it notices.
	for deadline := time.Now().Add(orphanTime); err == nil && !free && time.Now().Before(deadline); free, err = kernel.TryLock(dir) {
		if _, none := loadExit(path); none == nil {
			free, err = true, kernel.Lock(dir) // it is about to end
			break
		}
		time.Sleep(orphanTime / 200)
	}
	if err == nil && !free {
		err = fault.New(fault.Conflict, "%s: the supervisor is alive", path)
	}
	if err != nil {
		dir.Close()
		return nil, err
	}
	return dir, nil
}

// clear kills the container that r describes and removes its cgroup.
func (r *run) clear() error {
	if r.Cgroup != "" {
		if !filepath.IsAbs(r.Cgroup) || filepath.Clean(r.Cgroup) != r.Cgroup || r.Cgroup == "/" {
			return fault.New(fault.Corrupt, "the run record of container %s names the cgroup %q, which is nobody's", r.ID, r.Cgroup)
		}
		g := cgroup.Load(r.Cgroup)
		g.Thaw() // a frozen process doesn't die
		if err := errors.Join(g.Kill(), r.Init.kill()); err != nil {
			return err
		}
		return g.Delete()
	}
	return r.Init.kill()
}

func recordDeath(path string) error {
	if _, err := loadExit(path); fault.Of(err) != fault.NotFound {
		return err
	}
	const killed, code = 9, 137
	return saveExit(path, oci.Exit{Code: code, Signal: killed, At: time.Now(), Error: "the container's supervisor died"})
}

// Forget removes a container's run state, after its exit was taken; idempotent. fault.Conflict while the container runs.
func (l *Launcher) Forget(id string) error {
	path, err := l.path(id)
	if err != nil {
		return err
	}
	dir, err := lockDir(path)
	if fault.Of(err) == fault.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	if r, err := loadRun(path); err == nil {
		if boot, err := bootID(); err == nil && r.BootID == boot { // the supervisor died between its last word and its last deed
			if err := r.clear(); err != nil {
				return err
			}
		}
	}
	return os.RemoveAll(path)
}
