package seccomp

import (
	_ "embed"
	"runtime"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

//go:generate go run generate.go

// The tables, as "name number" lines sorted by number. They are text, not Go maps, so that a program that never compiles a
// profile pays nothing for them at its start.
var (
	//go:embed amd64.txt
	amd64Calls string
	//go:embed x32.txt
	x32Calls string
	//go:embed x86.txt
	x86Calls string
	//go:embed arm64.txt
	arm64Calls string
	//go:embed arm.txt
	armCalls string
)

// x32Bit marks a call of the x32 ABI, which shares amd64's audit number.
const x32Bit = 0x40000000

// architecture is one set of system call numbers.
type architecture struct {
	name    specs.Arch
	audit   uint32 // as in struct seccomp_data's arch (linux/audit.h)
	calls   *string
	private uint32 // numbers from here on are the architecture's own and say nothing about a kernel's age; 0: none
}

// architectures lists those that have a table. x32 is a part of amd64's section.
func architectures() []architecture {
	return []architecture{
		{specs.ArchX86_64, unix.AUDIT_ARCH_X86_64, &amd64Calls, 0},
		{specs.ArchX32, unix.AUDIT_ARCH_X86_64, &x32Calls, 0},
		{specs.ArchX86, unix.AUDIT_ARCH_I386, &x86Calls, 0},
		{specs.ArchAARCH64, unix.AUDIT_ARCH_AARCH64, &arm64Calls, 0},
		{specs.ArchARM, unix.AUDIT_ARCH_ARM, &armCalls, 0xf0000},
	}
}

// withoutTable lists the architectures of the OCI specification that this package does not know. A profile may name them: no
// machine that has a table speaks them, so they stay what every foreign one is, refused.
func withoutTable() []specs.Arch {
	return []specs.Arch{
		specs.ArchMIPS, specs.ArchMIPS64, specs.ArchMIPS64N32, specs.ArchMIPSEL, specs.ArchMIPSEL64, specs.ArchMIPSEL64N32,
		specs.ArchPPC, specs.ArchPPC64, specs.ArchPPC64LE, specs.ArchS390, specs.ArchS390X, specs.ArchPARISC, specs.ArchPARISC64,
		specs.ArchRISCV64, specs.ArchLOONGARCH64, specs.ArchM68K, specs.ArchSH, specs.ArchSHEB,
	}
}

// native is the architecture that this program was built for; "" has no table.
func native() specs.Arch {
	return map[string]specs.Arch{"amd64": specs.ArchX86_64, "386": specs.ArchX86, "arm64": specs.ArchAARCH64, "arm": specs.ArchARM}[runtime.GOARCH]
}

// table is an architecture's calls: their numbers, ascending, and where in that list a name is.
type table struct {
	numbers []uint32
	index   map[string]int
}

// table reads the text. It is done anew for each compilation, in some tens of microseconds, and kept by nobody.
func (a architecture) table() table {
	t := table{make([]uint32, 0, 512), make(map[string]int, 512)}
	for line := range strings.Lines(*a.calls) {
		name, number, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil {
			continue
		}
		if last := len(t.numbers) - 1; last < 0 || t.numbers[last] != uint32(n) { // some have two names
			t.numbers = append(t.numbers, uint32(n))
		}
		t.index[name] = len(t.numbers) - 1
	}
	return t
}

// multiplexed gives, for 32-bit x86, the call through which name can be reached as well (socketcall(2), ipc(2)) and the value of
// its first argument that means name. A rule on the plain call alone could be walked around, or would not serve older programs.
func multiplexed(a specs.Arch, name string) (via string, arg uint64, ok bool) {
	if a != specs.ArchX86 {
		return "", 0, false
	}
	switch name { // the numbers are those of linux/net.h and linux/ipc.h
	case "socket":
		return "socketcall", 1, true
	case "bind":
		return "socketcall", 2, true
	case "connect":
		return "socketcall", 3, true
	case "listen":
		return "socketcall", 4, true
	case "accept":
		return "socketcall", 5, true
	case "getsockname":
		return "socketcall", 6, true
	case "getpeername":
		return "socketcall", 7, true
	case "socketpair":
		return "socketcall", 8, true
	case "send":
		return "socketcall", 9, true
	case "recv":
		return "socketcall", 10, true
	case "sendto":
		return "socketcall", 11, true
	case "recvfrom":
		return "socketcall", 12, true
	case "shutdown":
		return "socketcall", 13, true
	case "setsockopt":
		return "socketcall", 14, true
	case "getsockopt":
		return "socketcall", 15, true
	case "sendmsg":
		return "socketcall", 16, true
	case "recvmsg":
		return "socketcall", 17, true
	case "accept4":
		return "socketcall", 18, true
	case "recvmmsg":
		return "socketcall", 19, true
	case "sendmmsg":
		return "socketcall", 20, true
	case "semop":
		return "ipc", 1, true
	case "semget":
		return "ipc", 2, true
	case "semctl":
		return "ipc", 3, true
	case "semtimedop":
		return "ipc", 4, true
	case "msgsnd":
		return "ipc", 11, true
	case "msgrcv":
		return "ipc", 12, true
	case "msgget":
		return "ipc", 13, true
	case "msgctl":
		return "ipc", 14, true
	case "shmat":
		return "ipc", 21, true
	case "shmdt":
		return "ipc", 22, true
	case "shmget":
		return "ipc", 23, true
	case "shmctl":
		return "ipc", 24, true
	}
	return "", 0, false
}
