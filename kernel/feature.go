package kernel

import "golang.org/x/sys/unix"

// Feature is one facility of the kernel that is used when it is there.
type Feature struct {
	Name  string
	Since string // Linux release that brought it
	Lack  string // what is done without it
	Probe func() bool
}

// Features lists what is newer than the oldest kernel that is supported (5.10), for a user
// who asks why something is slow or missing. Probes change nothing and need no rights beyond the caller's.
func Features() []Feature {
	return []Feature{
		{"mount_setattr", "5.12", "mounts are remounted by path; recursive read-only binds are refused", CanSetMount},
		{"close_range with CLOSE_RANGE_CLOEXEC", "5.11", "descriptors are close-on-exec one by one, as they are opened", canCloseRange},
		{"id-mapped mounts", "5.12", "volumes and binds of containers in user namespaces can't show owners through them", func() bool { return atLeast(5, 12) }},
		{"overlay over id-mapped layers", "5.19", "containers in user namespaces get copies of their layers", func() bool { return atLeast(5, 19) }},
		{"overlay lowerdir+", "6.7", "layers are named in one page of mount options", CanAddLower},
		{"cgroup.kill", "5.14", "groups are frozen, killed one by one and thawed", func() bool { return atLeast(5, 14) }},
		{"memfd_create MFD_EXEC", "6.3", "copies of our program in memory are executable by default", func() bool { return atLeast(6, 3) }},
	}
}

func canCloseRange() bool {
	const nothing = 1<<31 - 1
	return unix.CloseRange(nothing, nothing, unix.CLOSE_RANGE_CLOEXEC) == nil
}

// Release is the running kernel's version (uname(2)).
func Release() (major, minor int, full string) {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return 0, 0, ""
	}
	full = unix.ByteSliceToString(u.Release[:])
	n := [2]int{}
	part := 0
	for _, c := range full {
		if c == '.' && part == 0 {
			part = 1
			continue
		}
		if c < '0' || c > '9' {
			break
		}
		n[part] = n[part]*10 + int(c-'0')
	}
	return n[0], n[1], full
}

func atLeast(major, minor int) bool {
	a, b, _ := Release()
	return a > major || a == major && b >= minor
}
