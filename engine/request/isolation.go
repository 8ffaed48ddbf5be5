package request

import (
	"fmt"

	api "github.com/moby/moby/api/types/container"
)

// isolation clears a way to isolate that only Windows has, and says so.
func isolation(h *api.HostConfig) (warnings []string) {
	if h.Isolation.IsHyperV() || h.Isolation.IsProcess() {
		warnings = append(warnings, fmt.Sprintf("--isolation %s is for containers on Windows, and is ignored", h.Isolation))
		h.Isolation = ""
	}
	return warnings
}
