package oci

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/fault"
)

// unsupported refuses what a spec may ask for and this runtime does not do: nothing is dropped silently.
func unsupported(s *specs.Spec) error {
	l, p := s.Linux, s.Process
	for what, asked := range map[string]bool{
		"linux.intelRdt":             l.IntelRdt != nil,
		"linux.memoryPolicy":         l.MemoryPolicy != nil,
		"linux.personality":          l.Personality != nil && l.Personality.Domain != specs.PerLinux,
		"linux.netDevices":           len(l.NetDevices) > 0,
		"linux.mountLabel":           l.MountLabel != "",
		"linux.timeOffsets":          len(l.TimeOffsets) > 0,
		"linux.seccomp.listenerPath": l.Seccomp != nil && l.Seccomp.ListenerPath != "",
		"process.scheduler":          p.Scheduler != nil,
		"process.ioPriority":         p.IOPriority != nil,
		"process.execCPUAffinity":    p.ExecCPUAffinity != nil,
		"process.selinuxLabel":       p.SelinuxLabel != "",
		"vm":                         s.VM != nil,
		"zos":                        s.ZOS != nil,
		"solaris":                    s.Solaris != nil,
		"windows":                    s.Windows != nil,
	} {
		if asked {
			return fault.New(fault.Unsupported, "the bundle asks for %s: not supported", what)
		}
	}
	for _, n := range l.Namespaces {
		if n.Type == specs.TimeNamespace {
			return fault.New(fault.Unsupported, "the bundle asks for a time namespace: not supported")
		}
	}
	return nil
}
