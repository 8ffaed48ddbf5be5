package union

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"

	"github.com/docker/go-units"

	"berth/fault"
	"berth/kernel"
	"berth/kernel/quota"
)

// quotas bounds roots by quotas of projects: what a root wrote, and what its file system keeps beside that, are of one project. Its number is kept
// by the directories alone, so that nothing can disagree. It is no one's before, in the whole file system, and unknown
// to it again when the last of the root's files is gone.
type quotas struct {
	home *home
	by   string     // the driver
	mu   sync.Mutex // one number is chosen at a time
	size int64      // of a root for which nobody says otherwise, in bytes; 0 is no bound
}

// Numbers of projects are drawn from here, where neither people nor the field's other tools count from: those begin at 1, at
// 1,000 or at 1,048,576.
const firstProject, lastProject = 1 << 30, 1<<31 - 1

// bounded are the directories of a root that are of its project. The root's own directory is not: it is renamed, which the kernel refuses into a
// directory of another project.
func bounded() []string { return []string{"diff", "work"} }

// parse reads the options of a stacking driver.
func (q *quotas) parse(options []string) error {
	for _, o := range options {
		key, value, _ := strings.Cut(o, "=")
		switch key {
		case "size":
			n, err := units.RAMInBytes(value)
			if err != nil || n <= 0 {
				return fault.New(fault.Invalid, "storage option %s.size=%s: want a size such as 10G", q.by, value)
			}
			q.size = n
		case "override_kernel_check": // of engines that ran on Linux before 4.0
		default:
			return fault.New(fault.Invalid, "storage driver %s: unknown option %s: it has size", q.by, key)
		}
	}
	return nil
}

// check refuses a bound for all roots where there can't be one.
func (q *quotas) check() error {
	if q.size == 0 {
		return nil
	}
	if err := quota.Check(q.home.lock); err != nil {
		return q.unbounded(fmt.Sprintf("Storage option %s.size not supported", q.by), err)
	}
	return nil
}

// unbounded says why a size can't be held, in words that tools look for, and what to do.
func (q *quotas) unbounded(what string, why error) error {
	remedy := "put --data-root on xfs mounted with pquota, or on ext4 made with \"-O quota,project\" and mounted with prjquota, or use the storage driver btrfs"
	return fault.New(fault.Unsupported, "%s: %s (%s): %w: %s", what, q.home.dir, q.home.backing, why, remedy)
}

// limit bounds a root.
func (q *quotas) limit(id string, bytes int64) error {
	if bytes <= 0 {
		return fault.New(fault.Invalid, "bound the size of root %s: %d bytes are no size", id, bytes)
	}
	if err := quota.Check(q.home.lock); err != nil {
		return q.unbounded("--storage-opt is supported only for overlay over xfs with 'pquota' mount option or ext4 with 'prjquota'", err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	project, err := q.project(id)
	if err == nil && project == 0 {
		project, err = q.assign(id)
	}
	if err == nil {
		err = quota.Set(q.home.lock, project, bytes)
	}
	if err != nil {
		return fmt.Errorf("bound the size of root %s: %w", id, err)
	}
	return nil
}

// project is that of a root, 0 when it has none of its own.
func (q *quotas) project(id string) (uint32, error) {
	return projectIn(q.home.path("roots", id, "diff"))
}

func projectIn(dir string) (project uint32, err error) {
	f, err := os.Open(dir)
	if err != nil {
		return 0, err
	}
	defer fault.Close(f, &err)
	if project, err = quota.Project(f); project < firstProject || project > lastProject {
		project = 0 // the administrator's, for all that we have
	}
	return project, err
}

// assign gives a root that is new a project of its own.
func (q *quotas) assign(id string) (uint32, error) {
	names, err := os.ReadDir(q.home.path("roots", id, "diff"))
	if err != nil {
		return 0, err
	}
	if len(names) > 0 {
		return 0, fault.New(fault.Conflict, "something was written to it before it had a size")
	}
	project, err := q.freeProject()
	if err != nil {
		return 0, err
	}
	for _, name := range bounded() {
		if err := assignTo(q.home.path("roots", id, name), project); err != nil {
			return 0, err
		}
	}
	return project, nil
}

func assignTo(dir string, project uint32) (err error) {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer fault.Close(f, &err)
	return quota.Assign(f, project)
}

// freeProject draws a number that means nothing to the file system.
func (q *quotas) freeProject() (uint32, error) {
	for range 1000 {
		project := firstProject + rand.Uint32N(lastProject-firstProject+1)
		bound, used, err := quota.Get(q.home.lock, project)
		if err != nil || bound == 0 && used == 0 {
			return project, err
		}
	}
	return 0, errors.New("every project of the file system is in use")
}

// unbind forgets the bound of a removed root, before its files go.
func (q *quotas) unbind(dir string) error {
	st, err := kernel.StatIn(nil, dir+"/diff")
	if err != nil || st.Mode&kernel.TypeMask != kernel.TypeDir {
		return nil // nothing that ever had one
	}
	project, err := projectIn(dir + "/diff")
	if err != nil || project == 0 {
		return nil // a file system without projects
	}
	return quota.Set(q.home.lock, project, 0)
}

// mountRoom is what a mount may want beyond a bound, in bytes: overlay makes its directory work/work anew each time, and shows everything read-only where
// it can't (fs/overlayfs/super.c, Linux 6.1); xfs takes no blocks for that, but asks for dozens beforehand.
const mountRoom = 1 << 20

// makeRoom raises the bound of a root that is full, until end is called. After a kill between the two the root keeps what it was given.
func (q *quotas) makeRoom(id string) (end func() error, err error) {
	end = func() error { return nil }
	project, err := q.project(id)
	if err != nil || project == 0 {
		return end, nil // a file system without projects
	}
	bound, used, err := quota.Get(q.home.lock, project)
	if err != nil || bound == 0 || bound-used >= mountRoom {
		return end, err
	}
	if err := quota.Set(q.home.lock, project, bound+mountRoom); err != nil {
		return end, err
	}
	return func() error { return quota.Set(q.home.lock, project, bound) }, nil
}

// limit implements complete.
func (o *overlay) limit(id string, bytes int64) error {
	if o.by.marks() {
		return fault.New(fault.Unsupported, "--storage-opt is not supported for aufs: use the storage driver overlay2 or btrfs")
	}
	return o.quotas.limit(id, bytes)
}
