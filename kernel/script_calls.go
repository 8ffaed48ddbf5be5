package kernel

import (
	"os"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// cwd is AT_FDCWD as a call's argument.
var cwd = Arg{value: ^uintptr(99)} // -100

// Await blocks until one byte comes from f; the end of f is EPIPE.
func (s *Script) Await(f *os.File) {
	r := s.add(unix.SYS_READ, s.F(f), s.bytes(make([]byte, 1)), N(1))
	s.calls[r-1].check, s.calls[r-1].want = checkResult, 1
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

// Fchdir changes into the directory f; Chdir into path. Both check that it lies below the root.
func (s *Script) Fchdir(f Arg) {
	s.add(unix.SYS_FCHDIR, f)
	s.checkCwd()
}

// Chdir changes into path and checks that it lies below the root.
func (s *Script) Chdir(path string) {
	s.add(unix.SYS_CHDIR, s.cstring(path))
	s.checkCwd()
}

func (s *Script) checkCwd() {
	name := new([4096]byte)
	r := s.add(unix.SYS_GETCWD, pin(s, name), N(len(name)))
	s.calls[r-1].check, s.calls[r-1].name = checkCwd, name
}

// Prctl is prctl(2).
func (s *Script) Prctl(option int, args ...Arg) Ref {
	return s.add(unix.SYS_PRCTL, append([]Arg{N(option)}, args...)...)
}

// Umask sets the file mode creation mask.
func (s *Script) Umask(mask uint32) { s.add(unix.SYS_UMASK, N(mask)) }

// Identity sets the groups and all user and group ids of the process. Capabilities
// that the change of user would take are kept until Capabilities is called.
func (s *Script) Identity(uid, gid uint32, groups []uint32) {
	s.Prctl(unix.PR_SET_KEEPCAPS, N(1))
	list := N(0)
	if len(groups) > 0 {
		g := append([]uint32(nil), groups...)
		s.keep = append(s.keep, g)
		list = N(uintptr(unsafe.Pointer(&g[0])))
	}
	// A user namespace whose setgroups is denied has no groups to set.
	s.Allow(s.add(unix.SYS_SETGROUPS, N(len(groups)), list), unix.EPERM)
	s.add(unix.SYS_SETRESGID, N(gid), N(gid), N(gid))
	s.add(unix.SYS_SETRESUID, N(uid), N(uid), N(uid))
}

// Bound drops every capability from the bounding set that is not in keep.
func (s *Script) Bound(keep CapSet) {
	last := LastCap()
	for c := 0; c <= last; c++ {
		if !keep.Has(c) {
			s.Allow(s.Prctl(unix.PR_CAPBSET_DROP, N(c)), unix.EINVAL)
		}
	}
}

// Capabilities sets the process's sets.
func (s *Script) Capabilities(effective, permitted, inheritable, ambient CapSet) {
	hdr := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := &[2]unix.CapUserData{
		{Effective: uint32(effective), Permitted: uint32(permitted), Inheritable: uint32(inheritable)},
		{Effective: uint32(effective >> 32), Permitted: uint32(permitted >> 32), Inheritable: uint32(inheritable >> 32)},
	}
	s.Prctl(unix.PR_CAP_AMBIENT, N(unix.PR_CAP_AMBIENT_CLEAR_ALL), N(0), N(0), N(0))
	s.add(unix.SYS_CAPSET, pin(s, hdr), pin(s, data))
	for c := 0; c < 64; c++ {
		if ambient.Has(c) {
			// As in the field: an ambient capability that can't be raised is left out.
			s.Allow(s.Prctl(unix.PR_CAP_AMBIENT, N(unix.PR_CAP_AMBIENT_RAISE), N(c), N(0), N(0)), unix.EPERM, unix.EINVAL)
		}
	}
	s.Prctl(unix.PR_SET_KEEPCAPS, N(0))
}

// NoNewPrivs keeps the process from gaining rights by an exec.
func (s *Script) NoNewPrivs() {
	s.Prctl(unix.PR_SET_NO_NEW_PRIVS, N(1), N(0), N(0), N(0))
}

// Undumpable closes the process's memory and files in /proc to others until it executes its program.
func (s *Script) Undumpable() { s.Prctl(unix.PR_SET_DUMPABLE, N(0), N(0), N(0), N(0)) }

// DeathSignal asks for a signal when the parent thread ends.
func (s *Script) DeathSignal(sig syscall.Signal) {
	s.Prctl(unix.PR_SET_PDEATHSIG, N(int(sig)), N(0), N(0), N(0))
}

// Seccomp loads a filter for this process (seccomp(2)).
func (s *Script) Seccomp(filter []bpf.RawInstruction, flags uint) Ref {
	s.keep = append(s.keep, filter)
	// struct sock_filter has the layout of bpf.RawInstruction.
	prog := &unix.SockFprog{Len: uint16(len(filter)), Filter: (*unix.SockFilter)(unsafe.Pointer(&filter[0]))}
	return s.add(unix.SYS_SECCOMP, N(unix.SECCOMP_SET_MODE_FILTER), N(flags), pin(s, prog))
}

// Regain makes all permitted capabilities of the process that prepares the script effective again,
// after a change of user with Identity.
func (s *Script) Regain() {
	hdr := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := &[2]unix.CapUserData{}
	// Read in the child: a user namespace may have changed what it holds.
	s.add(unix.SYS_CAPGET, pin(s, hdr), pin(s, data))
	r := s.add(unix.SYS_CAPSET, pin(s, hdr), pin(s, data))
	s.calls[r-1].raise = data
}

// KeepCaps tells whether a change of user keeps the permitted capabilities.
func (s *Script) KeepCaps(on bool) {
	v := 0
	if on {
		v = 1
	}
	s.Prctl(unix.PR_SET_KEEPCAPS, N(v))
}

// AllowMissing and AllowDenied tolerate what their names say of the call behind r.
func (s *Script) AllowMissing(r Ref) Ref { return s.Allow(r, unix.ENOENT, unix.ENOTDIR) }

// AllowDenied tolerates EPERM and EACCES.
func (s *Script) AllowDenied(r Ref) Ref { return s.Allow(r, unix.EPERM, unix.EACCES) }

// RemountReadOnly makes the mount at path, if there is one, read-only before Linux 5.12.
func (s *Script) RemountReadOnly(path string) {
	flags := unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	s.Allow(s.add(unix.SYS_MOUNT, N(0), s.cstring(path), N(0), N(flags), N(0)), unix.ENOENT, unix.EINVAL)
}

// SessionKeyring leaves the caller's session keyring for a fresh, anonymous one (keyrings(7)).
func (s *Script) SessionKeyring() {
	s.Allow(s.add(unix.SYS_KEYCTL, N(unix.KEYCTL_JOIN_SESSION_KEYRING), N(0)), unix.ENOSYS, unix.EDQUOT, unix.EPERM)
}

// Limit sets a resource limit (prlimit(2)).
func (s *Script) Limit(l Limit) {
	v := &unix.Rlimit{Cur: l.Soft, Max: l.Hard}
	s.add(unix.SYS_PRLIMIT64, N(0), N(l.Resource), pin(s, v), N(0))
}

// Announce tells Child.Ready that the script came this far.
func (s *Script) Announce() {
	r := s.add(unix.SYS_WRITE, N(0), N(0), N(8))
	s.calls[r-1].announce = true
}

// Hostname and Domainname name the uts namespace.
func (s *Script) Hostname(name string) { s.add(unix.SYS_SETHOSTNAME, s.cstring(name), N(len(name))) }

// Domainname sets the NIS domain of the uts namespace.
func (s *Script) Domainname(name string) {
	s.add(unix.SYS_SETDOMAINNAME, s.cstring(name), N(len(name)))
}

// Exec executes the program at path, which ends the script.
func (s *Script) Exec(path string, argv, env []string) {
	s.add(unix.SYS_EXECVE, s.cstring(path), s.vector(argv), s.vector(env))
}

// ExecFile executes the open file f.
func (s *Script) ExecFile(f *os.File, argv, env []string) {
	s.add(unix.SYS_EXECVEAT, s.F(f), s.cstring(""), s.vector(argv), s.vector(env), N(unix.AT_EMPTY_PATH))
}
