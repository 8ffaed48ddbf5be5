package oci

import specs "github.com/opencontainers/runtime-spec/specs-go"

// DefaultDevices are the rules that let a container make any node, and use the devices that every container has
// (runtime-spec, "Default Devices") and its terminals.
func DefaultDevices() []specs.LinuxDeviceCgroup {
	allow := func(kind string, major, minor int64, access string) specs.LinuxDeviceCgroup {
		d := specs.LinuxDeviceCgroup{Allow: true, Type: kind, Access: access}
		if major >= 0 {
			d.Major = &major
		}
		if minor >= 0 {
			d.Minor = &minor
		}
		return d
	}
	return []specs.LinuxDeviceCgroup{
		allow("c", -1, -1, "m"), allow("b", -1, -1, "m"),
		allow("c", 1, 3, "rwm"), allow("c", 1, 5, "rwm"), allow("c", 1, 7, "rwm"), allow("c", 1, 8, "rwm"), allow("c", 1, 9, "rwm"), // null zero full random urandom
		allow("c", 5, 0, "rwm"), allow("c", 5, 1, "rwm"), allow("c", 5, 2, "rwm"), allow("c", 136, -1, "rwm"), // tty console ptmx pts/*
	}
}

// allowDefaultDevices adds them to the rules of a bundle that forbids devices: what `runc spec` and others write
// forbids all, and expects the runtime to know what a container needs.
func allowDefaultDevices(l *specs.Linux) {
	if l.Resources == nil || len(l.Resources.Devices) == 0 {
		return
	}
	r := *l.Resources
	r.Devices = append(r.Devices[:len(r.Devices):len(r.Devices)], DefaultDevices()...)
	l.Resources = &r
}
