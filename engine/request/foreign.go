package request

import (
	"fmt"

	api "github.com/moby/moby/api/types/container"
)

// foreign clears what only containers on Windows have, and warns of each.
func foreign(h *api.HostConfig) (warnings []string) {
	for _, s := range []struct {
		flag  string
		given bool
	}{
		{"--cpu-count", h.CPUCount != 0}, {"--cpu-percent", h.CPUPercent != 0},
		{"--io-maxbandwidth", h.IOMaximumBandwidth != 0}, {"--io-maxiops", h.IOMaximumIOps != 0},
		{"--isolation " + string(h.Isolation), h.Isolation.IsHyperV() || h.Isolation.IsProcess()},
	} {
		if s.given {
			warnings = append(warnings, fmt.Sprintf("%s is for containers on Windows, and is ignored", s.flag))
		}
	}
	h.CPUCount, h.CPUPercent, h.IOMaximumBandwidth, h.IOMaximumIOps = 0, 0, 0, 0
	if h.Isolation.IsHyperV() || h.Isolation.IsProcess() {
		h.Isolation = ""
	}
	return warnings
}
