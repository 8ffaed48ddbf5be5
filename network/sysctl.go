package network

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"berth/fault"
	"berth/kernel/namespace"
)

// Sysctl is a setting of one link of a container, net.FAMILY.GROUP.LINK.NAME, whose link is named when there is one (ip-sysctl.rst).
type Sysctl struct {
	Family string // "ipv4", "ipv6" or "mpls"
	Group  string // "conf" or "neigh", as a rule
	Name   string
	Value  string
}

// ParseSysctl reads "net.ipv4.conf.IFNAME.forwarding=1". The error's words are the field's.
func ParseSysctl(text string) (s Sysctl, err error) {
	key, value, is := strings.Cut(text, "=")
	p := strings.Split(key, ".")
	switch {
	case len(p) < 5 || p[0] != "net" || p[1] != "ipv4" && p[1] != "ipv6" && p[1] != "mpls" || p[3] != "IFNAME" && p[3] != "ifname":
		// Clients write all of it in small letters.
		return s, fault.New(fault.Invalid, "unrecognised network interface sysctl '%s'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'", text)
	case len(p) > 5 || p[2] == "" || p[4] == "" || strings.Contains(key, "/"):
		return s, fault.New(fault.Invalid, "expected sysctl '%s' to have format net.X.Y.IFNAME.Z", text)
	case !is:
		return s, fault.New(fault.Invalid, "expected sysctl '%s' to have format name=value", text)
	}
	return Sysctl{p[1], p[2], p[4], value}, nil
}

func (s Sysctl) path(link string) string {
	return "/proc/sys/net/" + s.Family + "/" + s.Group + "/" + link + "/" + s.Name
}

// setSysctls sets what was asked for of the endpoint's link. What is as it should be isn't written, as it may be read-only.
func (e *Endpoint) setSysctls(ns *os.File) error {
	if len(e.Sysctls) == 0 {
		return nil
	}
	return namespace.Do(ns, func() error {
		for _, s := range e.Sysctls {
			path := s.path(e.Interface)
			is, err := os.ReadFile(path)
			if err == nil && strings.TrimSpace(string(is)) == s.Value {
				continue
			}
			if err == nil {
				err = os.WriteFile(path, []byte(s.Value), 0)
			}
			if errors.Is(err, fs.ErrNotExist) {
				return fault.New(fault.Invalid, "network %s: %s is not a sysctl file: the container's link has no such setting", e.Network, path)
			}
			if err != nil {
				return fmt.Errorf("unable to set %s to %q: %w", path, s.Value, err)
			}
		}
		return nil
	})
}
