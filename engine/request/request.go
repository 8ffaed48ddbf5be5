// Package request says what a create request means: what is left open is filled in, what can't work is refused.
//
// It is pure: it is told of the machine and the daemon's defaults, and neither looks anything up nor makes
// anything. Invariant: a request that it lets pass is complete, so that inspect shows what the container gets.
package request

import (
	"berth/fault"
	"berth/oci"
)

// Machine is what validation must know of the host.
type Machine struct {
	CPUs     int
	Network  string // the default one: bridge, or none where there is no bridge
	AppArmor bool   // the kernel has it, and it is on
	Defaults Defaults
	Remap    bool        // containers are in a user namespace unless they say otherwise (--userns-remap)
	Limits   *oci.Limits // what it can hold; nil: every limit
}

func invalid(format string, args ...any) error { return fault.New(fault.Invalid, format, args...) }
