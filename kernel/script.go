package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Script is a list of system calls that is prepared in ordinary Go and then
// carried out where no Go code may run: in a forked child, which has one thread of a
// many-threaded program and no runtime. It ends with Exec.
//
// A call may use what an earlier one returned (Ref). A call that failed with an error
// which it tolerates makes those that refer to it be skipped.
type Script struct {
	calls []call
	what  []string // for each call, what it is for
	keep  []any    // what the calls' pointers point to
	label string
}

// Ref stands for the result of an earlier call. The zero Ref is none.
type Ref int16

// Arg is one argument of a scripted call: a number or a Ref.
type Arg struct {
	value uintptr
	ref   Ref
}

// N is a plain number as an argument.
func N[T ~int | ~uint | ~int32 | ~uint32 | ~uint64 | ~uintptr](n T) Arg {
	return Arg{value: uintptr(n)}
}

// R is an earlier result as an argument.
func R(r Ref) Arg { return Arg{ref: r} }

// F is an open file as an argument; the script keeps it alive until it has run.
func (s *Script) F(f *os.File) Arg {
	s.keep = append(s.keep, f)
	return N(fd(f))
}

// maxCalls bounds a script; the results are kept in an array of that size.
const maxCalls = 1024

type call struct {
	nr    uintptr
	args  [6]uintptr
	refs  [6]Ref
	exact bool // the result is exactly want
	want  uintptr
	allow [3]syscall.Errno

	raise    *[2]unix.CapUserData // capset: first make what is permitted effective
	announce bool                 // a write to the status pipe
	status   bool                 // of a forked child: the first argument is its status pipe
	again    bool                 // a fork: the child goes on, the caller tells its number and ends
}

// failed marks a result that is not there.
const failed = ^uintptr(0)

// For says what the calls that follow are for, as the object of their errors.
func (s *Script) For(what string) { s.label = what }

func (s *Script) add(nr uintptr, args ...Arg) Ref {
	c := call{nr: nr}
	for i, a := range args {
		c.args[i], c.refs[i] = a.value, a.ref
	}
	s.calls = append(s.calls, c)
	s.what = append(s.what, s.label)
	return Ref(len(s.calls))
}

// Allow makes the call behind r tolerate errors.
func (s *Script) Allow(r Ref, errs ...syscall.Errno) Ref {
	copy(s.calls[r-1].allow[:], errs)
	return r
}

// pointer keeps what p points to alive and gives its address. Heap objects don't move.
func (s *Script) bytes(b []byte) Arg {
	if len(b) == 0 {
		b = make([]byte, 1)
	}
	s.keep = append(s.keep, b)
	return N(uintptr(unsafe.Pointer(&b[0])))
}

func (s *Script) cstring(v string) Arg { return s.bytes(append([]byte(v), 0)) }

func pin[T any](s *Script, v *T) Arg {
	s.keep = append(s.keep, v)
	return N(uintptr(unsafe.Pointer(v)))
}

// vector is a NULL-terminated array of strings, as execve(2) takes it.
func (s *Script) vector(list []string) Arg {
	v := make([]uintptr, len(list)+1)
	for i, e := range list {
		v[i] = s.cstring(e).value
	}
	s.keep = append(s.keep, v)
	return N(uintptr(unsafe.Pointer(&v[0])))
}

// ScriptError is the call of a script that failed.
type ScriptError struct {
	What string // what the call was for
	Exec bool   // it was the execution of the program
	Err  error
}

func (e *ScriptError) Error() string { return e.What + ": " + e.Err.Error() }
func (e *ScriptError) Unwrap() error { return e.Err }

// execAt marks, in the number of a failed call that goes over a status pipe, the execution of the program.
const execAt = 1 << 31

// forkedAgain stands in place of that number when what follows is a process's.
const forkedAgain = 1 << 30

func (s *Script) errorAt(at uint32, errno syscall.Errno) error {
	e := &ScriptError{What: "set the process up", Exec: at&execAt != 0, Err: errno}
	if i := int(at &^ execAt); s != nil && i < len(s.what) {
		e.What = s.what[i]
	}
	return e
}

// Run carries the script out on the calling thread. It returns only when a call fails, or
// at the end when there is no Exec.
func (s *Script) Run() error {
	results := make([]uintptr, len(s.calls)+1)
	at, errno := execute(s.calls, results, failed)
	runtime.KeepAlive(s)
	if errno != 0 {
		return s.errorAt(at, errno)
	}
	return nil
}

// Child is a forked process that carries a script out.
type Child struct {
	Pid    int
	PidFD  *os.File // polls readable when the process has ended; the owner closes it
	status *os.File
	script *Script
}

// Fork starts a child process with the clone flags given (CLONE_NEWPID, …), in which
// the script runs. The script's memory is copied, so it may be changed or dropped, but the
// Child needs it to explain errors. Call it on a locked thread when the child is to inherit that thread's state.
func (s *Script) Fork(flags uintptr) (*Child, error) {
	if len(s.calls) > maxCalls {
		return nil, fmt.Errorf("script: %d calls are too many", len(s.calls))
	}
	r, w, err := highPipe()
	if err != nil {
		return nil, err
	}
	job := &fork{
		flags: flags | uintptr(unix.SIGCHLD) | unix.CLONE_PIDFD, calls: s.calls,
		results: make([]uintptr, len(s.calls)+1), status: uintptr(fd(w)), pidfd: -1,
	}
	for i := range job.all {
		job.all[i] = ^uint64(0)
	}
	pid, errno := job.run()
	runtime.KeepAlive(s)
	w.Close()
	if errno != 0 {
		r.Close()
		return nil, callError("clone", errno)
	}
	unix.SetNonblock(int(job.pidfd), true)
	return &Child{Pid: pid, PidFD: os.NewFile(uintptr(job.pidfd), "pidfd"), status: r, script: s}, nil
}

// Ready waits until the child came to an Announce (nil), or failed before.
func (c *Child) Ready() error { return c.answer(true) }

// Started waits until the child executed its program (nil) or failed.
func (c *Child) Started() error {
	defer c.status.Close()
	return c.answer(false)
}

// Again waits until the script came to its ForkAgain, or failed before, and returns the process that goes on, which is
// the caller's child too. c has ended.
func (c *Child) Again() (*Child, error) {
	var answer [8]byte
	n, err := readFull(c.status, answer[:])
	mark, pid := binary.NativeEndian.Uint32(answer[:]), int(binary.NativeEndian.Uint32(answer[4:]))
	switch {
	case err == nil && n == 0:
		err = errors.New("the container's first process was killed")
	case err == nil && mark != forkedAgain:
		err = c.script.errorAt(mark, syscall.Errno(pid))
	}
	if _, rerr := Reap(c.PidFD); err == nil {
		err = rerr
	}
	c.PidFD.Close()
	if err != nil {
		c.status.Close()
		return nil, err
	}
	next := &Child{Pid: pid, status: c.status, script: c.script}
	// Nobody else reaps it, so the number is still its own.
	if next.PidFD, err = OpenPid(pid); err != nil {
		c.status.Close()
		return nil, err
	}
	return next, nil
}

// Follow returns c with what it says from now on read from status, a StatusPipe whose other end it has.
func Follow(c *Child, status *os.File) *Child {
	return &Child{Pid: c.Pid, PidFD: c.PidFD, status: status}
}

// StatusPipe makes a pipe for ReportFailure and Follow.
func StatusPipe() (r, w *os.File, err error) { return highPipe() }

// ReportFailure writes why a script that ran in this process failed to a status pipe.
func ReportFailure(status *os.File, err error) error {
	at, errno := uint32(0), unix.EIO
	var s *ScriptError
	if errors.As(err, &s) {
		errors.As(s.Err, &errno)
		if s.Exec {
			at = execAt
		}
	}
	var b [8]byte
	binary.NativeEndian.PutUint32(b[:], at)
	binary.NativeEndian.PutUint32(b[4:], uint32(errno))
	_, err = status.Write(b[:])
	return err
}

// Close lets go of the child's status without waiting for it.
func (c *Child) Close() { c.status.Close() }

func (c *Child) answer(ready bool) error {
	var answer [8]byte
	n, err := readFull(c.status, answer[:])
	if err != nil {
		return err
	}
	if n == 0 && !ready {
		return nil // closed by the exec, or the child was killed, which its reaper sees
	}
	if n == 0 {
		return errors.New("the container's first process was killed")
	}
	if ready && answer == [8]byte{} {
		return nil
	}
	return c.script.errorAt(binary.NativeEndian.Uint32(answer[:]), syscall.Errno(binary.NativeEndian.Uint32(answer[4:])))
}

func readFull(f *os.File, b []byte) (int, error) {
	total := 0
	for total < len(b) {
		n, err := f.Read(b[total:])
		total += n
		if n == 0 {
			break
		}
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// highPipe makes a pipe whose ends are out of the way of a child's first files.
func highPipe() (r, w *os.File, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, callError("pipe", err)
	}
	w0 := p[1]
	high, err := unix.FcntlInt(uintptr(w0), unix.F_DUPFD_CLOEXEC, lowest)
	unix.Close(w0)
	if err != nil {
		unix.Close(p[0])
		return nil, nil, callError("dup", err)
	}
	unix.SetNonblock(p[0], true) // so that waiting for it takes no thread
	return os.NewFile(uintptr(p[0]), "status"), os.NewFile(uintptr(high), "status"), nil
}

// lowest is the first descriptor number that a child's own files never have.
const lowest = 64

// HighDup is Dup with a number that a child's own files never have.
func HighDup(f *os.File) (*os.File, error) {
	n, err := unix.FcntlInt(uintptr(fd(f)), unix.F_DUPFD_CLOEXEC, lowest)
	keep(f)
	if err != nil {
		return nil, pathError("dup", f.Name(), err)
	}
	return os.NewFile(uintptr(n), f.Name()), nil
}

type fork struct {
	flags   uintptr
	calls   []call
	results []uintptr
	status  uintptr
	pidfd   int32
	all     [16]uint64 // a full signal set
	old     [16]uint64
	zero    [16]uint64 // an empty signal set, and a default action
	report  [2]uint32
}

const sigsetSize = 8

// run forks. From the clone on the child must not touch the runtime: no
// allocation, no stack growth, nothing but raw system calls.
//
//go:norace
//go:noinline
//go:nosplit
func (j *fork) run() (pid int, errno syscall.Errno) {
	// With signals blocked neither side is preempted, nor enters a handler in the child.
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&j.all)), uintptr(unsafe.Pointer(&j.old)), sigsetSize, 0, 0)
	r, _, e := syscall.RawSyscall6(unix.SYS_CLONE, j.flags, 0, uintptr(unsafe.Pointer(&j.pidfd)), 0, 0, 0)
	if e != 0 || r != 0 {
		syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&j.old)), 0, sigsetSize, 0, 0)
		return int(r), e
	}
	for sig := uintptr(1); sig <= 64; sig++ {
		syscall.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&j.zero)), 0, sigsetSize, 0, 0)
	}
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&j.zero)), 0, sigsetSize, 0, 0)
	at, errno := execute(j.calls, j.results, j.status)
	j.report[0], j.report[1] = at, uint32(errno)
	syscall.RawSyscall6(unix.SYS_WRITE, j.status, uintptr(unsafe.Pointer(&j.report)), 8, 0, 0, 0)
	for {
		syscall.RawSyscall6(unix.SYS_EXIT_GROUP, 126, 0, 0, 0, 0, 0)
	}
}

// execute makes the calls in order and stops at the first that fails. It runs in a forked child.
//
//go:norace
//go:noinline
//go:nosplit
func execute(calls []call, results []uintptr, status uintptr) (at uint32, errno syscall.Errno) {
	ready := [2]uint32{}
next:
	for i := range calls {
		c := &calls[i]
		results[i+1] = failed
		var a [6]uintptr
		for k := range a {
			a[k] = c.args[k]
			if c.refs[k] != 0 {
				a[k] = results[c.refs[k]]
				if a[k] == failed {
					continue next
				}
			}
		}
		if c.raise != nil {
			c.raise[0].Effective, c.raise[1].Effective = c.raise[0].Permitted, c.raise[1].Permitted
		}
		if c.announce {
			if status == failed {
				continue
			}
			a[0], a[1] = status, uintptr(unsafe.Pointer(&ready))
		}
		if c.status {
			a[0] = status
		}
		var r uintptr
		var e syscall.Errno
		for {
			r, _, e = syscall.RawSyscall6(c.nr, a[0], a[1], a[2], a[3], a[4], a[5])
			if e != syscall.EINTR && e != syscall.EAGAIN {
				break
			}
			if e == syscall.EAGAIN && c.nr != unix.SYS_OPENAT2 {
				break
			}
		}
		if e != 0 {
			if e == c.allow[0] || e == c.allow[1] || e == c.allow[2] {
				continue
			}
			if c.nr == unix.SYS_EXECVE || c.nr == unix.SYS_EXECVEAT {
				return uint32(i) | execAt, e
			}
			return uint32(i), e
		}
		if c.again && r != 0 {
			ready[0], ready[1] = forkedAgain, uint32(r)
			syscall.RawSyscall6(unix.SYS_WRITE, status, uintptr(unsafe.Pointer(&ready)), 8, 0, 0, 0)
			for {
				syscall.RawSyscall6(unix.SYS_EXIT_GROUP, 0, 0, 0, 0, 0, 0)
			}
		}
		if c.exact && r != c.want {
			return uint32(i), syscall.EPIPE
		}
		results[i+1] = r
	}
	return uint32(len(calls)), 0
}

// Pipe makes a pipe whose ends are out of the way of a child's first files.
func Pipe() (r, w *os.File, err error) {
	low, w, err := highPipe()
	if err != nil {
		return nil, nil, err
	}
	defer low.Close()
	if r, err = HighDup(low); err != nil {
		w.Close()
		return nil, nil, err
	}
	return r, w, unix.SetNonblock(fd(r), false)
}
