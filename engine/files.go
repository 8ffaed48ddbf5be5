package engine

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"berth/container"
	"berth/engine/link"
	"berth/engine/request"
	"berth/engine/resolver"
	"berth/network"
)

// writeFiles writes the container's hosts, hostname and resolv.conf into dir. They are written in
// place, as older runs may have them mounted.
func (c *starter) writeFiles(dir string, r *container.Record, held *network.Attachment) error {
	return c.writeThose(dir, r, held, func(string, string) bool { return true })
}

// mendFiles writes those again whose writing was broken off, or didn't come about: whoever is served names must ask where. What the
// container itself wrote stays.
func (c *starter) mendFiles(dir string, r *container.Record, held *network.Attachment) error {
	return c.writeThose(dir, r, held, func(at, text string) bool {
		is, err := os.ReadFile(at)
		return err == nil && (len(is) < len(text) && strings.HasPrefix(text, string(is)) || resolver.Other(string(is), text))
	})
}

func (c *starter) writeThose(dir string, r *container.Record, held *network.Attachment, due func(at, text string) bool) error {
	hosts, err := c.hostsFile(r, held)
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

// hostsFile prints /etc/hosts; with the host's network it begins as the host's own.
func (c *starter) hostsFile(r *container.Record, held *network.Attachment) (string, error) {
	gateway := loopbackAddress()
	var own, extra []network.HostEntry
	if held != nil {
		if way := held.Way(false); way != nil && !way.Gateway.IsUnspecified() {
			gateway = way.Gateway
		} else if c.nets.Host.Gateway().IsValid() {
			gateway = c.nets.Host.Gateway()
		}
		names := []string{r.Config.Hostname}
		if d := r.Config.Domainname; d != "" {
			names = []string{r.Config.Hostname + "." + d, r.Config.Hostname}
		} else if short, _, ok := strings.Cut(r.Config.Hostname, "."); ok && short != "" {
			names = append(names, short)
		}
		for _, e := range held.Endpoints {
			for _, p := range []netip.Prefix{e.Address, e.Address6} {
				if p.IsValid() {
					own = append(own, network.HostEntry{Address: p.Addr(), Names: names})
				}
			}
		}
	} else if own := c.nets.Host.Gateway(); own.IsValid() {
		gateway = own
	}
	for _, s := range r.HostConfig.ExtraHosts {
		e, err := request.ExtraHost(s, gateway)
		if err != nil {
			return "", err
		}
		extra = append(extra, e)
	}
	targets, _ := link.Targets(r, c.find) // whether one is missing is a start's business
	for _, t := range targets {
		extra = append(extra, t.Host())
	}
	if r.HostConfig.NetworkMode.IsHost() {
		text, err := os.ReadFile("/etc/hosts")
		if err != nil && !os.IsNotExist(err) {
			return "", err
		}
		for _, e := range extra {
			text = append(text, (e.Address.String() + "\t" + e.Names[0] + "\n")...)
		}
		return string(text), nil
	}
	return network.Hosts(own, extra), nil
}
