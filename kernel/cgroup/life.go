package cgroup

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"berth/fault"
)

// How long the kernel gets to do what it was told, before that is an error. Processes in
// uninterruptible sleep (a dead network file system) can take for ever.
const (
	freezeTime = 10 * time.Second
	killTime   = 10 * time.Second
	deleteTime = 2 * time.Second
)

// until repeats done, with growing pauses, until it says true, fails, or limit has passed (false).
func until(limit time.Duration, done func() (bool, error)) (bool, error) {
	pause := 50 * time.Microsecond
	for deadline := time.Now().Add(limit); ; {
		if ok, err := done(); ok || err != nil {
			return ok, err
		}
		if time.Now().After(deadline) {
			return false, nil
		}
		time.Sleep(pause)
		pause = min(2*pause, 10*time.Millisecond)
	}
}

// holder is the directory whose process list stands for the group: v1's devices or freezer, which nothing else
// moves processes in, else v2, else any.
func (g *Group) holder() string {
	for _, c := range []string{"devices", "freezer", "pids", "memory"} {
		if d := g.in(c, 1); d != "" {
			return d
		}
	}
	if d := g.v2(); d != "" {
		return d
	}
	for _, d := range g.dirs {
		return d.path
	}
	return ""
}

// Procs lists the processes of the group and of all groups below it, sorted, as seen from the caller's pid namespace
// (others are left out), without the caller itself. A group that does not exist has none.
func (g *Group) Procs() ([]int, error) {
	pids, _, err := g.members()
	return pids, err
}

// members is Procs, and whether the caller is among them: with one thread at least, on v1.
func (g *Group) members() (pids []int, self bool, err error) {
	err = walk(g.holder(), func(d string) error {
		s, err := read(d, "cgroup.procs")
		if err != nil {
			return err
		}
		for f := range strings.FieldsSeq(s) {
			switch pid, err := strconv.Atoi(f); {
			case err != nil || pid <= 0:
			case pid == os.Getpid():
				self = true
			default:
				pids = append(pids, pid)
			}
		}
		return nil
	})
	slices.Sort(pids)
	return slices.Compact(pids), self, err
}

// Kill ends every process in the group and below by SIGKILL and waits until they are gone, at most ten seconds; a frozen group is
// thawed. On v2 it is cgroup.kill (Linux 5.14); elsewhere rounds of freeze, signal, thaw, so that forks can't outrun it.
// The caller itself is spared. Groups and zombies stay: Delete and the parent remove them.
func (g *Group) Kill() error {
	pids, self, err := g.members()
	if err != nil || len(pids) == 0 {
		return err
	}
	if d := g.v2(); !self && d != "" && g.holder() == d && write(d, "cgroup.kill", "1") == nil {
		return g.gone()
	}
	gone, err := until(killTime, func() (bool, error) {
		if len(pids) > 1 && !self {
			// Only a brake for forks: where it fails, the rounds do without.
			g.setFreezer(true)
			if pids, _, err = g.members(); err != nil {
				return false, err
			}
		}
		for _, pid := range pids {
			unix.Kill(pid, unix.SIGKILL)
		}
		g.setFreezer(false)
		pids, self, err = g.members()
		return len(pids) == 0, err
	})
	if err != nil || gone {
		return err
	}
	return g.survivors()
}

func (g *Group) gone() error {
	gone, err := until(killTime, func() (bool, error) {
		pids, err := g.Procs()
		return len(pids) == 0, err
	})
	if err != nil || gone {
		return err
	}
	return g.survivors()
}

func (g *Group) survivors() error {
	pids, err := g.Procs()
	if err != nil || len(pids) == 0 {
		return err
	}
	return fault.New(fault.Conflict, "kill cgroup %s: processes %v do not end; they wait for the kernel (state D in ps), often for a dead network file system", g.path, pids)
}

// setFreezer asks for the state; it does not wait.
func (g *Group) setFreezer(frozen bool) error {
	if d := g.in("freezer", 1); d != "" {
		state := "THAWED"
		if frozen {
			state = "FROZEN"
		}
		return write(d, "freezer.state", state)
	}
	if d := g.v2(); d != "" {
		state := "0"
		if frozen {
			state = "1"
		}
		return write(d, "cgroup.freeze", state)
	}
	return fault.New(fault.Unsupported, "freeze cgroup %s: neither a v1 freezer nor a v2 hierarchy is mounted", g.path)
}

// Frozen tells whether all processes of the group stand still.
func (g *Group) Frozen() (bool, error) {
	if d := g.in("freezer", 1); d != "" {
		s, err := read(d, "freezer.state")
		return s == "FROZEN", err
	}
	if d := g.v2(); d != "" {
		s, err := read(d, "cgroup.events")
		return strings.Contains(s, "frozen 1"), err
	}
	return false, nil
}

// Freeze stops all processes of the group and below, and returns when they stand; if they don't within ten seconds the group is
// thawed again and the error is fault.Unavailable. fault.Unsupported where nothing can freeze.
// The caller's own group is refused with fault.Invalid: nobody would be left to thaw it.
func (g *Group) Freeze() error {
	if _, self, err := g.members(); err != nil || self {
		return errors.Join(err, fault.New(fault.Invalid, "freeze cgroup %s: this process is in it", g.path))
	}
	n := 0
	frozen, err := until(freezeTime, func() (bool, error) {
		// v1 can get stuck half way (FREEZING) when a task forks or is traced; asking again, with a thaw between now and then, helps.
		if n++; n%20 == 0 {
			g.setFreezer(false)
		}
		if err := g.setFreezer(true); err != nil {
			return false, err
		}
		return g.Frozen()
	})
	if err == nil && !frozen {
		err = fault.New(fault.Unavailable, "freeze cgroup %s: its processes don't stand still after %v", g.path, freezeTime)
	}
	if err != nil {
		return errors.Join(kind(err), g.setFreezer(false))
	}
	return nil
}

// Thaw lets a frozen group run on. It is no error for a running one.
func (g *Group) Thaw() error { return kind(g.setFreezer(false)) }

// OOMKills counts the processes of the group and below that the kernel killed for want of memory within the group's
// limits (v1 memory.oom_control since Linux 4.13, v2 memory.events). Zero without a memory controller.
func (g *Group) OOMKills() (uint64, error) {
	if d := g.in("memory", 1); d != "" {
		var n uint64
		err := walk(d, func(d string) error {
			if _, err := os.Stat(d); err != nil {
				return err
			}
			n += readKeyed(d, "memory.oom_control")["oom_kill"]
			return nil
		})
		return n, err
	}
	if d := g.in("memory", 2); d != "" {
		return readKeyed(d, "memory.events")["oom_kill"], nil
	}
	return 0, nil
}

// Delete removes the group and those below it in all hierarchies. It kills nothing: processes make it fail, after two
// seconds of trying (the kernel frees a dead one's place late), with fault.Conflict. A group that is gone already is success.
func (g *Group) Delete() error {
	left := slices.Clone(g.dirs)
	var last error
	done, err := until(deleteTime, func() (bool, error) {
		last = nil
		left = slices.DeleteFunc(left, func(d dir) bool {
			err := remove(d.path)
			last = errors.Join(last, err)
			return err == nil
		})
		if last != nil && !errors.Is(last, unix.EBUSY) && !errors.Is(last, unix.ENOTEMPTY) {
			return false, last
		}
		return last == nil, nil
	})
	if done || err != nil {
		return kind(err)
	}
	pids, _ := g.Procs()
	return fault.New(fault.Conflict, "delete cgroup %s: processes %v are in it: %w", g.path, pids, last)
}

// remove removes one directory, and those below it when it must.
func remove(d string) error {
	err := unix.Rmdir(d)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	// Both EBUSY and ENOTEMPTY stand for children as well as for processes.
	entries, readErr := os.ReadDir(d)
	if readErr != nil {
		if errors.Is(readErr, fs.ErrNotExist) {
			return nil
		}
		return readErr
	}
	removed := false
	for _, e := range entries {
		if e.IsDir() {
			if err := remove(d + "/" + e.Name()); err != nil {
				return err
			}
			removed = true
		}
	}
	if removed {
		err = unix.Rmdir(d)
	}
	if err == nil || err == unix.ENOENT {
		return nil
	}
	return &os.PathError{Op: "rmdir", Path: d, Err: err}
}
