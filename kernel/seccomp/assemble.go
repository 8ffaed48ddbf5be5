package seccomp

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"berth/fault"
)

// Offsets in struct seccomp_data (linux/seccomp.h); a 64-bit argument is two words, the lower one first on the
// little-endian machines that have a table.
const (
	offsetCall = 0
	offsetArch = 4
	offsetArgs = 16
)

const (
	maxInstructions = 4096 // BPF_MAXINSNS
	maxSkip         = 255  // a conditional jump's distance is one byte
)

// assembler emits a program from its end to its start: classic BPF only jumps forward, so every target is known by
// the time that something jumps to it.
type assembler struct {
	reversed []bpf.Instruction
	returns  map[uint32]int // where each return value was emitted last
}

// target is a place to jump to: an emitted instruction, or a return that will be put in reach when needed.
type target struct {
	at      int
	returns bool
	action  uint32
}

func (a *assembler) emit(i bpf.Instruction) target {
	a.reversed = append(a.reversed, i)
	return target{at: len(a.reversed) - 1}
}

func ret(action uint32) target { return target{returns: true, action: action} }

// place makes t something that an instruction emitted within the next few can reach.
func (a *assembler) place(t target) target {
	const slack = 4 // what may be emitted between this and the jump itself
	if t.returns {
		if at, ok := a.returns[t.action]; ok && len(a.reversed)-at+slack < maxSkip {
			return target{at: at}
		}
		placed := a.emit(bpf.RetConstant{Val: t.action})
		if a.returns == nil {
			a.returns = map[uint32]int{}
		}
		a.returns[t.action] = placed.at
		return placed
	}
	if len(a.reversed)-t.at+slack < maxSkip {
		return t
	}
	return a.emit(bpf.Jump{Skip: uint32(len(a.reversed) - t.at - 1)})
}

// branch emits a test of the accumulator.
func (a *assembler) branch(test bpf.JumpTest, value uint32, yes, no target) target {
	if yes == no {
		return yes
	}
	no = a.place(no)
	yes = a.place(yes)
	here := len(a.reversed)
	return a.emit(bpf.JumpIf{Cond: test, Val: value, SkipTrue: uint8(here - yes.at - 1), SkipFalse: uint8(here - no.at - 1)})
}

// section emits the test for one architecture in front of all that was emitted before, which is where others go on.
func (a *assembler) section(s section) {
	others := ret(unix.SECCOMP_RET_KILL_PROCESS)
	if n := len(a.reversed); n > 0 {
		others = target{at: n - 1}
	}
	inside := a.tree(s.ranges)
	if !inside.returns {
		inside = a.emit(bpf.LoadAbsolute{Off: offsetCall, Size: 4}) // goes on with the tree's root, which was emitted last
	}
	a.branch(bpf.JumpEqual, s.audit, inside, others)
}

// tree emits a balanced search for the range of the number in the accumulator. A plain return is not emitted before it is jumped to.
func (a *assembler) tree(ranges []callRange) target {
	if len(ranges) == 1 {
		return a.verdict(ranges[0].verdict)
	}
	at := split(ranges)
	high := a.tree(ranges[at:])
	low := a.tree(ranges[:at])
	return a.branch(bpf.JumpGreaterOrEqual, ranges[at].first, high, low)
}

func (a *assembler) verdict(v verdict) target {
	next := ret(v.action)
	for _, c := range slices.Backward(v.cases) {
		yes := ret(c.action)
		no := next
		for _, arg := range slices.Backward(c.when) {
			yes = a.compare(arg, yes, no)
		}
		next = yes
	}
	return next
}

// compare emits the test of one argument, in 64 bit. A 32-bit program's arguments come with an upper half of zero.
func (a *assembler) compare(arg specs.LinuxSeccompArg, yes, no target) target {
	mask := ^uint64(0)
	value := arg.Value
	switch arg.Op {
	case specs.OpNotEqual, specs.OpLessEqual, specs.OpLessThan:
		yes, no = no, yes
	case specs.OpMaskedEqual:
		mask, value = arg.Value, arg.ValueTwo&arg.Value
	}
	low := uint32(offsetArgs + 8*arg.Index)
	switch arg.Op {
	case specs.OpGreaterThan, specs.OpLessEqual:
		return a.ordered(low, bpf.JumpGreaterThan, value, yes, no)
	case specs.OpGreaterEqual, specs.OpLessThan:
		return a.ordered(low, bpf.JumpGreaterOrEqual, value, yes, no)
	}
	lower := a.equal(low, uint32(mask), uint32(value), yes, no)
	return a.equal(low+4, uint32(mask>>32), uint32(value>>32), lower, no)
}

// equal emits a masked comparison of one word.
func (a *assembler) equal(offset, mask, value uint32, yes, no target) target {
	if mask == 0 || yes == no {
		return yes
	}
	a.branch(bpf.JumpEqual, value, yes, no)
	if mask != ^uint32(0) {
		a.emit(bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mask})
	}
	return a.emit(bpf.LoadAbsolute{Off: offset, Size: 4})
}

// ordered emits a comparison by size: the upper words decide unless they are equal.
func (a *assembler) ordered(low uint32, test bpf.JumpTest, value uint64, yes, no target) target {
	if yes == no {
		return yes
	}
	a.branch(test, uint32(value), yes, no)
	lower := a.emit(bpf.LoadAbsolute{Off: low, Size: 4})
	same := a.branch(bpf.JumpEqual, uint32(value>>32), lower, no)
	a.branch(bpf.JumpGreaterThan, uint32(value>>32), yes, same)
	return a.emit(bpf.LoadAbsolute{Off: low + 4, Size: 4})
}

// program returns the instructions in the order in which they run.
func (a *assembler) program() ([]bpf.RawInstruction, error) {
	if len(a.reversed) > maxInstructions {
		return nil, fault.New(fault.Invalid, "seccomp profile: it takes %d instructions, the kernel accepts %d; use fewer conditions on arguments", len(a.reversed), maxInstructions)
	}
	slices.Reverse(a.reversed)
	return bpf.Assemble(a.reversed)
}
