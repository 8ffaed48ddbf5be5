package seccomp

import (
	"math"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"berth/fault"
)

// Compile turns a profile into a program for this machine's architecture and those that the profile names. It takes
// less than a millisecond for the default profile; a caller that starts many containers alike may keep the result.
// A nil profile gives an empty program. Names of calls that no table has are passed over, as the field does. A call that is newer than the newest one that
// a restrictive profile names gets ENOSYS instead of the default action, so that programs fall back.
//
// Where rules of one call differ, the first one without conditions decides; without such, the first one whose conditions hold. A rule that only repeats
// the default action counts as absent.
//
// Errors are fault.Invalid: an unknown action, operator or architecture, or a profile too large for the kernel (4096 instructions).
func Compile(s *specs.LinuxSeccomp) (Program, error) {
	if s == nil {
		return Program{}, nil
	}
	if native() == "" {
		return Program{}, fault.New(fault.Unsupported, "compile seccomp profile: no system call table for this architecture")
	}
	return compile(s, native())
}

func compile(s *specs.LinuxSeccomp, native specs.Arch) (Program, error) {
	flags, err := loadFlags(s)
	if err != nil {
		return Program{}, err
	}
	rules, err := newRules(s)
	if err != nil {
		return Program{}, err
	}
	sections, err := newSections(s, native, rules)
	if err != nil {
		return Program{}, err
	}
	var a assembler
	for _, section := range slices.Backward(sections) {
		a.section(section)
	}
	a.emit(bpf.LoadAbsolute{Off: offsetArch, Size: 4})
	code, err := a.program()
	return Program{code, flags}, err
}

// loadFlags reads the profile's flags. As runtimes do, a profile without any gets SPEC_ALLOW: the filter then does not
// slow its processes down by the mitigation of speculative store bypass.
func loadFlags(s *specs.LinuxSeccomp) (uint32, error) {
	if s.Flags == nil {
		return unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, nil
	}
	var flags uint32
	for _, f := range s.Flags {
		switch f {
		case specs.LinuxSeccompFlagLog:
			flags |= unix.SECCOMP_FILTER_FLAG_LOG
		case specs.LinuxSeccompFlagSpecAllow:
			flags |= unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
		case specs.LinuxSeccompFlagWaitKillableRecv:
			flags |= unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
		default:
			return 0, fault.New(fault.Invalid, "seccomp profile: unknown flag %q", f)
		}
	}
	return flags, nil
}

// rules is the profile with its words resolved: what holds on every architecture.
type rules struct {
	fallback uint32 // the default action
	missing  uint32 // for calls newer than the profile
	calls    []callRule
}

type callRule struct {
	names  []string
	action uint32
	any    []condition // one of these must hold; none: always
}

// condition is a conjunction of comparisons.
type condition []specs.LinuxSeccompArg

func newRules(s *specs.LinuxSeccomp) (rules, error) {
	var r rules
	var err error
	if r.fallback, err = action(s.DefaultAction, s.DefaultErrnoRet); err != nil {
		return r, err
	}
	r.missing = uint32(unix.SECCOMP_RET_ERRNO) | uint32(unix.ENOSYS)
	switch r.fallback & unix.SECCOMP_RET_ACTION_FULL {
	case unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_LOG, unix.SECCOMP_RET_TRACE, unix.SECCOMP_RET_USER_NOTIF:
		r.missing = r.fallback // permissive, or someone else decides
	}
	for _, c := range s.Syscalls {
		rule := callRule{names: c.Names}
		if rule.action, err = action(c.Action, c.ErrnoRet); err != nil {
			return r, err
		}
		if rule.any, err = conditions(c); err != nil {
			return r, err
		}
		r.calls = append(r.calls, rule)
	}
	return r, nil
}

// action encodes what the filter returns (seccomp(2)).
func action(a specs.LinuxSeccompAction, errno *uint) (uint32, error) {
	if errno != nil && a != specs.ActErrno && a != specs.ActTrace {
		return 0, fault.New(fault.Invalid, "seccomp profile: errnoRet goes with SCMP_ACT_ERRNO and SCMP_ACT_TRACE only, not with %s", a)
	}
	data := uint32(unix.EPERM)
	if errno != nil {
		if *errno > math.MaxUint16 || a == specs.ActErrno && *errno > maxErrno {
			return 0, fault.New(fault.Invalid, "seccomp profile: errnoRet %d is too large", *errno)
		}
		data = uint32(*errno)
	}
	switch a {
	case specs.ActKill, specs.ActKillThread:
		return unix.SECCOMP_RET_KILL_THREAD, nil
	case specs.ActKillProcess:
		return unix.SECCOMP_RET_KILL_PROCESS, nil
	case specs.ActTrap:
		return unix.SECCOMP_RET_TRAP, nil
	case specs.ActErrno:
		return unix.SECCOMP_RET_ERRNO | data, nil
	case specs.ActTrace:
		return unix.SECCOMP_RET_TRACE | data, nil
	case specs.ActAllow:
		return unix.SECCOMP_RET_ALLOW, nil
	case specs.ActLog:
		return unix.SECCOMP_RET_LOG, nil
	case specs.ActNotify:
		return unix.SECCOMP_RET_USER_NOTIF, nil
	}
	return 0, fault.New(fault.Invalid, "seccomp profile: unknown action %q", a)
}

// maxErrno is the largest error number that the kernel returns to a program (linux/err.h).
const maxErrno = 4095

// conditions checks a rule's comparisons. All must hold at once, but for those of a rule that names an argument twice: there each stands by
// itself, a custom that profiles count on ("personality is 0 or 8").
func conditions(c specs.LinuxSyscall) ([]condition, error) {
	twice, seen := false, [6]bool{}
	for _, a := range c.Args {
		if a.Index > 5 {
			return nil, fault.New(fault.Invalid, "seccomp profile: %v: a call has arguments 0 to 5, not %d", c.Names, a.Index)
		}
		switch a.Op {
		case specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual:
		default:
			return nil, fault.New(fault.Invalid, "seccomp profile: %v: unknown operator %q", c.Names, a.Op)
		}
		twice = twice || seen[a.Index]
		seen[a.Index] = true
	}
	if !twice {
		if len(c.Args) == 0 {
			return nil, nil
		}
		return []condition{c.Args}, nil
	}
	var all []condition
	for _, a := range c.Args {
		all = append(all, condition{a})
	}
	return all, nil
}
