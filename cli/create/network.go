package create

import (
	"encoding/csv"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// networkRequest is one --network.
type networkRequest struct {
	name     string
	endpoint network.EndpointSettings
	long     bool // given in the key=value form
	detailed bool // says more than the name
}

// parseNetwork reads a network's name, or name=,alias=,ip=,ip6=,mac-address=,link-local-ip=,driver-opt=,gw-priority=.
func parseNetwork(v string) (networkRequest, error) {
	r := networkRequest{name: v}
	// "container:NAME" and plain names have no "=".
	if !strings.Contains(v, "=") {
		if v == "" {
			return r, errors.New("network name/id is not specified")
		}
		return r, nil
	}
	r.name, r.long = "", true
	fields, err := csv.NewReader(strings.NewReader(v)).Read()
	if err != nil {
		return r, err
	}
	for _, f := range fields {
		key, value, ok := strings.Cut(f, "=")
		if !ok {
			return r, fmt.Errorf("invalid field %s: expected key=value", f)
		}
		key, value = strings.ToLower(strings.TrimSpace(key)), strings.TrimSpace(value)
		if err := r.field(key, value, f); err != nil {
			return r, err
		}
	}
	if r.name == "" {
		return r, errors.New("network name/id is not specified")
	}
	return r, nil
}

func (r *networkRequest) field(key, value, field string) (err error) {
	e := &r.endpoint
	r.detailed = r.detailed || key != "name"
	switch key {
	case "name":
		r.name = value
	case "alias":
		e.Aliases = append(e.Aliases, value)
	case "driver-opt":
		k, v, ok := strings.Cut(value, "=")
		if !ok {
			return errors.New("invalid key value pair format in driver options")
		}
		if e.DriverOpts == nil {
			e.DriverOpts = map[string]string{}
		}
		e.DriverOpts[strings.TrimSpace(k)] = strings.TrimSpace(v)
	case "ip":
		ipam(e).IPv4Address, err = netip.ParseAddr(value)
	case "ip6":
		ipam(e).IPv6Address, err = netip.ParseAddr(value)
	case "mac-address":
		err = e.MacAddress.UnmarshalText([]byte(value))
	case "link-local-ip":
		var a netip.Addr
		if a, err = netip.ParseAddr(value); err == nil {
			ipam(e).LinkLocalIPs = append(ipam(e).LinkLocalIPs, a)
		}
	case "gw-priority":
		e.GwPriority, err = strconv.Atoi(value)
	default:
		return fmt.Errorf("invalid field key %s", key)
	}
	if err != nil {
		return fmt.Errorf("invalid value for %s in %q: %w", key, field, err)
	}
	return nil
}

func ipam(e *network.EndpointSettings) *network.EndpointIPAMConfig {
	if e.IPAMConfig == nil {
		e.IPAMConfig = &network.EndpointIPAMConfig{}
	}
	return e.IPAMConfig
}

// merge adds the options that concern the first network, such as --ip, to it.
func (r *networkRequest) merge(f networkFlags) error {
	e := &r.endpoint
	conflict := func(option, field string, given bool) error {
		if given {
			return fmt.Errorf("conflicting options: cannot specify both --%s and per-network %s", option, field)
		}
		return nil
	}
	if r.name == "none" || r.name == "host" || strings.HasPrefix(r.name, "container:") {
		if f.ip != "" || f.ip6 != "" || len(f.linkLocal) > 0 || len(f.aliases) > 0 {
			return fmt.Errorf("conflicting options: an address or alias can't be given on the network %q", r.name)
		}
	}
	if len(f.aliases) > 0 {
		if !container.NetworkMode(r.name).IsUserDefined() {
			return errors.New("network-scoped aliases are only supported for user-defined networks")
		}
		if err := conflict("network-alias", "alias", len(e.Aliases) > 0); err != nil {
			return err
		}
		e.Aliases = f.aliases
	}
	if len(f.links) > 0 && container.NetworkMode(r.name).IsUserDefined() {
		e.Links = f.links
	}
	for _, a := range []struct {
		flag, text string
		to         func() *netip.Addr
	}{
		{"ip", f.ip, func() *netip.Addr { return &ipam(e).IPv4Address }},
		{"ip6", f.ip6, func() *netip.Addr { return &ipam(e).IPv6Address }},
	} {
		if a.text == "" {
			continue
		}
		if err := conflict(a.flag, "IP address", a.to().IsValid()); err != nil {
			return err
		}
		addr, err := netip.ParseAddr(a.text)
		if err != nil {
			return fmt.Errorf("invalid --%s %q: not an IP address", a.flag, a.text)
		}
		*a.to() = addr
	}
	if len(f.linkLocal) > 0 {
		if err := conflict("link-local-ip", "link-local IP addresses", e.IPAMConfig != nil && len(e.IPAMConfig.LinkLocalIPs) > 0); err != nil {
			return err
		}
		for _, l := range f.linkLocal {
			addr, err := netip.ParseAddr(l)
			if err != nil {
				return fmt.Errorf("invalid --link-local-ip %q: not an IP address", l)
			}
			ipam(e).LinkLocalIPs = append(ipam(e).LinkLocalIPs, addr)
		}
	}
	if f.mac != "" {
		if err := conflict("mac-address", "MAC address", len(e.MacAddress) > 0); err != nil {
			return err
		}
		if err := e.MacAddress.UnmarshalText([]byte(f.mac)); err != nil {
			return fmt.Errorf("%s is not a valid mac address", f.mac)
		}
	}
	return nil
}

// published is what one -p asks for: a container's ports and where they are bound.
type published struct {
	first, last uint16 // of the container
	proto       network.IPProtocol
	ip          netip.Addr
	host        func(i int) string // the i-th port's binding
}

// parsePublish reads [ip:][host[-host]:]container[-container][/protocol].
func parsePublish(v string) (published, error) {
	var p published
	rest, proto, hasProto := strings.Cut(v, "/")
	ip, host, port := splitPublish(rest)
	if port == "" {
		return p, fmt.Errorf("no port specified: %s<empty>", v)
	}
	p.proto = network.TCP
	if hasProto {
		p.proto = network.IPProtocol(strings.ToLower(proto))
	}
	switch p.proto {
	case network.TCP, network.UDP, network.SCTP:
	default:
		return p, fmt.Errorf("invalid proto: %s", proto)
	}
	var err error
	if ip = strings.Trim(ip, "[]"); ip != "" {
		if p.ip, err = netip.ParseAddr(ip); err != nil {
			return p, fmt.Errorf("invalid IP address: %s", ip)
		}
	}
	if p.first, p.last, err = portRange(port); err != nil {
		return p, fmt.Errorf("invalid containerPort: %s", port)
	}
	p.host = func(int) string { return "" }
	if host == "" {
		return p, nil
	}
	first, last, err := portRange(host)
	if err != nil {
		return p, fmt.Errorf("invalid hostPort: %s", host)
	}
	switch {
	case p.last-p.first == last-first:
		p.host = func(i int) string { return strconv.Itoa(int(first) + i) }
	case p.first == p.last:
		// Any free port of the range.
		p.host = func(int) string { return fmt.Sprintf("%d-%d", first, last) }
	default:
		return p, fmt.Errorf("invalid ranges specified for container and host Ports: %s and %s", port, host)
	}
	return p, nil
}

// splitPublish cuts at the last two colons outside of brackets.
func splitPublish(v string) (ip, host, port string) {
	i := strings.LastIndexByte(v, ':')
	if i < 0 || strings.HasSuffix(v, "]") {
		return "", "", v
	}
	port, v = v[i+1:], v[:i]
	if i = strings.LastIndexByte(v, ':'); i < 0 || strings.HasSuffix(v, "]") {
		if strings.HasSuffix(v, "]") {
			return v, "", port
		}
		return "", v, port
	}
	return v[:i], v[i+1:], port
}

func portRange(s string) (first, last uint16, err error) {
	from, to, two := strings.Cut(s, "-")
	if !two {
		to = from
	}
	a, err := strconv.ParseUint(from, 10, 16)
	if err != nil {
		return 0, 0, err
	}
	b, err := strconv.ParseUint(to, 10, 16)
	if err != nil {
		return 0, 0, err
	}
	if b < a {
		return 0, 0, fmt.Errorf("invalid range specified for port: %s", s)
	}
	return uint16(a), uint16(b), nil
}

// ports makes the API's maps of all -p and --expose.
func ports(publish, expose []string) (network.PortSet, network.PortMap, error) {
	set, bindings := network.PortSet{}, network.PortMap{}
	for _, v := range publish {
		if strings.Contains(v, "=") {
			var err error
			if v, err = longPublish(v); err != nil {
				return nil, nil, err
			}
		}
		p, err := parsePublish(v)
		if err != nil {
			return nil, nil, err
		}
		for i := 0; i <= int(p.last-p.first); i++ {
			port, _ := network.PortFrom(p.first+uint16(i), p.proto)
			set[port] = struct{}{}
			bindings[port] = append(bindings[port], network.PortBinding{HostIP: p.ip, HostPort: p.host(i)})
		}
	}
	for _, v := range expose {
		if strings.Contains(v, ":") {
			return nil, nil, fmt.Errorf("invalid port format for --expose: %s", v)
		}
		p, err := parsePublish(v)
		if err != nil {
			return nil, nil, fmt.Errorf("invalid range format for --expose: %s, error: %w", v, err)
		}
		for i := 0; i <= int(p.last-p.first); i++ {
			port, _ := network.PortFrom(p.first+uint16(i), p.proto)
			set[port] = struct{}{}
		}
	}
	return set, bindings, nil
}

// longPublish turns target=80,published=8080,protocol=tcp into the short form.
func longPublish(v string) (string, error) {
	var target, host, proto string
	fields, err := csv.NewReader(strings.NewReader(v)).Read()
	if err != nil {
		return "", err
	}
	for _, f := range fields {
		key, value, ok := strings.Cut(f, "=")
		if !ok || value == "" {
			return "", fmt.Errorf("invalid field: %s", f)
		}
		switch key {
		case "target":
			target = value
		case "published":
			host = value
		case "protocol":
			proto = "/" + value
		case "mode":
			if value != "ingress" && value != "host" {
				return "", fmt.Errorf("invalid publish mode value (%s): must be either 'ingress' or 'host'", value)
			}
		default:
			return "", fmt.Errorf("invalid field key: %s", key)
		}
	}
	if target == "" {
		return "", fmt.Errorf("missing mandatory field '%q'", "target")
	}
	return host + ":" + target + proto, nil
}
