// Package seccomp turns an OCI seccomp profile into a classic BPF program and loads it.
//
// It is not a policy: the default profile is moby's, custom ones are the user's. It uses no
// libseccomp: system call tables and compiler are its own. Invariant: what a profile does not allow, the program
// does not allow, whatever architecture a program on this machine speaks; and running the program for any call takes
// a number of steps that grows with the logarithm of the profile.
package seccomp

import (
	"encoding/json"
	"errors"
	"os"
	"runtime"
	"unsafe"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"berth/fault"
)

// Program is a compiled filter. It is plain data, never changes, and may be kept and loaded any number of times.
type Program struct {
	Instructions []bpf.RawInstruction
	Flags        uint32 // SECCOMP_FILTER_FLAG_…
}

// Default returns moby's default profile for this kernel, this architecture and a container whose bounding set is caps ("CAP_CHOWN", …).
func Default(caps []string) (*specs.LinuxSeccomp, error) {
	return seccomp.GetDefaultProfile(withCaps(caps))
}

// Parse reads a profile in Docker's file format (an OCI one is also one) and resolves its conditions on kernel, architecture and capabilities.
// An empty profile gives nil: no filter. Errors are fault.Invalid.
func Parse(profile []byte, caps []string) (*specs.LinuxSeccomp, error) {
	if !json.Valid(profile) {
		return nil, fault.New(fault.Invalid, "decode seccomp profile: it is not valid JSON")
	}
	s, err := seccomp.LoadProfile(string(profile), withCaps(caps))
	return s, fault.Wrap(fault.Invalid, err)
}

func withCaps(caps []string) *specs.Spec {
	return &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}}}
}

// Load binds the calling thread, and what it executes or forks from now on, to the program; other threads of the process
// stay free. The caller has locked the goroutine to its thread, and holds CAP_SYS_ADMIN or has set no_new_privs. It can't be undone.
// An empty program loads nothing.
func (p Program) Load() error {
	if len(p.Instructions) == 0 {
		return nil
	}
	_, err := p.load(p.Flags)
	return err
}

// Listen is Load for a program with notifications (SCMP_ACT_NOTIFY): the file receives them (seccomp_unotify(2)); the caller closes it.
func (p Program) Listen() (*os.File, error) {
	fd, err := p.load(p.Flags | unix.SECCOMP_FILTER_FLAG_NEW_LISTENER)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "seccomp notifications"), nil
}

func (p Program) load(flags uint32) (int, error) {
	// bpf.RawInstruction has the kernel's layout (struct sock_filter).
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&p.Instructions[0])
	prog := unix.SockFprog{Len: uint16(len(p.Instructions)), Filter: (*unix.SockFilter)(unsafe.Pointer(&p.Instructions[0]))}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(flags), uintptr(unsafe.Pointer(&prog)))
	switch {
	case errno == 0:
		return int(fd), nil
	case errno == unix.EACCES:
		return -1, fault.Wrap(fault.Denied, errors.New("load seccomp filter: needs no_new_privs or CAP_SYS_ADMIN"))
	}
	return -1, os.NewSyscallError("load seccomp filter", errno)
}
