package seccomp

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"berth/fault"
	"berth/internal/kerneltest"
)

func TestMain(m *testing.M) {
	// The fuzzer keeps a goroutine of its own, and what is fuzzed needs no world.
	if slices.ContainsFunc(os.Args, func(a string) bool { return strings.HasPrefix(a, "-test.fuzz") }) {
		os.Exit(m.Run())
	}
	kerneltest.Main(m)
}

// call is one system call as the kernel shows it to a filter.
type call struct {
	arch   uint32
	number uint32
	args   [6]uint64
}

// machine runs a program in an interpreter that is not the kernel's.
type machine struct{ vm *bpf.VM }

func newMachine(t testing.TB, p Program) machine {
	t.Helper()
	code, ok := bpf.Disassemble(p.Instructions)
	if !ok {
		t.Fatal("the program has an unknown instruction")
	}
	vm, err := bpf.NewVM(code)
	if err != nil {
		t.Fatal(err)
	}
	return machine{vm}
}

// run lays out struct seccomp_data; the interpreter reads words in network order.
func (m machine) run(t testing.TB, c call) uint32 {
	t.Helper()
	data := make([]byte, 64)
	word := func(at int, v uint32) { binary.BigEndian.PutUint32(data[at:], v) }
	word(0, c.number)
	word(4, c.arch)
	for i, a := range c.args {
		word(16+8*i, uint32(a))
		word(16+8*i+4, uint32(a>>32))
	}
	got, err := m.vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(got)
}

// reader reads a profile without compiling it: the specification that the compiler is held against.
type reader struct {
	profile  *specs.LinuxSeccomp
	native   specs.Arch
	fallback uint32
	newest   map[specs.Arch]uint32
	rules    map[specs.Arch]map[uint32][]ruleOfCall // in the profile's order, those that repeat the default left out
}

// ruleOfCall is a rule as seen from one number: plain, or for the call that the number multiplexes.
type ruleOfCall struct {
	specs.LinuxSyscall
	action uint32
	via    bool
	arg    uint64
}

var tables = sync.OnceValue(func() map[specs.Arch]map[string]uint32 {
	all := map[specs.Arch]map[string]uint32{}
	for _, a := range architectures() {
		all[a.name] = map[string]uint32{}
		read := a.table()
		for name, at := range read.index {
			all[a.name][name] = read.numbers[at]
		}
	}
	return all
})

func newReader(s *specs.LinuxSeccomp, native specs.Arch) *reader {
	r := &reader{s, native, encoded(s.DefaultAction, s.DefaultErrnoRet), map[specs.Arch]uint32{}, map[specs.Arch]map[uint32][]ruleOfCall{}}
	for arch, table := range tables() {
		newest, named := uint32(0), false
		byNumber := map[uint32][]ruleOfCall{}
		for _, c := range s.Syscalls {
			for _, name := range c.Names {
				n, ok := table[name]
				if !ok {
					continue
				}
				if arch != specs.ArchARM || n < 0xf0000 {
					newest, named = max(newest, n), true
				}
				rule := ruleOfCall{LinuxSyscall: c, action: encoded(c.Action, c.ErrnoRet)}
				if rule.action == r.fallback {
					continue
				}
				byNumber[n] = append(byNumber[n], rule)
				if via, arg, ok := multiplexed(arch, name); ok && len(c.Args) == 0 {
					rule.via, rule.arg = true, arg
					byNumber[table[via]] = append(byNumber[table[via]], rule)
				}
			}
		}
		if !named {
			newest = math.MaxUint32
		}
		r.newest[arch], r.rules[arch] = newest, byNumber
	}
	return r
}

func (r *reader) allowed(a specs.Arch) bool {
	return a == r.native || slices.Contains(r.profile.Architectures, a)
}

func (r *reader) read(c call) uint32 {
	var arch specs.Arch
	switch {
	case c.arch == unix.AUDIT_ARCH_X86_64 && c.number >= 1<<30 && r.allowed(specs.ArchX32):
		arch = specs.ArchX32
	case c.arch == unix.AUDIT_ARCH_X86_64 && (c.number < 1<<30 || c.number == math.MaxUint32):
		arch = specs.ArchX86_64
	case c.arch == unix.AUDIT_ARCH_I386:
		arch = specs.ArchX86
	case c.arch == unix.AUDIT_ARCH_AARCH64:
		arch = specs.ArchAARCH64
	case c.arch == unix.AUDIT_ARCH_ARM:
		arch = specs.ArchARM
	}
	if !r.allowed(arch) {
		return unix.SECCOMP_RET_KILL_PROCESS
	}
	rules := r.rules[arch][c.number]
	for _, rule := range rules {
		if len(rule.Args) == 0 && !rule.via {
			return rule.action
		}
	}
	for _, rule := range rules {
		if rule.via && c.args[0]&0xffff == rule.arg || !rule.via && holds(rule.Args, c.args) {
			return rule.action
		}
	}
	if c.number > r.newest[arch] && len(rules) == 0 && restrictive(r.fallback) {
		return unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	}
	return r.fallback
}

func restrictive(action uint32) bool {
	switch action & 0xffff0000 {
	case 0x7fff0000, 0x7ffc0000, 0x7ff00000, 0x7fc00000:
		return false
	}
	return true
}

func encoded(a specs.LinuxSeccompAction, errno *uint) uint32 {
	n := uint32(1)
	if errno != nil {
		n = uint32(*errno)
	}
	return map[specs.LinuxSeccompAction]uint32{
		specs.ActKill: 0, specs.ActKillThread: 0, specs.ActKillProcess: 0x80000000, specs.ActTrap: 0x30000, specs.ActErrno: 0x50000 | n,
		specs.ActTrace: 0x7ff00000 | n, specs.ActAllow: 0x7fff0000, specs.ActLog: 0x7ffc0000, specs.ActNotify: 0x7fc00000,
	}[a]
}

func holds(conditions []specs.LinuxSeccompArg, args [6]uint64) bool {
	one := func(c specs.LinuxSeccompArg) bool {
		v := args[c.Index]
		switch c.Op {
		case specs.OpNotEqual:
			return v != c.Value
		case specs.OpLessThan:
			return v < c.Value
		case specs.OpLessEqual:
			return v <= c.Value
		case specs.OpEqualTo:
			return v == c.Value
		case specs.OpGreaterEqual:
			return v >= c.Value
		case specs.OpGreaterThan:
			return v > c.Value
		}
		return v&c.Value == c.ValueTwo&c.Value
	}
	seen := map[uint]bool{}
	for _, c := range conditions {
		if seen[c.Index] {
			return slices.ContainsFunc(conditions, one)
		}
		seen[c.Index] = true
	}
	return !slices.ContainsFunc(conditions, func(c specs.LinuxSeccompArg) bool { return !one(c) })
}

// interesting gives argument lists around every value that the profile compares with.
func interesting(s *specs.LinuxSeccomp) [][6]uint64 {
	all := [][6]uint64{{}, {math.MaxUint64, math.MaxUint64, math.MaxUint64, math.MaxUint64, math.MaxUint64, math.MaxUint64}}
	for _, c := range s.Syscalls {
		for _, a := range c.Args {
			for _, v := range []uint64{a.Value, a.ValueTwo} {
				for _, near := range []uint64{v, v - 1, v + 1, ^v, v ^ 1<<32, v << 32, v >> 32, v | 1<<63, v | 0x10} {
					args := [6]uint64{}
					args[a.Index] = near
					all = append(all, args)
				}
			}
		}
	}
	for i := uint64(0); i < 26; i++ {
		all = append(all, [6]uint64{i}, [6]uint64{1<<16 | i})
	}
	slices.SortFunc(all, func(a, b [6]uint64) int { return slices.Compare(a[:], b[:]) })
	return slices.Compact(all)
}

// compare holds the compiled profile against the direct reading for every number of every architecture.
func compare(t *testing.T, s *specs.LinuxSeccomp, native specs.Arch) {
	t.Helper()
	p, err := compile(s, native)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Instructions) > maxInstructions {
		t.Fatalf("%d instructions", len(p.Instructions))
	}
	m, r := newMachine(t, p), newReader(s, native)
	arches := []uint32{unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_AARCH64, unix.AUDIT_ARCH_ARM, unix.AUDIT_ARCH_S390X, 0, math.MaxUint32}
	args, looks, tried := interesting(s), r.conditional(), 0
	for _, arch := range arches {
		for _, base := range []uint32{0, 1 << 30, 0xf0000 - 5, 1 << 31, math.MaxUint32 - 599, 1<<30 - 300} {
			for n := range uint32(600) {
				// All argument lists where a rule looks at arguments on any architecture, two elsewhere.
				lists := args[:2]
				if looks[base+n] || n%97 == 0 {
					lists = args
				}
				for _, a := range lists {
					c := call{arch, base + n, a}
					tried++
					if got, want := m.run(t, c), r.read(c); got != want {
						t.Fatalf("arch %#x, call %#x, args %#x: %#x, want %#x", arch, c.number, a, got, want)
					}
				}
			}
		}
	}
	t.Logf("%s: %d instructions, %d calls tried", native, len(p.Instructions), tried)
}

// conditional collects the numbers that some rule with conditions is about.
func (r *reader) conditional() map[uint32]bool {
	looks := map[uint32]bool{}
	for _, byNumber := range r.rules {
		for n, rules := range byNumber {
			looks[n] = slices.ContainsFunc(rules, func(c ruleOfCall) bool { return c.via || len(c.Args) > 0 }) || looks[n]
		}
	}
	return looks
}

func TestDefaultProfileIsCompiledAsRead(t *testing.T) {
	for name, caps := range map[string][]string{
		"docker": {"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
			"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE"},
		"none":  nil,
		"admin": {"CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_BPF", "CAP_SYSLOG"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Default(caps)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, s, specs.ArchX86_64)
			s.Architectures = []specs.Arch{specs.ArchAARCH64, specs.ArchARM}
			compare(t, s, specs.ArchAARCH64)
			s.Architectures = nil
			compare(t, s, specs.ArchX86_64)
			compare(t, s, specs.ArchX86)
			s.Architectures = []specs.Arch{specs.ArchX32}
			compare(t, s, specs.ArchAARCH64)
		})
	}
}

// TestOperators tries each operator, alone and joined, with values whose halves matter.
func TestOperators(t *testing.T) {
	ops := []specs.LinuxSeccompOperator{specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual}
	values := []uint64{0, 1, 0xffffffff, 1<<32 | 5, math.MaxUint64}
	for _, op := range ops {
		for _, v := range values {
			s := &specs.LinuxSeccomp{
				DefaultAction: specs.ActKillProcess,
				Architectures: []specs.Arch{specs.ArchX86},
				Syscalls: []specs.LinuxSyscall{
					{Names: []string{"read"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 2, Value: v, ValueTwo: 5, Op: op}}},
					{Names: []string{"read", "socket"}, Action: specs.ActTrap, Args: []specs.LinuxSeccompArg{{Index: 2, Value: 1, Op: specs.OpEqualTo}, {Index: 3, Value: v, Op: op}}},
					{Names: []string{"write"}, Action: specs.ActLog, Args: []specs.LinuxSeccompArg{{Index: 1, Value: v, Op: op}, {Index: 1, Value: 7, Op: specs.OpEqualTo}}},
				},
			}
			compare(t, s, specs.ArchX86_64)
		}
	}
}

func TestRulesThatMeet(t *testing.T) {
	args := []specs.LinuxSeccompArg{{Index: 0, Value: 3, Op: specs.OpEqualTo}}
	for name, s := range map[string]*specs.LinuxSeccomp{
		"nothing":       {DefaultAction: specs.ActErrno},
		"all":           {DefaultAction: specs.ActAllow},
		"deny list":     {DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86, specs.ArchX32}, Syscalls: []specs.LinuxSyscall{{Names: []string{"mount", "socket", "msgget"}, Action: specs.ActErrno}}},
		"first wins":    {DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{"mount"}, Action: specs.ActLog}, {Names: []string{"mount"}, Action: specs.ActAllow}}},
		"whole wins":    {DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{"mount"}, Action: specs.ActTrap, Args: args}, {Names: []string{"mount"}, Action: specs.ActAllow}}},
		"default again": {DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{"mount"}, Action: specs.ActErrno}, {Names: []string{"mount"}, Action: specs.ActAllow}}},
		"always true":   {DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{"mount", "umount2"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 1, Op: specs.OpMaskedEqual}}}, {Names: []string{"swapon"}, Action: specs.ActAllow}}},
		"arm's own":     {DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchARM, specs.ArchMIPS}, Syscalls: []specs.LinuxSyscall{{Names: []string{"read", "cacheflush"}, Action: specs.ActAllow}}},
		"unknown names": {DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{"no_such_call"}, Action: specs.ActAllow}}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, native := range []specs.Arch{specs.ArchX86_64, specs.ArchAARCH64} {
				compare(t, s, native)
			}
		})
	}
}

// TestManyConditions makes a program whose parts are out of reach of a conditional jump.
func TestManyConditions(t *testing.T) {
	s := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86, specs.ArchX32}}
	names := []string{"read", "write", "mount", "ioctl", "socket", "clone", "futex", "openat2"}
	for i := range 100 {
		errno := uint(i + 2)
		s.Syscalls = append(s.Syscalls, specs.LinuxSyscall{
			Names: []string{names[i%len(names)]}, Action: specs.ActErrno, ErrnoRet: &errno,
			Args: []specs.LinuxSeccompArg{{Index: uint(i % 6), Value: uint64(i) << (i % 40), Op: specs.OpEqualTo}, {Index: uint((i + 1) % 6), Value: 0, Op: specs.OpGreaterEqual}},
		})
	}
	compare(t, s, specs.ArchX86_64)
	for i := range 10 {
		for range 100 {
			s.Syscalls = append(s.Syscalls, s.Syscalls[i])
		}
	}
	if _, err := Compile(s); !errors.Is(err, fault.Invalid) {
		t.Errorf("a profile beyond the kernel's limit: %v", err)
	}
}

func TestBadProfiles(t *testing.T) {
	one := func(c specs.LinuxSyscall) *specs.LinuxSeccomp {
		c.Names = []string{"read"}
		return &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{c}}
	}
	big, errno := uint(5000), uint(3)
	for name, s := range map[string]*specs.LinuxSeccomp{
		"default":       {DefaultAction: "SCMP_ACT_MAYBE"},
		"no default":    {},
		"action":        one(specs.LinuxSyscall{Action: "allow"}),
		"operator":      one(specs.LinuxSyscall{Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Op: "=="}}}),
		"index":         one(specs.LinuxSyscall{Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 6, Op: specs.OpEqualTo}}}),
		"errno":         one(specs.LinuxSyscall{Action: specs.ActErrno, ErrnoRet: &big}),
		"errno of kill": one(specs.LinuxSyscall{Action: specs.ActKill, ErrnoRet: &errno}),
		"architecture":  {DefaultAction: specs.ActErrno, Architectures: []specs.Arch{"amd64"}},
		"flag":          {DefaultAction: specs.ActErrno, Flags: []specs.LinuxSeccompFlag{"TSYNC"}},
	} {
		if p, err := Compile(s); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %d instructions, %v", name, len(p.Instructions), err)
		}
	}
	if p, err := Compile(nil); err != nil || len(p.Instructions) != 0 || p.Load() != nil {
		t.Errorf("no profile: %v, %v", p, err)
	}
}

func TestParse(t *testing.T) {
	s, err := Parse([]byte(`{"defaultAction":"SCMP_ACT_ERRNO","archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]},
		{"architecture":"SCMP_ARCH_AARCH64","subArchitectures":["SCMP_ARCH_ARM"]}],
		"syscalls":[{"name":"read","action":"SCMP_ACT_ALLOW"},{"names":["bpf"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_BPF"]}},
		{"names":["mount"],"action":"SCMP_ACT_ALLOW","excludes":{"minKernel":"2.6"}}]}`), []string{"CAP_BPF"})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range s.Syscalls {
		names = append(names, c.Names...)
	}
	if !slices.Equal(names, []string{"read", "bpf"}) || len(s.Architectures) != 2 {
		t.Errorf("parsed to %v on %v", names, s.Architectures)
	}
	if s, err := Parse([]byte(`{}`), nil); s != nil || err != nil {
		t.Errorf("an empty profile: %v, %v", s, err)
	}
	for _, bad := range []string{``, `{`, `[]`, `{"syscalls":[{"name":"a","names":["b"]}]}`, `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"archMap":[{}]}`} {
		if s, err := Parse([]byte(bad), nil); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %v, %v", bad, s, err)
		}
	}
}

// TestPathsAreShort counts the instructions that run for a call: a search of ≈ 450 numbers by halves takes about nine tests.
func TestPathsAreShort(t *testing.T) {
	s, err := Default(nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := compile(s, specs.ArchX86_64)
	if err != nil {
		t.Fatal(err)
	}
	longest, total, table := 0, 0, tables()[specs.ArchX86_64]
	for _, n := range table {
		steps := p.steps(call{unix.AUDIT_ARCH_X86_64, n, [6]uint64{}})
		longest, total = max(longest, steps), total+steps
	}
	if longest > 40 {
		t.Errorf("a call takes %d steps", longest)
	}
	for _, name := range []string{"read", "write", "futex"} {
		if steps := p.steps(call{unix.AUDIT_ARCH_X86_64, table[name], [6]uint64{}}); steps > 10 {
			t.Errorf("%s takes %d steps", name, steps)
		}
	}
	t.Logf("%d instructions; longest path %d, mean %.1f", len(p.Instructions), longest, float64(total)/float64(len(table)))
}

// steps counts the instructions of one run.
func (p Program) steps(c call) int {
	code, _ := bpf.Disassemble(p.Instructions)
	words := map[uint32]uint32{0: c.number, 4: c.arch}
	a, steps := uint32(0), 0
	for pc := 0; ; pc++ {
		steps++
		switch i := code[pc].(type) {
		case bpf.LoadAbsolute:
			a = words[i.Off]
		case bpf.ALUOpConstant:
			a &= i.Val
		case bpf.Jump:
			pc += int(i.Skip)
		case bpf.JumpIf:
			yes := map[bpf.JumpTest]bool{bpf.JumpEqual: a == i.Val, bpf.JumpGreaterThan: a > i.Val, bpf.JumpGreaterOrEqual: a >= i.Val, bpf.JumpNotEqual: a != i.Val, bpf.JumpLessOrEqual: a <= i.Val, bpf.JumpLessThan: a < i.Val}
			if yes[i.Cond] {
				pc += int(i.SkipTrue)
			} else {
				pc += int(i.SkipFalse)
			}
		case bpf.RetConstant:
			return steps
		default:
			panic(fmt.Sprint(i))
		}
	}
}

func BenchmarkDefault(b *testing.B) {
	for b.Loop() {
		s, err := Default(nil)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := Compile(s); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	s, err := Default(nil)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := Compile(s); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzCompile feeds profiles as users write them. What compiles must agree with the direct reading.
func FuzzCompile(f *testing.F) {
	s, _ := Default(nil)
	text, _ := json.Marshal(s)
	f.Add(text, uint64(1))
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO","args":[{"index":1,"value":7,"valueTwo":3,"op":"SCMP_CMP_MASKED_EQ"}]}]}`), uint64(2))
	f.Fuzz(func(t *testing.T, text []byte, seed uint64) {
		s, err := Parse(text, nil)
		if err != nil || s == nil {
			return
		}
		p, err := Compile(s)
		if err != nil {
			return
		}
		m, r := newMachine(t, p), newReader(s, native())
		random := rand.New(rand.NewPCG(seed, 0))
		args := interesting(s)
		for _, arch := range []uint32{unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_ARM, random.Uint32()} {
			for range 200 {
				c := call{arch, random.Uint32N(600) | random.Uint32N(2)<<30, args[random.IntN(len(args))]}
				if got, want := m.run(t, c), r.read(c); got != want {
					t.Fatalf("arch %#x, call %#x, args %#x: %#x, want %#x", arch, c.number, c.args, got, want)
				}
			}
		}
	})
}
