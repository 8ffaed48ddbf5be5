package kernel

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Limit is one resource limit (getrlimit(2)).
type Limit struct {
	Name       string // RLIMIT_NOFILE, …
	Resource   int
	Soft, Hard uint64
}

var limits = map[string]int{
	"RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_CPU": unix.RLIMIT_CPU, "RLIMIT_DATA": unix.RLIMIT_DATA,
	"RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS, "RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK,
	"RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE, "RLIMIT_NICE": unix.RLIMIT_NICE, "RLIMIT_NOFILE": unix.RLIMIT_NOFILE,
	"RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_RSS": unix.RLIMIT_RSS, "RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO,
	"RLIMIT_RTTIME": unix.RLIMIT_RTTIME, "RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING, "RLIMIT_STACK": unix.RLIMIT_STACK,
}

// NewLimit resolves a limit's name.
func NewLimit(name string, soft, hard uint64) (Limit, error) {
	resource, known := limits[name]
	if !known {
		return Limit{}, fmt.Errorf("resource limit %q is not known", name)
	}
	if soft > hard {
		return Limit{}, fmt.Errorf("resource limit %s: soft limit %d is above the hard limit %d", name, soft, hard)
	}
	return Limit{Name: name, Resource: resource, Soft: soft, Hard: hard}, nil
}

// Clamp cuts the limit down to this process's own hard limit when it lacks the right to
// raise it (CAP_SYS_RESOURCE), and tells whether it did and what the hard limit was.
func (l *Limit) Clamp() (cut bool, was uint64) {
	var own unix.Rlimit
	if err := unix.Getrlimit(l.Resource, &own); err != nil || l.Hard <= own.Max || canRaise() {
		return false, l.Hard
	}
	was = l.Hard
	l.Hard = own.Max
	l.Soft = min(l.Soft, l.Hard)
	return true, was
}

const capSysResource = 24

func canRaise() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&hdr, &data[0]) == nil && data[0].Effective>>capSysResource&1 == 1
}

// ClampOOMScore raises a wanted oom_score_adj to our own when we lack the right to lower it (proc_pid_oom_score_adj(5)), with a
// warning that says so.
func ClampOOMScore(want int) (score int, warning string) {
	data, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return want, ""
	}
	own, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || want >= own || canRaise() {
		return want, ""
	}
	return own, fmt.Sprintf("oom_score_adj %d needs CAP_SYS_RESOURCE: %d is set", want, own)
}

// SetLimit sets a limit of the process pid.
func SetLimit(pid int, l Limit) error {
	err := unix.Prlimit(pid, l.Resource, &unix.Rlimit{Cur: l.Soft, Max: l.Hard}, nil)
	return pathError("prlimit", l.Name, err)
}

// FileLimit is the limit on open files that a program gets when none is asked for. The Go runtime raised our own
// soft limit to the hard one; programs that use select(2) rely on the customary 1024.
func FileLimit() (Limit, error) {
	var own unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &own); err != nil {
		return Limit{}, callError("getrlimit", err)
	}
	return Limit{Name: "RLIMIT_NOFILE", Resource: unix.RLIMIT_NOFILE, Soft: min(1024, own.Max), Hard: own.Max}, nil
}
