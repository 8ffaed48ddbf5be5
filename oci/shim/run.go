package shim

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"berth/fault"
	"berth/internal/record"
	"berth/oci"
)

// The files of a run directory, which belongs on a tmpfs. The supervisor holds a lock (flock(2)) on the
// directory itself for as long as something of the container may be alive.
//
//	run.json    what runs, for whoever has to clean up after a dead supervisor
//	exit.json   how it ended; once it is there the container is no more
//	shim.sock   the supervisor's socket
//	crash       what the supervisor said last, if it fell
const (
	runFile    = "run.json"
	exitFile   = "exit.json"
	socketFile = "shim.sock"
	crashFile  = "crash"
)

// State is what a supervisor tells about its container.
type State struct {
	Protocol  int       `json:"protocol"`
	ID        string    `json:"id"`
	Shim      int       `json:"shim"` // the supervisor's own pid
	Pid       int       `json:"pid"`
	StartedAt time.Time `json:"startedAt"`
	Terminal  bool      `json:"terminal,omitempty"`
	Paused    bool      `json:"paused,omitempty"`
	LostLines uint64    `json:"lostLines,omitempty"` // lines that could not be logged, for want of space as a rule
	Lives     int       `json:"lives,omitempty"`     // how often the supervisor has begun anew
	Execs     []string  `json:"execs,omitempty"`     // IDs of the execs that run
	Warnings  []string  `json:"warnings,omitempty"`  // what was cut down to what this machine allows
}

// identity is a pid that can be told from a later process with the same number.
type identity struct {
	Pid   int    `json:"pid"`
	Start uint64 `json:"start"` // in ticks since boot, field 22 of /proc/PID/stat
}

// run is run.json.
type run struct {
	Protocol int      `json:"protocol"`
	ID       string   `json:"id"`
	BootID   string   `json:"bootId"`
	Shim     identity `json:"shim"`
	Init     identity `json:"init"`             // zero: not yet created
	Cgroup   string   `json:"cgroup,omitempty"` // such as /berth/ID
	Log      string   `json:"log,omitempty"`    // the log's path
}

func (r *run) save(dir string) error { return put(dir, runFile, r) }

// put is record.Put with our own encoder.
func put(dir, name string, v any) error {
	return record.WriteFile(filepath.Join(dir, name), append(encode(v), '\n'), 0o600, false)
}

func loadRun(dir string) (*run, error) {
	r := new(run)
	if err := record.Load(filepath.Join(dir, runFile), r); err != nil {
		return nil, err
	}
	return r, nil
}

func loadExit(dir string) (oci.Exit, error) {
	var e oci.Exit
	err := record.Load(filepath.Join(dir, exitFile), &e)
	return e, err
}

func saveExit(dir string, e oci.Exit) error { return put(dir, exitFile, e) }

// bootID differs after every boot (random(4)).
func bootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return string(bytes.TrimSpace(data)), err
}

// identify looks a running process up; fault.NotFound when there is none.
func identify(pid int) (identity, error) {
	start, _, err := stat(pid)
	return identity{pid, start}, err
}

// alive tells whether p still runs; a zombie doesn't.
func (p identity) alive() bool {
	start, state, err := stat(p.Pid)
	return err == nil && start == p.Start && state != 'Z' && state != 'X'
}

// kill ends p, and nobody who has its number now.
func (p identity) kill() error {
	if p.Pid <= 0 {
		return nil
	}
	h, err := os.FindProcess(p.Pid) // holds a pidfd: from here on the number can't change hands
	if err != nil {
		return nil
	}
	defer h.Release()
	if !p.alive() {
		return nil
	}
	if err := h.Kill(); err != nil && p.alive() {
		return fmt.Errorf("kill process %d: %w", p.Pid, err)
	}
	return nil
}

func stat(pid int) (start uint64, state byte, err error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, fault.Wrap(fault.NotFound, err)
	}
	return parseStat(data)
}

// parseStat takes the start time and the state from /proc/PID/stat (proc_pid_stat(5)). The second field is
// the command's name in brackets, which may hold anything, brackets and spaces too.
func parseStat(data []byte) (start uint64, state byte, err error) {
	fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	if len(fields) < 20 || len(fields[0]) != 1 {
		return 0, 0, fault.New(fault.Corrupt, "process status %q has too few fields", data)
	}
	start, err = strconv.ParseUint(string(fields[19]), 10, 64)
	if err != nil {
		return 0, 0, fault.New(fault.Corrupt, "process status %q: %w", data, err)
	}
	return start, fields[0][0], nil
}
