// Package machine says what this machine is: kernel, distribution, architecture, memory.
//
// It is not the engine's state, and it changes nothing. Invariant: what can't be read is empty, never an error.
package machine

import (
	"bufio"
	"os"
	"runtime"
	"strconv"
	"strings"
)

// FirstLine is a file's, or "" when it can't be read.
func FirstLine(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return line
}

// Boot is the boot id, which tells one run of the machine from the next.
func Boot() string { return FirstLine("/proc/sys/kernel/random/boot_id") }

// Kernel is the kernel's version.
func Kernel() string { return FirstLine("/proc/sys/kernel/osrelease") }

// Architecture is the machine's, as uname(1) calls it.
func Architecture() string {
	if name := FirstLine("/proc/sys/kernel/arch"); name != "" { // since Linux 6.1
		return name
	}
	switch runtime.GOARCH {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	}
	return runtime.GOARCH
}

// CgroupVersion is "2" where the unified hierarchy is the only one.
func CgroupVersion() string {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return "2"
	}
	return "1"
}

// Distribution is what os-release(5) says; PRETTY_NAME is never empty.
func Distribution() map[string]string {
	values := map[string]string{}
	for _, path := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if key, value, ok := strings.Cut(lines.Text(), "="); ok {
				values[key] = strings.Trim(value, `"'`)
			}
		}
		f.Close()
		break
	}
	if values["PRETTY_NAME"] == "" {
		values["PRETTY_NAME"] = "Linux"
	}
	return values
}

// Memory is the machine's in bytes (proc_meminfo(5)); 0 when it can't be read.
func Memory() int64 {
	fields := strings.Fields(FirstLine("/proc/meminfo"))
	if len(fields) < 2 {
		return 0
	}
	kib, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return kib << 10
}
