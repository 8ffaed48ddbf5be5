package kernel

import (
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Rights adds to a script what changes who its process is and what it may do.
type Rights struct{ *Script }

// Umask sets the file mode creation mask.
func (s Rights) Umask(mask uint32) { s.add(unix.SYS_UMASK, N(mask)) }

// Identity sets the groups and all user and group ids of the process. Capabilities
// that the change of user would take are kept until Capabilities is called.
func (s Rights) Identity(uid, gid uint32, groups []uint32) {
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
func (s Rights) Bound(keep CapSet) {
	last := LastCap()
	for c := 0; c <= last; c++ {
		if !keep.Has(c) {
			s.Allow(s.Prctl(unix.PR_CAPBSET_DROP, N(c)), unix.EINVAL)
		}
	}
}

// Capabilities sets the process's sets.
func (s Rights) Capabilities(effective, permitted, inheritable, ambient CapSet) {
	hdr := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := &[2]unix.CapUserData{
		{Effective: uint32(effective), Permitted: uint32(permitted), Inheritable: uint32(inheritable)},
		{Effective: uint32(effective >> 32), Permitted: uint32(permitted >> 32), Inheritable: uint32(inheritable >> 32)},
	}
	s.Prctl(unix.PR_CAP_AMBIENT, N(unix.PR_CAP_AMBIENT_CLEAR_ALL), N(0), N(0), N(0))
	s.add(unix.SYS_CAPSET, pin(s.Script, hdr), pin(s.Script, data))
	for c := 0; c < 64; c++ {
		if ambient.Has(c) {
			// As in the field: an ambient capability that can't be raised is left out.
			s.Allow(s.Prctl(unix.PR_CAP_AMBIENT, N(unix.PR_CAP_AMBIENT_RAISE), N(c), N(0), N(0)), unix.EPERM, unix.EINVAL)
		}
	}
	s.Prctl(unix.PR_SET_KEEPCAPS, N(0))
}

// NoNewPrivs keeps the process from gaining rights by an exec.
func (s Rights) NoNewPrivs() {
	s.Prctl(unix.PR_SET_NO_NEW_PRIVS, N(1), N(0), N(0), N(0))
}

// Undumpable closes the process's memory and files in /proc to others until it executes its program.
func (s Rights) Undumpable() { s.Prctl(unix.PR_SET_DUMPABLE, N(0), N(0), N(0), N(0)) }

// Seccomp loads a filter for this process (seccomp(2)).
func (s Rights) Seccomp(filter []bpf.RawInstruction, flags uint) Ref {
	s.keep = append(s.keep, filter)
	// struct sock_filter has the layout of bpf.RawInstruction.
	prog := &unix.SockFprog{Len: uint16(len(filter)), Filter: (*unix.SockFilter)(unsafe.Pointer(&filter[0]))}
	return s.add(unix.SYS_SECCOMP, N(unix.SECCOMP_SET_MODE_FILTER), N(flags), pin(s.Script, prog))
}

// Regain makes all permitted capabilities of the process that prepares the script effective again,
// after a change of user with Identity.
func (s Rights) Regain() {
	hdr := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := &[2]unix.CapUserData{}
	// Read in the child: a user namespace may have changed what it holds.
	s.add(unix.SYS_CAPGET, pin(s.Script, hdr), pin(s.Script, data))
	r := s.add(unix.SYS_CAPSET, pin(s.Script, hdr), pin(s.Script, data))
	s.calls[r-1].raise = data
}

// KeepCaps tells whether a change of user keeps the permitted capabilities.
func (s Rights) KeepCaps(on bool) {
	v := 0
	if on {
		v = 1
	}
	s.Prctl(unix.PR_SET_KEEPCAPS, N(v))
}

// SessionKeyring leaves the caller's session keyring for a fresh, anonymous one (keyrings(7)).
func (s Rights) SessionKeyring() {
	s.Allow(s.add(unix.SYS_KEYCTL, N(unix.KEYCTL_JOIN_SESSION_KEYRING), N(0)), unix.ENOSYS, unix.EDQUOT, unix.EPERM)
}

// Limit sets a resource limit (prlimit(2)).
func (s Rights) Limit(l Limit) {
	v := &unix.Rlimit{Cur: l.Soft, Max: l.Hard}
	s.add(unix.SYS_PRLIMIT64, N(0), N(l.Resource), pin(s.Script, v), N(0))
}
