package explain

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"berth/fault"
	"berth/network"

	api "github.com/moby/moby/api/types/container"
)

// mountLine is a line of /proc/PID/mountinfo (proc_pid_mountinfo(5)).
type mountLine struct {
	device, root, target, options, propagation, kind, source, super string
}

// parseMounts reads a mount table. Lines that are not understood are left out.
func parseMounts(text string) []mountLine {
	var all []mountLine
	for _, line := range strings.Split(text, "\n") {
		f := strings.Split(line, " ")
		end := 6
		for end < len(f) && f[end] != "-" {
			end++
		}
		if len(f) < end+4 {
			continue
		}
		m := mountLine{device: f[2], root: unescape(f[3]), target: unescape(f[4]), options: f[5], kind: f[end+1], source: unescape(f[end+2]), super: unescape(f[end+3])}
		for _, o := range f[6:end] {
			name, _, _ := strings.Cut(o, ":")
			switch name {
			case "shared":
				m.propagation = strings.TrimPrefix(m.propagation+",shared", ",")
			case "master":
				m.propagation = strings.TrimPrefix(m.propagation+",slave", ",")
			case "unbindable":
				m.propagation = strings.TrimPrefix(m.propagation+",unbindable", ",")
			}
		}
		all = append(all, m)
	}
	return all
}

// unescape reads \040 and its like.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// beneath gives path relative to dir, when it lies there.
func beneath(dir, path string) (string, bool) {
	if dir == "/" {
		return path, true
	}
	rest, ok := strings.CutPrefix(path, dir)
	return rest, ok && (rest == "" || rest[0] == '/')
}

// mounts lists what the process sees, and its root among it.
func (p process) mounts() (all []Mount, root *Mount, err error) {
	inside, err := p.read("mountinfo")
	if err != nil {
		return nil, nil, err
	}
	outside, err := os.ReadFile(filepath.Join(p.proc, "self/mountinfo"))
	if err != nil {
		return nil, nil, err
	}
	host := parseMounts(string(outside))
	for _, m := range parseMounts(inside) {
		one := Mount{Target: m.target, Type: m.kind, Source: m.source, Host: onHost(host, m), Options: strings.Split(m.options, ","), Propagation: m.propagation}
		if m.kind == "overlay" {
			one.Host = ""
			one.Options = append(one.Options, splitPlain(m.super, ',')...)
		}
		all = append(all, one)
		if m.target == "/" {
			root = &one
		}
	}
	return all, root, nil
}

// onHost finds the file or directory of this machine that a mount shows: a mount of the same file system that
// has it beneath. File systems that a container has for itself are on no table but its own.
func onHost(host []mountLine, m mountLine) string {
	best, length := "", -1
	for _, h := range host {
		if h.device != m.device {
			continue
		}
		if rest, ok := beneath(h.root, m.root); ok && len(h.root) > length {
			best, length = filepath.Join(h.target, rest), len(h.root)
		}
	}
	return best
}

// splitPlain cuts at separators that are not escaped: overlay writes a comma of a path as "\,", and a colon as "\:".
func splitPlain(s string, separator byte) []string {
	var all []string
	start := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case separator:
			all = append(all, s[start:i])
			start = i + 1
		}
	}
	return append(all, s[start:])
}

// layersOf reads the directories of an overlay from its options; nil for other roots.
func layersOf(root *Mount) []Layer {
	if root == nil || root.Type != "overlay" {
		return nil
	}
	var upper, lower, work []Layer
	plain := strings.NewReplacer(`\,`, ",", `\:`, ":", `\\`, `\`)
	for _, o := range root.Options {
		key, value, _ := strings.Cut(o, "=")
		switch key {
		case "upperdir":
			upper = append(upper, Layer{plain.Replace(value), "written"})
		case "workdir":
			work = append(work, Layer{plain.Replace(value), "work"})
		case "lowerdir+":
			lower = append(lower, Layer{plain.Replace(value), "read-only"})
		case "lowerdir":
			for _, dir := range splitPlain(value, ':') {
				lower = append(lower, Layer{plain.Replace(dir), "read-only"})
			}
		}
	}
	return append(append(upper, lower...), work...)
}

// network looks into the process's network namespace, unless that is the host's.
func (p process) network(c *api.InspectResponse, all []Namespace) (n *Network, err error) {
	n = &Network{}
	if c.HostConfig != nil && c.HostConfig.NetworkMode.IsContainer() {
		n.Shared = "container " + c.HostConfig.NetworkMode.ConnectedContainer()
	}
	for _, ns := range all {
		if ns.Kind == "net" && !ns.Own {
			n.Shared, n.Look = "host", []string{"ip address", "ip route"}
			return n, nil
		}
	}
	enter := fmt.Sprintf("nsenter -t %d -n ", p.pid)
	n.Look = []string{enter + "ip address", enter + "ip route", "ip link", "nft list tables"}
	ns, err := os.Open(filepath.Join(p.dir(), "ns/net"))
	if err != nil {
		return nil, err
	}
	defer fault.Close(ns, &err)
	v, err := network.Look(ns)
	if err != nil {
		return nil, err
	}
	for _, l := range v.Links {
		one := Link{Name: l.Name, Kind: l.Kind, MAC: l.MAC, MTU: l.MTU, Up: l.Up, Peer: l.Peer, Bridge: l.Bridge, Addresses: []string{}}
		for _, a := range l.Addresses {
			one.Addresses = append(one.Addresses, a.String())
		}
		n.Links = append(n.Links, one)
	}
	for _, r := range v.Routes {
		one := Route{To: r.To.String(), Link: r.Link, Metric: r.Metric}
		if r.To.Bits() == 0 {
			one.To = "default"
		}
		if r.Gateway.IsValid() {
			one.Gateway = r.Gateway.String()
		}
		n.Routes = append(n.Routes, one)
	}
	for _, e := range v.Firewall {
		n.Firewall = append(n.Firewall, Rule{e.Table, e.Map, e.Text})
		if look := "nft list map ip " + e.Table + " " + e.Map; !slices.Contains(n.Look, look) {
			n.Look = append(n.Look, look)
		}
	}
	return n, nil
}
