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

// numbers reads a table.
func (a architecture) numbers() map[string]uint32 {
	calls := make(map[string]uint32, 512)
	for line := range strings.Lines(*a.calls) {
		name, number, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if n, err := strconv.ParseUint(number, 10, 32); err == nil {
			calls[name] = uint32(n)
		}
	}
	return calls
}

// multiplexed gives, for 32-bit x86, the call through which name can be reached as well (socketcall(2), ipc(2)) and the value of
// its first argument that means name. A rule on the plain call alone could be walked around, or would not serve older programs.
func multiplexed(a specs.Arch, name string) (via string, arg uint64, ok bool) {
	if a != specs.ArchX86 {
		return "", 0, false
	}
	sockets := map[string]uint64{ // linux/net.h
		"socket": 1, "bind": 2, "connect": 3, "listen": 4, "accept": 5, "getsockname": 6, "getpeername": 7, "socketpair": 8,
		"send": 9, "recv": 10, "sendto": 11, "recvfrom": 12, "shutdown": 13, "setsockopt": 14, "getsockopt": 15,
		"sendmsg": 16, "recvmsg": 17, "accept4": 18, "recvmmsg": 19, "sendmmsg": 20,
	}
	if n, ok := sockets[name]; ok {
		return "socketcall", n, true
	}
	ipc := map[string]uint64{ // linux/ipc.h
		"semop": 1, "semget": 2, "semctl": 3, "semtimedop": 4, "msgsnd": 11, "msgrcv": 12, "msgget": 13, "msgctl": 14,
		"shmat": 21, "shmdt": 22, "shmget": 23, "shmctl": 24,
	}
	n, ok := ipc[name]
	return "ipc", n, ok
}
