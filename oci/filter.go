package oci

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/net/bpf"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/fault"
	"berth/kernel/seccomp"
)

// Filter is a compiled seccomp profile, as it travels in a bundle: a caller that starts many containers alike compiles
// once. It is good for this machine's kernel and architecture only.
type Filter struct {
	Code  []byte `json:"code"` // struct sock_filter after struct sock_filter, as the kernel takes them
	Flags uint32 `json:"flags,omitempty"`
}

// instructionSize is that of struct sock_filter in bytes (linux/filter.h).
const instructionSize = 8

// CompileFilter compiles a profile; nil gives nil. Errors are fault.Invalid.
func CompileFilter(s *specs.LinuxSeccomp) (*Filter, error) {
	if s == nil {
		return nil, nil
	}
	p, err := seccomp.Compile(s)
	if err != nil {
		return nil, err
	}
	f := &Filter{Flags: p.Flags, Code: make([]byte, 0, instructionSize*len(p.Instructions))}
	for _, i := range p.Instructions {
		f.Code = binary.NativeEndian.AppendUint16(f.Code, i.Op)
		f.Code = append(f.Code, i.Jt, i.Jf)
		f.Code = binary.NativeEndian.AppendUint32(f.Code, i.K)
	}
	return f, nil
}

// DefaultFilter is the field's default profile for this kernel and a container whose bounding set is caps.
func DefaultFilter(caps []string) (*Filter, error) {
	s, err := DefaultProfile(caps)
	if err != nil {
		return nil, err
	}
	return CompileFilter(s)
}

// DefaultProfile is DefaultFilter uncompiled, for another runtime.
func DefaultProfile(caps []string) (*specs.LinuxSeccomp, error) {
	s, err := seccomp.Default(caps)
	if err != nil {
		return nil, fmt.Errorf("default seccomp profile: %w", err)
	}
	return s, nil
}

// ParseProfile is ParseFilter uncompiled. Errors are fault.Invalid.
func ParseProfile(profile []byte, caps []string) (*specs.LinuxSeccomp, error) {
	return seccomp.Parse(profile, caps)
}

// ParseFilter compiles a profile in Docker's file format. Errors are fault.Invalid.
func ParseFilter(profile []byte, caps []string) (*Filter, error) {
	s, err := seccomp.Parse(profile, caps)
	if err != nil {
		return nil, err
	}
	return CompileFilter(s)
}

// program is the filter as it is loaded.
func (f *Filter) program() (p seccomp.Program, err error) {
	if len(f.Code)%instructionSize != 0 {
		return p, fault.New(fault.Invalid, "seccomp filter of %d bytes is cut", len(f.Code))
	}
	p.Flags = f.Flags
	p.Instructions = make([]bpf.RawInstruction, 0, len(f.Code)/instructionSize)
	for c := f.Code; len(c) > 0; c = c[instructionSize:] {
		p.Instructions = append(p.Instructions, bpf.RawInstruction{
			Op: binary.NativeEndian.Uint16(c), Jt: c[2], Jf: c[3], K: binary.NativeEndian.Uint32(c[4:]),
		})
	}
	return p, nil
}

// filter is what the bundle's processes are bound by.
func (b *Bundle) filter() (seccomp.Program, error) {
	switch {
	case b.Filter != nil:
		return b.Filter.program()
	case b.Spec.Linux != nil && b.Spec.Linux.Seccomp != nil:
		return seccomp.Compile(b.Spec.Linux.Seccomp)
	}
	return seccomp.Program{}, nil
}
