package network

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Upstream is a name server that is asked for a container, not by it.
type Upstream struct {
	Address netip.Addr
	Host    bool // only the host reaches it
}

func (u Upstream) String() string {
	if u.Host {
		return "host(" + u.Address.String() + ")"
	}
	return u.Address.String()
}

// Inner is what a container is given whose names are answered within its own network namespace.
type Inner struct {
	Text      string // of /etc/resolv.conf
	Upstreams []Upstream
	Dotted    bool   // the user wants names without a dot tried in the search domains first (ndots)
	Warning   string // "": all is well
}

// InnerResolv is Resolv for a container that asks at the address given: the servers that Resolv would name are the upstreams, and those that only the host
// reaches are among them. A server that the user named is always asked from where the container is; one that is the container's own
// address is left out, and where no other is named, nobody is asked.
func InnerResolv(hostConf, hostPath, address string, o ResolvOptions) (in Inner) {
	r := parseResolv(hostConf)
	var overrides []string
	servers, ndots := r.servers, "host"
	if len(o.Servers) > 0 {
		servers, overrides = o.Servers, append(overrides, "nameservers")
	}
	for _, s := range servers {
		a, err := netip.ParseAddr(s)
		if err != nil || a.IsUnspecified() || a.String() == address && len(o.Servers) > 0 {
			continue
		}
		a = a.Unmap()
		in.Upstreams = append(in.Upstreams, Upstream{a, len(o.Servers) == 0 && (a.IsLoopback() || a.Zone() != "" || a.Is6() && !o.IPv6)})
	}
	if len(o.Search) > 0 {
		r.search, overrides = slices.DeleteFunc(slices.Clone(o.Search), func(s string) bool { return s == "." }), append(overrides, "search")
	}
	if len(o.Options) > 0 {
		r.options, overrides, ndots = slices.Clone(o.Options), append(overrides, "options"), "override"
	}
	has := false
	r.options = slices.DeleteFunc(r.options, func(s string) bool {
		value, ok := strings.CutPrefix(s, "ndots:")
		n, err := strconv.Atoi(value)
		if !ok || err == nil && n >= 0 {
			has, in.Dotted = has || ok, in.Dotted || ok && n > 0
			return false
		}
		return true
	})
	if !has { // so that a name of the network is asked for as it is, before the search domains
		r.options, ndots = append(r.options, "ndots:0"), "internal"
	}
	note := ""
	if len(in.Upstreams) == 0 && len(o.Servers) == 0 {
		for _, s := range publicServers {
			in.Upstreams = append(in.Upstreams, Upstream{Address: netip.MustParseAddr(s)})
		}
		note = "# Used default nameservers.\n"
		in.Warning = fmt.Sprintf("%s names no name server: containers' questions go to %s; name another one (--dns)", hostPath, strings.Join(publicServers, " and "))
	}
	var b strings.Builder
	b.WriteString(resolvHead)
	fmt.Fprintf(&b, "nameserver %s\n", address)
	if len(r.search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(r.search, " "))
	}
	fmt.Fprintf(&b, "options %s\n", strings.Join(r.options, " "))
	fmt.Fprintf(&b, "\n# Based on host file: '%s' (internal resolver)\n%s# ExtServers: %v\n# Overrides: [%s]\n# Option ndots from: %s\n",
		hostPath, note, in.Upstreams, strings.Join(overrides, " "), ndots)
	in.Text = b.String()
	return in
}
