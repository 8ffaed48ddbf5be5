package main

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func networkFlags(text string, args ...string) (*networks, error) {
	n, d := &networks{}, &defaults{}
	f := pflag.NewFlagSet("berthd", pflag.ContinueOnError)
	n.declare(f)
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if err := d.apply(f, []byte(text)); err != nil {
		return nil, err
	}
	return n, n.finish()
}

func TestNetworkFlags(t *testing.T) {
	n, err := networkFlags(`{
		"bip": "10.1.0.1/24", "fixed-cidr": "10.1.0.128/25", "ipv6": true, "fixed-cidr-v6": "fd01::/64", "icc": false, "mtu": 1400,
		"default-address-pools": [{"base": "10.10.0.0/16", "size": 24}, {"base": "10.20.0.0/16", "size": 28}],
		"default-network-opts": {"bridge": {"com.docker.network.bridge.enable_icc": "false"}}}`, "--ip", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	c := n.config
	if c.NoForwarding {
		t.Error("forwarding is off without a word")
	}
	if c.Bridge != "berth0" || c.BIP.String() != "10.1.0.1/24" || !c.Default.IPv6 || len(c.Default.Pools) != 2 || c.Default.Pools[0].Range.String() != "10.1.0.128/25" ||
		c.Default.Pools[1].Subnet != netip.MustParsePrefix("fd01::/64") || c.Default.Options["com.docker.network.bridge.enable_icc"] != "false" {
		t.Errorf("%+v", c)
	}
	if len(c.Sources) != 2 || c.Sources[1].Size != 28 || c.Options["bridge"]["com.docker.network.driver.mtu"] != "1400" ||
		c.Options["bridge"]["com.docker.network.bridge.host_binding_ipv4"] != "127.0.0.1" {
		t.Errorf("%+v", c)
	}
}

func TestForwardingIsTheHostsOwn(t *testing.T) {
	for _, c := range []struct{ text, flag string }{{`{"ip-forward": false}`, "--icc"}, {"", "--ip-forward=false"}} {
		if n, err := networkFlags(c.text, c.flag); err != nil || !n.config.NoForwarding {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestNetworkFlagsThatAreWrong(t *testing.T) {
	for text, want := range map[string]string{
		`{"bip": "x"}`:                             "--bip x: write an address with its prefix length",
		`{"bip6": "fd00::1/64"}`:                   "need --ipv6",
		`{"bip6": "10.0.0.1/8", "ipv6": true}`:     "--bip6 10.0.0.1/8",
		`{"fixed-cidr": "fd00::/64"}`:              "--fixed-cidr fd00::/64",
		`{"ip": "::1"}`:                            "--ip ::1: write an IPv4 address",
		`{"default-address-pools": [{"size": 8}]}`: "--default-address-pool base=,size=8",
		`{"default-address-pools": [{"base": "10.0.0.0/24", "size": 8}]}`: "are larger than it",
		`{"default-network-opts": {"bridge": "x"}}`:                       "default-network-opts",
	} {
		if _, err := networkFlags(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	if _, err := networkFlags("", "--default-network-opt", "bridge"); err == nil || !strings.Contains(err.Error(), "DRIVER=OPTION=VALUE") {
		t.Error(err)
	}
}
