package oci

import (
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/fault"
	"berth/kernel/namespace"
)

// checkSysctls refuses settings that are not of a namespace of the container's own: they would be the whole machine's
// (namespaces(7), and the kernel's Documentation/admin-guide/sysctl). The words are the field's.
func checkSysctls(s *specs.Spec, ns namespaces) error {
	own := func(kind int) bool { return ns.has(kind) }
	for key := range s.Linux.Sysctl {
		name := key
		if strings.Contains(key, "/") {
			name = strings.ReplaceAll(key, "/", ".")
		}
		if strings.Contains(key, "..") || strings.HasPrefix(key, "/") {
			return fault.New(fault.Invalid, "sysctl %q is no name of a setting", key)
		}
		switch {
		case name == "kernel.hostname":
			return fault.New(fault.Invalid, "sysctl %q is not allowed as it conflicts with the OCI %q field", key, "hostname")
		case slices.Contains(ipcSettings(), name), strings.HasPrefix(name, "fs.mqueue."):
			if !own(namespace.IPC) {
				return fault.New(fault.Invalid, "sysctl %q is not allowed in the hosts ipc namespace", key)
			}
		case strings.HasPrefix(name, "net."):
			if !own(namespace.Net) {
				return fault.New(fault.Invalid, "sysctl %q not allowed in host network namespace", key)
			}
		case name == "kernel.domainname":
			if !own(namespace.UTS) {
				return fault.New(fault.Invalid, "sysctl %q is not allowed in the hosts UTS namespace", key)
			}
		case strings.HasPrefix(name, "user."):
			if !own(namespace.User) {
				return fault.New(fault.Invalid, "sysctl %q is not in a separate kernel namespace", key)
			}
		default:
			return fault.New(fault.Invalid, "sysctl %q is not in a separate kernel namespace", key)
		}
	}
	return nil
}

func ipcSettings() []string {
	return []string{
		"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced",
	}
}
