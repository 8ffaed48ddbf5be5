package kernel

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// CapSet is a set of capabilities, bit n being capability n (capability.h).
type CapSet uint64

// Has tells whether capability c is in the set.
func (s CapSet) Has(c int) bool { return s>>c&1 != 0 }

// capNames is the order of linux/capability.h.
const capNames = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE " +
	"NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE " +
	"SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL " +
	"SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"

// Capability gives the number of a name such as CAP_CHOWN.
func Capability(name string) (int, bool) {
	for i, n := range strings.Fields(capNames) {
		if "CAP_"+n == name {
			return i, true
		}
	}
	return 0, false
}

// Capabilities names the members of s, as CAP_CHOWN, in the kernel's order.
func (s CapSet) Names() []string {
	var names []string
	for i, n := range strings.Fields(capNames) {
		if s.Has(i) {
			names = append(names, "CAP_"+n)
		}
	}
	return names
}

// LastCap is the highest capability that this kernel knows.
func LastCap() int {
	data, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(data))); err == nil {
			return n
		}
	}
	return 63
}

// BoundingSet is what the calling thread and its children can ever hold.
func BoundingSet() CapSet {
	var set CapSet
	for c := 0; c < 64; c++ {
		has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0)
		if err != nil { // EINVAL: this kernel knows no more
			break
		}
		if has == 1 {
			set |= 1 << c
		}
	}
	return set
}
