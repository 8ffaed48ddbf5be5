package union

import (
	"fmt"
	"os"
	"strings"

	"berth/kernel"
)

// clone copies the mount that b shows. A source "/proc/PID/root/…" is in the mount namespace of that process, and copied there.
func (b Bind) clone() (m *os.File, err error) {
	pid, place, other := strings.Cut(strings.TrimPrefix(b.Source, "/proc/"), "/root/")
	if !other || !strings.HasPrefix(b.Source, "/proc/") || pid == "self" {
		f, err := kernel.OpenIn(nil, b.Source, kernel.OPath, 0, 0)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return b.cloneOf(f)
	}
	ns, err := os.Open("/proc/" + pid + "/ns/mnt")
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	err = kernel.InMounts(ns, func() error {
		f, err := kernel.OpenIn(nil, "/"+place, kernel.OPath, 0, kernel.NoSymlinks|kernel.NoMagicLinks)
		if err != nil {
			return err
		}
		defer f.Close()
		m, err = b.cloneOf(f)
		return err
	})
	return m, err
}

// cloneOf clones the source, or what lies beneath it.
func (b Bind) cloneOf(source *os.File) (*os.File, error) {
	if b.Subpath == "" {
		return kernel.CloneMount(source, "", b.Recursive)
	}
	f, err := kernel.OpenIn(source, b.Subpath, kernel.OPath, 0, kernel.Beneath|kernel.NoMagicLinks)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", os.ErrNotExist, err) // whatever lies there, it is nothing to show
	}
	defer f.Close()
	return kernel.CloneMount(f, "", b.Recursive)
}
