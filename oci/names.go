package oci

import "berth/kernel"

// CapabilityNames names the bits of a set as /proc/PID/status has it, as CAP_CHOWN; unknown bits are left out (capabilities(7)).
func CapabilityNames(set uint64) []string { return kernel.CapSet(set).Names() }
