package kernel

import (
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Await blocks until one byte comes from f; the end of f is EPIPE.
func (s *Script) Await(f *os.File) {
	r := s.add(unix.SYS_READ, s.F(f), s.bytes(make([]byte, 1)), N(1))
	s.calls[r-1].exact, s.calls[r-1].want = true, 1
}

// Write writes data to f, which stands for a file of the kernel's that takes it in one call.
func (s *Script) Write(f Arg, data string) Ref {
	return s.add(unix.SYS_WRITE, f, s.bytes([]byte(data)), N(len(data)))
}

// Dup makes f the descriptor number to, which stays open over Exec.
func (s *Script) Dup(f Arg, to int) { s.add(unix.SYS_DUP3, f, N(to), N(0)) }

// CloseFile closes f in the process that runs the script.
func (s *Script) CloseFile(f *os.File) { s.add(unix.SYS_CLOSE, s.F(f)) }

// CloseOnExec marks every descriptor from number first on (Linux ≥ 5.11).
func (s *Script) CloseOnExec(first int) {
	r := s.add(unix.SYS_CLOSE_RANGE, N(first), N(uintptr(^uint32(0))), N(unix.CLOSE_RANGE_CLOEXEC))
	s.Allow(r, unix.EINVAL, unix.ENOSYS)
}

// Unshare makes new namespaces for the process.
func (s *Script) Unshare(flags int) Ref { return s.add(unix.SYS_UNSHARE, N(flags)) }

// Setns joins a namespace.
func (s *Script) Setns(f Arg, kind int) Ref { return s.add(unix.SYS_SETNS, f, N(kind)) }

// ForkAgain has the rest of the script carried out by a further process in new namespaces (CLONE_NEWPID, …), which is
// a child of the caller of Fork; Child.Again gives it. A process can't enter by itself the PID namespace that it makes.
func (s *Script) ForkAgain(flags int) {
	r := s.add(unix.SYS_CLONE, N(flags|unix.CLONE_PARENT|int(unix.SIGCHLD)))
	s.calls[r-1].again = true
}

// Session starts a session; with a terminal it becomes the controlling one.
func (s *Script) Session(terminal Arg, console bool) {
	s.Allow(s.add(unix.SYS_SETSID), unix.EPERM)
	if console {
		s.add(unix.SYS_IOCTL, terminal, N(unix.TIOCSCTTY), N(0))
	}
}

// Open is openat2 below dir.
func (s *Script) Open(dir Arg, path string, flags int, how uint64) Ref {
	open := &unix.OpenHow{Flags: uint64(flags) | unix.O_CLOEXEC, Resolve: how}
	return s.add(unix.SYS_OPENAT2, dir, s.cstring(path), pin(s, open), N(unsafe.Sizeof(*open)))
}

// Close closes the result of an earlier call.
func (s *Script) Close(r Ref) { s.add(unix.SYS_CLOSE, R(r)) }

// NewMount is the function of that name; the result is the detached mount.
func (s *Script) NewMount(kind string, options []string, attrs int) Ref {
	ctx := s.add(unix.SYS_FSOPEN, s.cstring(kind), N(unix.FSOPEN_CLOEXEC))
	s.add(unix.SYS_FSCONFIG, R(ctx), N(unix.FSCONFIG_SET_STRING), s.cstring("source"), s.cstring(kind), N(0))
	for _, o := range options {
		if key, value, given := strings.Cut(o, "="); given {
			s.add(unix.SYS_FSCONFIG, R(ctx), N(unix.FSCONFIG_SET_STRING), s.cstring(key), s.cstring(value), N(0))
		} else {
			s.add(unix.SYS_FSCONFIG, R(ctx), N(unix.FSCONFIG_SET_FLAG), s.cstring(o), N(0), N(0))
		}
	}
	s.add(unix.SYS_FSCONFIG, R(ctx), N(unix.FSCONFIG_CMD_CREATE), N(0), N(0), N(0))
	return s.add(unix.SYS_FSMOUNT, R(ctx), N(unix.FSMOUNT_CLOEXEC), N(attrs))
}

// CloneMount copies the mount at what f stands for.
func (s *Script) CloneMount(f Arg, recursive bool) Ref {
	flags := unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return s.add(unix.SYS_OPEN_TREE, f, s.cstring(""), N(flags))
}

// SetMount sets attributes of the mount at f.
func (s *Script) SetMount(f Arg, recursive bool, set, clear uint64) Ref {
	flags := unix.AT_EMPTY_PATH
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	attr := &unix.MountAttr{Attr_set: set, Attr_clr: clear}
	return s.add(unix.SYS_MOUNT_SETATTR, f, s.cstring(""), N(flags), pin(s, attr), N(unsafe.Sizeof(*attr)))
}

// AttachMount puts a detached mount on the object target.
func (s *Script) AttachMount(mount, target Arg) Ref {
	return s.add(unix.SYS_MOVE_MOUNT, mount, s.cstring(""), target, s.cstring(""),
		N(unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH))
}

// Prctl is prctl(2).
func (s *Script) Prctl(option int, args ...Arg) Ref {
	return s.add(unix.SYS_PRCTL, append([]Arg{N(option)}, args...)...)
}

// EndWithThread has the process killed when the thread that forked it ends (PR_SET_PDEATHSIG), as all do when a program is killed.
func (s *Script) EndWithThread() { s.Prctl(unix.PR_SET_PDEATHSIG, N(int(unix.SIGKILL))) }

// AllowMissing tolerates that the call behind r finds nothing.
func (s *Script) AllowMissing(r Ref) Ref { return s.Allow(r, unix.ENOENT, unix.ENOTDIR) }

// AllowDenied tolerates that the call behind r is not permitted.
func (s *Script) AllowDenied(r Ref) Ref { return s.Allow(r, unix.EPERM, unix.EACCES) }

// RemountReadOnly makes the mount at path, if there is one, read-only before Linux 5.12.
func (s *Script) RemountReadOnly(path string) {
	flags := unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	s.Allow(s.add(unix.SYS_MOUNT, N(0), s.cstring(path), N(0), N(flags), N(0)), unix.ENOENT, unix.EINVAL)
}

// Announce tells Child.Ready that the script came this far.
func (s *Script) Announce() {
	r := s.add(unix.SYS_WRITE, N(0), N(0), N(8))
	s.calls[r-1].announce = true
}

// HoldStatus keeps the status pipe open for the program that the script ends with, so that Child.Started waits until that
// supervises (Supervise), or has ended. f is the pipe where the script does not run in a forked child. A limit on open files comes later.
func (s *Script) HoldStatus(f *os.File) {
	pipe := N(0)
	if f != nil {
		pipe = s.F(f)
	}
	r := s.add(unix.SYS_FCNTL, pipe, N(unix.F_DUPFD), N(lowest))
	s.calls[r-1].status = f == nil
}

// Exec executes the program at path, which ends the script.
func (s *Script) Exec(path string, argv, env []string) {
	s.add(unix.SYS_EXECVE, s.cstring(path), s.vector(argv), s.vector(env))
}

// ExecFile executes the open file f.
func (s *Script) ExecFile(f *os.File, argv, env []string) {
	s.add(unix.SYS_EXECVEAT, s.F(f), s.cstring(""), s.vector(argv), s.vector(env), N(unix.AT_EMPTY_PATH))
}
