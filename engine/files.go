package engine

import (
	"os"
	"path/filepath"

	"berth/container"
	"berth/engine/resolver"
	"berth/network"
)

// writeFiles writes the container's hosts, hostname and resolv.conf into dir. They are written in
// place, as older runs may have them mounted.
func (c *starter) writeFiles(dir string, r *container.Record, held *network.Attachment) error {
	return c.writeThose(dir, r, held, func(string, string) bool { return true })
}

// mendFiles writes those again whose writing was broken off, or didn't come about. What the container itself wrote stays.
func (c *starter) mendFiles(dir string, r *container.Record, held *network.Attachment) error {
	return c.writeThose(dir, r, held, func(at, text string) bool {
		is, err := os.ReadFile(at)
		return err == nil && resolver.Stale(string(is), text)
	})
}

func (c *starter) writeThose(dir string, r *container.Record, held *network.Attachment, due func(at, text string) bool) error {
	hosts, err := c.names.Hosts(r, held)
	if err != nil {
		return err
	}
	conf, warning, err := c.names.Conf(r, held)
	if err != nil {
		return err
	}
	if warning != "" {
		c.log.Warn(warning, "container", r.Name)
	}
	for name, text := range map[string]string{"hosts": hosts, "hostname": network.Hostname(r.Config.Hostname), "resolv.conf": conf} {
		at := filepath.Join(dir, name)
		if !due(at, text) {
			continue
		}
		if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
			return err
		}
		if uid, gid := r.IDs.Root(); uid != 0 || gid != 0 {
			if err := os.Chown(at, int(uid), int(gid)); err != nil {
				return err
			}
		}
	}
	return nil
}
