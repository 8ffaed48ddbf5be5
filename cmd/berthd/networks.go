package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"berth/engine/resolver"
	"berth/network"
	"berth/network/ipam"

	"github.com/spf13/pflag"
)

// networks are the flags of the default network, and of what others get.
type networks struct {
	bridge, bip, bip6    string
	fixed, fixed6        string
	ip                   string
	icc, masquerade, ip6 bool
	forward              bool
	mtu                  int
	pools, options       []string
	way, way6            string
	hosts, servers       []string
	config               network.Config
	names                resolver.Defaults
}

func (n *networks) declare(f *pflag.FlagSet) {
	f.StringVarP(&n.bridge, "bridge", "b", "berth0", "bridge of the default network; none disables it")
	f.StringVar(&n.bip, "bip", "", "address of the bridge with its prefix, such as 172.17.0.1/16")
	f.StringVar(&n.bip6, "bip6", "", "IPv6 address of the bridge with its prefix, such as fd00:17::1/64")
	f.StringVar(&n.fixed, "fixed-cidr", "", "part of the bridge's subnet that containers get addresses from")
	f.StringVar(&n.fixed6, "fixed-cidr-v6", "", "IPv6 subnet of the default network")
	f.BoolVar(&n.ip6, "ipv6", false, "give the default network IPv6 as well")
	f.BoolVar(&n.icc, "icc", true, "let containers on the default network reach each other")
	f.BoolVar(&n.masquerade, "ip-masq", true, "give what containers on the default network send outside the host's address")
	f.BoolVar(&n.forward, "ip-forward", true, "let packets through between containers and the host's links; false leaves that to the host's own settings (net.ipv4.ip_forward)")
	f.StringVar(&n.ip, "ip", "", "address of the host that ports are published on unless one is named, on every network; 127.0.0.1 keeps them to the host (default 0.0.0.0)")
	f.IntVar(&n.mtu, "mtu", 0, "MTU of networks in bytes (default: that of the way out)")
	f.StringVar(&n.way, "default-gateway", "", "address on the bridge's subnet that containers on the default network send to what is for elsewhere (default: the bridge's)")
	f.StringVar(&n.way6, "default-gateway-v6", "", "the same for IPv6")
	f.StringArrayVar(&n.hosts, "host-gateway-ip", nil, "where containers find the host: what host-gateway in --add-host and the name host.docker.internal stand for; once for each family (default: the gateway of the container's network)")
	f.StringArrayVar(&n.servers, "dns", nil, "name server of containers that name none; repeatable (default: the host's)")
	f.StringArrayVar(&n.names.Options, "dns-opt", nil, "option in resolv.conf of containers that name none; repeatable")
	f.StringArrayVar(&n.names.Search, "dns-search", nil, "search domain of containers that name none; repeatable, . for none")
	f.StringVar(&n.names.Conf, "resolv-conf", "", "file that is read in the place of the host's resolv.conf")
	f.StringArrayVar(&n.pools, "default-address-pool", nil, "where networks get their subnets from: base=10.10.0.0/16,size=24; repeatable")
	f.StringArrayVar(&n.options, "default-network-opt", nil, "option of the networks of a driver: bridge=com.docker.network.driver.mtu=1400; repeatable")
}

// finish reads what the flags say.
func (n *networks) finish() (err error) {
	c := &n.config
	c.Bridge, c.Pool = n.bridge, 4
	c.Default.IPv6, c.NoForwarding = n.ip6, !n.forward
	c.Default.Options = map[string]string{
		"com.docker.network.bridge.enable_icc":           strconv.FormatBool(n.icc),
		"com.docker.network.bridge.enable_ip_masquerade": strconv.FormatBool(n.masquerade),
	}
	c.Options = map[string]map[string]string{}
	if n.bip != "" {
		if c.BIP, err = netip.ParsePrefix(n.bip); err != nil {
			return fmt.Errorf("--bip %s: write an address with its prefix length, such as 172.17.0.1/16", n.bip)
		}
	}
	var pool4, pool6 ipam.Pool
	if n.fixed != "" {
		if pool4.Range, err = netip.ParsePrefix(n.fixed); err != nil || !pool4.Range.Addr().Is4() {
			return fmt.Errorf("--fixed-cidr %s: write a part of the bridge's subnet, such as 172.17.1.0/24", n.fixed)
		}
	}
	if n.fixed6 != "" {
		if pool6.Subnet, err = netip.ParsePrefix(n.fixed6); err != nil || !pool6.Subnet.Addr().Is6() {
			return fmt.Errorf("--fixed-cidr-v6 %s: write a subnet, such as fd00:17::/64", n.fixed6)
		}
	}
	if n.bip6 != "" {
		own, err := netip.ParsePrefix(n.bip6)
		if err != nil || !own.Addr().Is6() {
			return fmt.Errorf("--bip6 %s: write an address with its prefix length, such as fd00:17::1/64", n.bip6)
		}
		pool6 = ipam.Pool{Subnet: own.Masked(), Gateway: own.Addr(), Range: pool6.Subnet}
	}
	if err := n.finishWays(&pool4, &pool6); err != nil {
		return err
	}
	if pool4.Range.IsValid() || pool4.Aux != nil {
		c.Default.Pools = append(c.Default.Pools, pool4)
	}
	if pool6.Subnet.IsValid() {
		if !n.ip6 {
			return fmt.Errorf("--fixed-cidr-v6 and --bip6 need --ipv6")
		}
		c.Default.Pools = append(c.Default.Pools, pool6)
	}
	return errors.Join(n.finishNames(), n.finishOthers())
}

// finishWays reads which other machines lead containers of the default network elsewhere.
func (n *networks) finishWays(pool4, pool6 *ipam.Pool) error {
	for _, w := range []struct {
		flag, text, aux string
		pool            *ipam.Pool
		six             bool
	}{{"--default-gateway", n.way, network.OtherWay4, pool4, false}, {"--default-gateway-v6", n.way6, network.OtherWay6, pool6, true}} {
		if w.text == "" {
			continue
		}
		a, err := netip.ParseAddr(w.text)
		if err != nil || a.Is6() != w.six {
			return fmt.Errorf("%s %s: write an address of the default network", w.flag, w.text)
		}
		if w.six && !w.pool.Subnet.IsValid() {
			return fmt.Errorf("%s needs --ipv6, and --fixed-cidr-v6 or --bip6", w.flag)
		}
		w.pool.Aux = map[string]netip.Addr{w.aux: a}
	}
	return nil
}

// finishNames reads what the names of containers that say nothing are asked of.
func (n *networks) finishNames() error {
	for _, text := range nonEmpty(n.servers) {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return fmt.Errorf("--dns %s: write the address of a name server", text)
		}
		n.names.Servers = append(n.names.Servers, a)
	}
	n.names.Options, n.names.Search = nonEmpty(n.names.Options), nonEmpty(n.names.Search)
	for _, s := range n.names.Search {
		if strings.ContainsAny(s, " \t\n") {
			return fmt.Errorf("--dns-search %q: write one domain", s)
		}
	}
	has := [2]bool{}
	for _, text := range nonEmpty(n.hosts) {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return fmt.Errorf("--host-gateway-ip %s: write an address of this host", text)
		}
		k := 0
		if a.Is6() {
			k = 1
		}
		if has[k] {
			return fmt.Errorf("--host-gateway-ip %s: one address of each family is the most", text)
		}
		has[k] = true
		n.names.Host = append(n.names.Host, a)
	}
	return nil
}

// finishOthers reads what every network gets.
func (n *networks) finishOthers() error {
	c := &n.config
	for _, text := range n.options {
		driver, option, ok := strings.Cut(text, "=")
		key, value, ok2 := strings.Cut(option, "=")
		if !ok || !ok2 || driver == "" || key == "" {
			return fmt.Errorf("--default-network-opt %s: write DRIVER=OPTION=VALUE", text)
		}
		n.option(driver, key, value)
	}
	if n.mtu != 0 {
		n.option("bridge", "com.docker.network.driver.mtu", strconv.Itoa(n.mtu))
	}
	if n.ip != "" {
		a, err := netip.ParseAddr(n.ip)
		if err != nil || !a.Is4() {
			return fmt.Errorf("--ip %s: write an IPv4 address of this host, such as 127.0.0.1", n.ip)
		}
		n.option("bridge", "com.docker.network.bridge.host_binding_ipv4", n.ip)
	}
	for _, text := range n.pools {
		s, err := parsePool(text)
		if err != nil {
			return fmt.Errorf("--default-address-pool %s: %w", text, err)
		}
		c.Sources = append(c.Sources, s)
	}
	return nil
}

// option is one that networks of a driver get unless they say otherwise; the default one, too.
func (n *networks) option(driver, key, value string) {
	if n.config.Options[driver] == nil {
		n.config.Options[driver] = map[string]string{}
	}
	n.config.Options[driver][key] = value
}

// parsePool reads "base=10.10.0.0/16,size=24".
func parsePool(text string) (s ipam.Source, err error) {
	for _, f := range strings.Split(text, ",") {
		key, value, _ := strings.Cut(f, "=")
		switch key {
		case "base":
			if s.Base, err = netip.ParsePrefix(value); err != nil {
				return s, fmt.Errorf("write base=SUBNET,size=BITS, such as base=10.10.0.0/16,size=24")
			}
		case "size":
			if s.Size, err = strconv.Atoi(value); err != nil {
				return s, fmt.Errorf("the size is the number of bits of a subnet, such as 24")
			}
		default:
			return s, fmt.Errorf("write base=SUBNET,size=BITS, such as base=10.10.0.0/16,size=24")
		}
	}
	return s, s.Check()
}

// poolFlags and optionFlags turn the file's objects into the flags' form.
func poolFlags(raw json.RawMessage) (all []string, err error) {
	var list []struct {
		Base string `json:"base"`
		Size int    `json:"size"`
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, err
	}
	for _, p := range list {
		all = append(all, fmt.Sprintf("base=%s,size=%d", p.Base, p.Size))
	}
	return all, nil
}

func optionFlags(raw json.RawMessage) (all []string, err error) {
	var drivers map[string]map[string]string
	if err := json.Unmarshal(raw, &drivers); err != nil {
		return nil, err
	}
	for _, driver := range slices.Sorted(maps.Keys(drivers)) {
		for _, key := range slices.Sorted(maps.Keys(drivers[driver])) {
			all = append(all, driver+"="+key+"="+drivers[driver][key])
		}
	}
	return all, nil
}
