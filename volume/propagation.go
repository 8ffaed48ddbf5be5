package volume

import (
	"path/filepath"
	"strings"

	"berth/fault"

	"github.com/moby/moby/api/types/mount"
	"github.com/moby/sys/mountinfo"
)

// CheckPropagation refuses a bind that is to share mounts with a place that does not.
func CheckPropagation(source string, p mount.Propagation) error {
	shared := p == mount.PropagationShared || p == mount.PropagationRShared
	slave := p == mount.PropagationSlave || p == mount.PropagationRSlave
	if !shared && !slave {
		return nil
	}
	real, err := filepath.EvalSymlinks(source)
	if err != nil {
		return err
	}
	mounts, err := mountinfo.GetMounts(mountinfo.ParentsFilter(real))
	if err != nil {
		return err
	}
	var on mountinfo.Info
	for _, info := range mounts {
		if len(info.Mountpoint) >= len(on.Mountpoint) { // the later one of a place lies on top
			on = *info
		}
	}
	switch fields := on.Optional; {
	case strings.Contains(fields, "shared:"), slave && strings.Contains(fields, "master:"):
		return nil
	case shared:
		return fault.New(fault.Invalid, "path %s is mounted on %s but it is not a shared mount", source, on.Mountpoint)
	}
	return fault.New(fault.Invalid, "path %s is mounted on %s but it is not a shared or slave mount", source, on.Mountpoint)
}
