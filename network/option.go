package network

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"berth/fault"
	"berth/kernel/netlink"
)

// Keys of Spec.Options, in the field's words.
const (
	optionBridge     = "com.docker.network.bridge.name"
	optionMasquerade = "com.docker.network.bridge.enable_ip_masquerade"
	optionICC        = "com.docker.network.bridge.enable_icc"
	optionBinding4   = "com.docker.network.bridge.host_binding_ipv4"
	optionInhibit4   = "com.docker.network.bridge.inhibit_ipv4"
	optionGateway4   = "com.docker.network.bridge.gateway_mode_ipv4"
	optionGateway6   = "com.docker.network.bridge.gateway_mode_ipv6"
	optionDefault    = "com.docker.network.bridge.default_bridge"
	optionHost4      = "com.docker.network.host_ipv4"
	optionHost6      = "com.docker.network.host_ipv6"
	optionMTU        = "com.docker.network.driver.mtu"
	optionPrefix     = "com.docker.network.container_iface_prefix"
	optionParent     = "parent"
	optionMacvlan    = "macvlan_mode"
	optionIPvlan     = "ipvlan_mode"
	optionFlag       = "ipvlan_flag"
)

// How a network's addresses are known outside.
const (
	modeNAT         = "nat"             // not at all: packets leave with the host's address
	modeUnprotected = "nat-unprotected" // as nat, and whoever has a route reaches every port
	modeRouted      = "routed"          // there is a route to them: ports that are published are reached as they are
	modeIsolated    = "isolated"        // an internal network whose bridge has no address
)

// options reads one network's, and remembers the first mistake.
type options struct {
	values map[string]string
	err    error
}

func (o *options) refuse(key, why string) {
	if o.err == nil {
		o.err = fault.New(fault.Invalid, "network option %s=%s: %s", key, o.values[key], why)
	}
}

func (o *options) text(key, otherwise string) string {
	if v, ok := o.values[key]; ok && v != "" {
		return v
	}
	return otherwise
}

func (o *options) flag(key string, otherwise bool) bool {
	v, ok := o.values[key]
	if !ok {
		return otherwise
	}
	b, err := strconv.ParseBool(v)
	if err != nil {
		o.refuse(key, "true or false is wanted")
	}
	return b
}

func (o *options) number(key string, least, most int) int {
	v, ok := o.values[key]
	if !ok {
		return 0
	}
	n, err := strconv.Atoi(v)
	if err != nil || n != 0 && (n < least || n > most) {
		o.refuse(key, "a number from "+strconv.Itoa(least)+" to "+strconv.Itoa(most)+" is wanted")
	}
	return n
}

func (o *options) address(key string, v6 bool) netip.Addr {
	v, ok := o.values[key]
	if !ok || v == "" {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(v)
	if err != nil || a.Is6() != v6 {
		o.refuse(key, "an IP address of the right family is wanted")
	}
	return a
}

func (o *options) link(key, otherwise string) string {
	name := o.text(key, otherwise)
	if name != "" && !goodLink(name) {
		o.refuse(key, "not the name of a link: at most "+strconv.Itoa(netlink.NameLimit)+" bytes, no slash and no blank")
	}
	return name
}

func goodLink(name string) bool {
	return len(name) <= netlink.NameLimit && !strings.ContainsAny(name, "/ \"\\\n\t:") && name != "." && name != ".."
}

func (o *options) one(key string, of ...string) string {
	v := o.text(key, of[0])
	if !slices.Contains(of, v) {
		o.refuse(key, "one of "+strings.Join(of, ", ")+" is wanted")
	}
	return v
}
