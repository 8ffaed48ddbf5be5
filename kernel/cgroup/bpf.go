package cgroup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// instruction is one instruction of eBPF in the kernel's layout (linux/bpf.h: struct bpf_insn; RFC 9669).
type instruction struct {
	op   uint8
	regs uint8 // destination in the low half, source in the high half (little endian hosts)
	off  int16 // jump distance, counted from the next instruction; or offset of a load
	imm  int32
}

// The few opcodes that a device program needs.
const (
	opLoadWord = unix.BPF_LDX | unix.BPF_MEM | unix.BPF_W
	opMoveImm  = unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_K
	opMoveReg  = unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_X
	opAnd32    = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	opShift32  = unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K
	opJumpNE   = unix.BPF_JMP | unix.BPF_JNE | unix.BPF_K
	opJumpNE32 = unix.BPF_JMP32 | unix.BPF_JNE | unix.BPF_K
	opJumpEQ   = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	opExit     = unix.BPF_JMP | unix.BPF_EXIT
)

// Registers: R1 holds the context at entry, R0 the verdict at exit.
const (
	regVerdict = iota
	regContext
	regKind
	regAccess
	regMajor
	regMinor
	regScratch
)

// program compiles d for BPF_PROG_TYPE_CGROUP_DEVICE. The context is struct bpf_cgroup_dev_ctx: access<<16|type, major, minor.
// Each exception is a row of tests that jumps over its own verdict when it does not match.
func (d *devices) program() []instruction {
	load := func(reg uint8, at int16) instruction { return instruction{opLoadWord, reg | regContext<<4, at, 0} }
	p := []instruction{
		load(regKind, 0),
		{opAnd32, regKind, 0, 0xffff},
		load(regAccess, 0),
		{opShift32, regAccess, 0, 16},
		load(regMajor, 4),
		load(regMinor, 8),
	}
	verdict := func(allow bool) []instruction {
		v := instruction{op: opMoveImm, regs: regVerdict}
		if allow {
			v.imm = 1
		}
		return []instruction{v, {op: opExit}}
	}
	for _, e := range d.sorted() {
		p = append(p, row(e, d.exceptions[e], d.allow, verdict(!d.allow))...)
	}
	return append(p, verdict(d.allow)...)
}

func row(e device, bits access, open bool, verdict []instruction) []instruction {
	kind := int32(unix.BPF_DEVCG_DEV_CHAR)
	if e.kind == 'b' {
		kind = unix.BPF_DEVCG_DEV_BLOCK
	}
	tests := []instruction{{op: opJumpNE, regs: regKind, imm: kind}}
	if e.major != wild {
		tests = append(tests, instruction{op: opJumpNE32, regs: regMajor, imm: int32(e.major)})
	}
	if e.minor != wild {
		tests = append(tests, instruction{op: opJumpNE32, regs: regMinor, imm: int32(e.minor)})
	}
	copied := instruction{op: opMoveReg, regs: regScratch | regAccess<<4}
	switch {
	case open: // refuse when any of the bits is asked for
		tests = append(tests, copied,
			instruction{op: opAnd32, regs: regScratch, imm: int32(bits)},
			instruction{op: opJumpEQ, regs: regScratch, imm: 0})
	case bits != allAccess: // allow when nothing but the bits is asked for
		tests = append(tests, copied,
			instruction{op: opAnd32, regs: regScratch, imm: int32(allAccess &^ bits)},
			instruction{op: opJumpNE, regs: regScratch, imm: 0})
	}
	end := len(tests) + len(verdict)
	for i := range tests {
		switch tests[i].op {
		case opJumpNE, opJumpNE32, opJumpEQ:
			tests[i].off = int16(end - i - 1)
		}
	}
	return append(tests, verdict...)
}

// encode lays instructions out for the kernel, in the host's byte order.
func encode(p []instruction) []byte {
	b := make([]byte, 0, 8*len(p))
	order := binary.NativeEndian
	for _, i := range p {
		regs := i.regs
		if order.Uint16([]byte{1, 0}) != 1 { // big endian: the halves of the register byte change places
			regs = regs<<4 | regs>>4
		}
		b = append(b, i.op, regs)
		b = order.AppendUint16(b, uint16(i.off))
		b = order.AppendUint32(b, uint32(i.imm))
	}
	return b
}

// The leading parts of union bpf_attr that the commands here read (linux/bpf.h).
type (
	progLoad struct {
		kind, count         uint32
		instructions        uint64
		license             uint64
		logLevel, logSize   uint32
		logBuffer           uint64
		kernelVersion, flag uint32
		name                [16]byte
	}
	progAttach struct {
		target, program, kind, flags, replace uint32
	}
	progQuery struct {
		target, kind, queryFlags, attachFlags uint32
		ids                                   uint64
		count, _                              uint32
	}
	progByID struct {
		id, next, flags uint32
	}
)

func bpf(command int, attr unsafe.Pointer, size uintptr) (int, error) {
	for {
		n, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(command), uintptr(attr), size)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR, unix.EAGAIN:
		default:
			return -1, os.NewSyscallError("bpf", errno)
		}
	}
}

// attach makes d the device program of the v2 group dir. The kernel keeps it as long as the group is there. What was
// attached before by us is replaced in one step (Linux 5.6), so that no moment is without rules.
func (d *devices) attach(dir string) error {
	prog, err := load(d.program())
	if err != nil {
		return fmt.Errorf("load device rules of %s: %w", dir, err)
	}
	defer unix.Close(prog)
	group, err := open(dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(group)
	old, err := attached(group)
	if err != nil {
		return fmt.Errorf("query device rules of %s: %w", dir, err)
	}
	// A program that every group above also has its say on: ALLOW_MULTI runs all of them, and all must agree.
	attr := progAttach{target: uint32(group), program: uint32(prog), kind: unix.BPF_CGROUP_DEVICE, flags: unix.BPF_F_ALLOW_MULTI}
	if len(old) == 1 {
		before, err := byID(old[0])
		if err != nil {
			return fmt.Errorf("replace device rules of %s: %w", dir, err)
		}
		defer unix.Close(before)
		attr.flags |= unix.BPF_F_REPLACE
		attr.replace = uint32(before)
	}
	if _, err := bpf(unix.BPF_PROG_ATTACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr)); err != nil {
		return fmt.Errorf("attach device rules to %s: %w", dir, err)
	}
	return nil
}

func load(p []instruction) (int, error) {
	code, license := encode(p), []byte("Apache-2.0\x00")
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&code[0])
	pin.Pin(&license[0])
	attr := progLoad{
		kind: unix.BPF_PROG_TYPE_CGROUP_DEVICE, count: uint32(len(p)),
		instructions: uint64(uintptr(unsafe.Pointer(&code[0]))),
		license:      uint64(uintptr(unsafe.Pointer(&license[0]))),
	}
	copy(attr.name[:15], "berth_devices")
	fd, err := bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EACCES) {
		err = fmt.Errorf("%w: %s", err, verifierLog(attr))
	}
	return fd, err
}

// verifierLog loads once more to hear why the kernel refused.
func verifierLog(attr progLoad) string {
	text := make([]byte, 1<<14)
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&text[0])
	attr.logLevel, attr.logSize = 1, uint32(len(text))
	attr.logBuffer = uint64(uintptr(unsafe.Pointer(&text[0])))
	if fd, err := bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr)); err == nil {
		unix.Close(fd)
	}
	return unix.ByteSliceToString(text)
}

// attached lists the ids of the device programs that are attached to the group itself.
func attached(group int) ([]uint32, error) {
	ids := make([]uint32, 64) // as many as the kernel attaches to one group (BPF_CGROUP_MAX_PROGS)
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&ids[0])
	attr := progQuery{target: uint32(group), kind: unix.BPF_CGROUP_DEVICE, ids: uint64(uintptr(unsafe.Pointer(&ids[0]))), count: uint32(len(ids))}
	_, err := bpf(unix.BPF_PROG_QUERY, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	if err != nil {
		return nil, err
	}
	return ids[:min(int(attr.count), len(ids))], nil
}

func byID(id uint32) (int, error) {
	attr := progByID{id: id}
	return bpf(unix.BPF_PROG_GET_FD_BY_ID, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
}
