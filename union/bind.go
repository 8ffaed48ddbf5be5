package union

import (
	"os"
	"strings"

	"berth/kernel"
)

// clone copies the mount that b shows. A source "/proc/PID/root/…" is in the mount namespace of that process, and copied there.
func (b Bind) clone() (m *os.File, err error) {
	pid, place, other := strings.Cut(strings.TrimPrefix(b.Source, "/proc/"), "/root/")
	if !other || !strings.HasPrefix(b.Source, "/proc/") || pid == "self" {
		return kernel.CloneMount(nil, b.Source, b.Recursive)
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
		m, err = kernel.CloneMount(f, "", b.Recursive)
		return err
	})
	return m, err
}
