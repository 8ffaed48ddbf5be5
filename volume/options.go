package volume

import (
	"context"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"berth/fault"
	"berth/volume/hold"

	units "github.com/docker/go-units"
)

// needs are the options that make no sense without others.
var needs = map[string][]string{"type": {"device"}, "device": {"type"}, "o": {"device", "type"}, "size": nil}

// ParseOptions reads the options of a volume: type, device and o say what is mounted, nil when the volume is a directory of ours; size, in bytes, bounds
// it. fault.Invalid in the words that tools know.
func ParseOptions(options map[string]string) (m *hold.Mounting, size int64, err error) {
	for key := range options {
		if _, known := needs[key]; !known {
			return nil, 0, fault.New(fault.Invalid, "invalid option: %q", key)
		}
	}
	for _, key := range []string{"device", "o", "type"} {
		if _, given := options[key]; !given {
			continue
		}
		for _, other := range needs[key] {
			if _, given := options[other]; !given {
				return nil, 0, fault.New(fault.Invalid, "missing required option: %q", other)
			}
		}
	}
	if s, given := options["size"]; given {
		if size, err = units.RAMInBytes(s); err != nil || size < 0 {
			return nil, 0, fault.New(fault.Invalid, "invalid size: '%s': write it as 512m or 10g", s)
		}
	}
	if options["type"] == "" && options["device"] == "" {
		return nil, size, nil
	}
	m = &hold.Mounting{Type: options["type"], Device: options["device"]}
	for _, o := range strings.Split(options["o"], ",") {
		if o != "" {
			m.Options = append(m.Options, o)
		}
	}
	if bind, _ := m.IsBind(); !bind && (m.Type == "none" || m.Type == "") {
		return nil, 0, fault.New(fault.Invalid, "type=%s mounts nothing: add o=bind for a directory, or name the device's file system as the type", m.Type)
	}
	return m, size, nil
}

// Mounting is what v's options have mounted; nil when it is a directory of ours.
func (v *Volume) Mounting() *hold.Mounting {
	if v.Driver != "" {
		return nil
	}
	m, _, err := ParseOptions(v.Options)
	if err != nil {
		return nil
	}
	return m
}

// Away tells whether what is in the volume lies outside of the store.
func (v *Volume) Away() bool { return v.Driver != "" || v.Mounting() != nil }

// Resolver looks names of hosts up.
type Resolver func(ctx context.Context, host string) ([]netip.Addr, error)

// Lookup asks the machine's own resolver.
func Lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// Resolve gives m with the servers of network file systems by address, as the kernel knows no names: addr= of the options, or the host that the device
// names. Each mount asks anew.
func Resolve(ctx context.Context, m hold.Mounting, lookup Resolver) (hold.Mounting, error) {
	if !strings.HasPrefix(m.Type, "nfs") && m.Type != "cifs" && m.Type != "smb3" {
		return m, nil
	}
	m.Options = slices.Clone(m.Options)
	for k, o := range m.Options {
		if host, is := strings.CutPrefix(o, "addr="); is {
			a, err := address(ctx, host, lookup)
			m.Options[k] = "addr=" + a
			return m, err
		}
	}
	host, _, _ := strings.Cut(m.Device, ":/")
	if !strings.HasPrefix(m.Type, "nfs") {
		u, err := url.Parse(m.Device)
		if err != nil {
			return m, nil // the kernel will tell
		}
		host = u.Hostname()
	}
	if host == "" {
		return m, nil
	}
	a, err := address(ctx, host, lookup)
	// The name stays in the device: servers that share one address tell by it which share is meant.
	m.Options = append(m.Options, "addr="+a)
	return m, err
}

func address(ctx context.Context, host string, lookup Resolver) (string, error) {
	if a, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return a.String(), nil
	}
	found, err := lookup(ctx, host)
	if err != nil || len(found) == 0 {
		return "", fault.New(fault.Unavailable, "error resolving passed in network volume address: %s: %w", host, err)
	}
	for _, a := range found {
		if a.Unmap().Is4() {
			return a.Unmap().String(), nil
		}
	}
	return found[0].String(), nil
}

// Masked is the options without passwords, for errors and logs.
func Masked(options []string) string {
	shown := slices.Clone(options)
	for k, o := range shown {
		if key, _, _ := strings.Cut(o, "="); key == "password" || key == "pass" || key == "password2" {
			shown[k] = key + "=********"
		}
	}
	return strings.Join(shown, ",")
}
