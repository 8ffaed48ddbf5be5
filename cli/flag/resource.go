package flag

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/docker/go-units"
)

// Ulimits collects limits of setrlimit(2), as Ulimit reads them. The last of several limits of one name counts.
func Ulimits(to *[]*units.Ulimit) Value {
	return Value{"ulimit", func(v string) error {
		u, err := Ulimit(v)
		if err == nil {
			*to = replaceUlimit(*to, u)
		}
		return err
	}}
}

// ulimitNames are the limits of setrlimit(2) that a container may be given.
const ulimitNames = " core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack "

// Ulimit reads name=soft[:hard]; -1 is no limit.
func Ulimit(v string) (*units.Ulimit, error) {
	name, limits, ok := strings.Cut(v, "=")
	if !ok {
		return nil, fmt.Errorf("invalid ulimit argument: %s", v)
	}
	if name == "" || strings.Contains(name, " ") || !strings.Contains(ulimitNames, " "+name+" ") {
		return nil, fmt.Errorf("invalid ulimit type: %s", name)
	}
	soft, hard, two := strings.Cut(limits, ":")
	if strings.Contains(hard, ":") {
		return nil, fmt.Errorf("too many limit value arguments - %s, can only have up to two, `soft[:hard]`", limits)
	}
	if !two {
		hard = soft
	}
	u := &units.Ulimit{Name: name}
	var err error
	if u.Soft, err = strconv.ParseInt(soft, 10, 64); err != nil {
		return nil, err
	}
	if u.Hard, err = strconv.ParseInt(hard, 10, 64); err != nil {
		return nil, err
	}
	if u.Hard != -1 {
		if u.Soft == -1 {
			return nil, fmt.Errorf("ulimit soft limit must be less than or equal to hard limit: soft: -1 (unlimited), hard: %d", u.Hard)
		}
		if u.Soft > u.Hard {
			return nil, fmt.Errorf("ulimit soft limit must be less than or equal to hard limit: %d > %d", u.Soft, u.Hard)
		}
	}
	return u, nil
}

// replaceUlimit adds u.
func replaceUlimit(all []*units.Ulimit, u *units.Ulimit) []*units.Ulimit {
	for i := range all {
		if all[i].Name == u.Name {
			all[i] = u
			return all
		}
	}
	return append(all, u)
}

// ExtraHost reads host:ip or host=ip, where the address may be in brackets, or "host-gateway".
func ExtraHost(v string) (string, error) {
	host, ip, ok := strings.Cut(v, "=")
	if !ok {
		host, ip, ok = strings.Cut(v, ":")
	}
	if !ok || host == "" {
		return "", fmt.Errorf("bad format for add-host: %q", v)
	}
	if ip == "host-gateway" {
		return host + ":" + ip, nil
	}
	if len(ip) > 2 && ip[0] == '[' && ip[len(ip)-1] == ']' {
		ip = ip[1 : len(ip)-1]
	}
	if _, err := netip.ParseAddr(ip); err != nil {
		return "", fmt.Errorf("invalid IP address in add-host: %q", ip)
	}
	return host + ":" + ip, nil
}
