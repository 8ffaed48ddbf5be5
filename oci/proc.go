package oci

import (
	"os"
	"slices"
	"strings"

	"berth/fault"
	"berth/kernel"
)

// emulated are the files of procfs over which something else may be mounted: file systems that show a container its
// own limits in them (lxcfs) do. Nothing that confines a container depends on one.
var emulated = []string{
	"cpuinfo", "diskstats", "loadavg", "meminfo", "slabinfo", "stat", "swaps", "uptime",
	"net/dev", "sys/crypto/fips_enabled", "sys/kernel/ns_last_pid",
}

// checkProc refuses a mount that would put something else in the place of procfs or of a part of it: what a container
// and its runtime read and write there is trusted (CVE-2019-16884). f is what is to be mounted, nil for a new tmpfs;
// target is where dest led, nil when that is not known yet.
func checkProc(dest string, target, f *os.File) error {
	below, inside := strings.CutPrefix(dest+"/", "/proc/")
	if !inside && target != nil { // by a link
		kind, err := kernel.FSType(target)
		if err != nil {
			return err
		}
		inside = kind == kernel.ProcMagic
	}
	switch {
	case !inside || slices.Contains(emulated, strings.TrimSuffix(below, "/")):
		return nil
	case below == "" && f != nil && kernel.IsProc(f) == nil:
		return nil
	case below == "":
		return fault.New(fault.Invalid, "what is not of type proc can't be mounted at /proc")
	}
	return fault.New(fault.Invalid, "it can't be mounted because it is inside /proc")
}
