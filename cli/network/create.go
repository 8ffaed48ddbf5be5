// Package network has the commands about networks.
//
// It is not the tree of commands, which package cli puts them in, and wires nothing. Invariant: a command does by the engine's API what it does.
package network

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"berth/cli/flag"
	"berth/cli/session"

	"github.com/moby/moby/api/types/network"
	"github.com/spf13/cobra"
)

// createOptions are what a network is made of.
type createOptions struct {
	driver, scope, configFrom, ipamDriver     string
	options, ipamOptions, aux                 map[string]string
	labels                                    map[string]string
	subnets, ranges, gateways                 []string
	internal, attachable, ingress, configOnly bool
	ipv4, ipv6                                bool
}

// Create is the command "network create".
func Create(s *session.Session) *cobra.Command {
	o := createOptions{options: map[string]string{}, ipamOptions: map[string]string{}, aux: map[string]string{}}
	cmd := &cobra.Command{
		Use: "create [OPTIONS] NETWORK", Args: session.Exactly(1),
		Example: `network create front
network create --subnet 10.20.0.0/24 --gateway 10.20.0.1 back
network create --internal --ipv6 db
network create -d macvlan -o parent=eth0 --subnet 192.168.1.0/24 lan`,
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := o.request(cmd, args[0])
			if err != nil {
				return err
			}
			api, err := s.API()
			if err != nil {
				return err
			}
			made, err := api.Networks.Create(cmd.Context(), r)
			if err != nil {
				return err
			}
			if made.Warning != "" {
				s.Warn(strings.Split(made.Warning, "\n"))
			}
			_, err = fmt.Fprintln(s.Out, made.ID)
			return err
		},
	}
	fs := cmd.Flags()
	fs.BoolVar(&o.attachable, "attachable", false, "Enable manual container attachment")
	fs.Var(flag.Pairs(&o.aux, nil), "aux-address", "Auxiliary IPv4 or IPv6 addresses used by Network driver")
	fs.StringVar(&o.configFrom, "config-from", "", "The network from which to copy the configuration")
	fs.BoolVar(&o.configOnly, "config-only", false, "Create a configuration only network")
	fs.StringVarP(&o.driver, "driver", "d", "bridge", "Driver to manage the Network")
	fs.StringSliceVar(&o.gateways, "gateway", nil, "IPv4 or IPv6 Gateway for the master subnet")
	fs.BoolVar(&o.ingress, "ingress", false, "Create swarm routing-mesh network")
	fs.BoolVar(&o.internal, "internal", false, "Restrict external access to the network")
	fs.StringSliceVar(&o.ranges, "ip-range", nil, "Allocate container ip from a sub-range")
	fs.StringVar(&o.ipamDriver, "ipam-driver", "default", "IP Address Management Driver")
	fs.Var(flag.Pairs(&o.ipamOptions, nil), "ipam-opt", "Set IPAM driver specific options")
	fs.BoolVar(&o.ipv4, "ipv4", true, "Enable or disable IPv4 address assignment")
	fs.BoolVar(&o.ipv6, "ipv6", false, "Enable or disable IPv6 address assignment")
	fs.Var(flag.Pairs(&o.labels, nil), "label", "Set metadata on a network")
	fs.VarP(flag.Pairs(&o.options, nil), "opt", "o", "Set driver specific options")
	fs.StringVar(&o.scope, "scope", "", "Control the network's scope")
	fs.StringSliceVar(&o.subnets, "subnet", nil, "Subnet in CIDR format that represents a network segment")
	return cmd
}

// request is the API's form; only what was given is in it.
func (o *createOptions) request(cmd *cobra.Command, name string) (network.CreateRequest, error) {
	r := network.CreateRequest{
		Name: name, Driver: o.driver, Scope: o.scope, Internal: o.internal, Attachable: o.attachable, Ingress: o.ingress, ConfigOnly: o.configOnly,
		Options: o.options, Labels: o.labels, IPAM: &network.IPAM{Driver: o.ipamDriver, Options: o.ipamOptions},
	}
	if cmd.Flags().Changed("ipv4") {
		r.EnableIPv4 = &o.ipv4
	}
	if cmd.Flags().Changed("ipv6") {
		r.EnableIPv6 = &o.ipv6
	}
	if o.configFrom != "" {
		r.ConfigFrom = &network.ConfigReference{Network: o.configFrom}
	}
	pools, err := o.pools()
	r.IPAM.Config = pools
	return r, err
}

// pools joins the lists of subnets, ranges, gateways and other addresses: each goes to the subnet that has it.
func (o *createOptions) pools() ([]network.IPAMConfig, error) {
	if len(o.subnets) < len(o.ranges) || len(o.subnets) < len(o.gateways) {
		return nil, errors.New("every ip-range or gateway must have a corresponding subnet")
	}
	var pools []network.IPAMConfig
	for _, s := range o.subnets {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("invalid subnet %q: write it as 10.20.0.0/24", s)
		}
		if k := slices.IndexFunc(pools, func(c network.IPAMConfig) bool { return c.Subnet.Overlaps(p) }); k >= 0 {
			return nil, errors.New("multiple overlapping subnet configuration is not supported")
		}
		pools = append(pools, network.IPAMConfig{Subnet: p})
	}
	of := func(a netip.Addr) *network.IPAMConfig {
		for k := range pools {
			if pools[k].Subnet.Contains(a) {
				return &pools[k]
			}
		}
		return nil
	}
	for _, s := range o.ranges {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("invalid ip-range %q: write it as 10.20.0.128/25", s)
		}
		c := of(p.Addr())
		if c == nil {
			return nil, fmt.Errorf("no matching subnet for range %s", s)
		}
		if c.IPRange.IsValid() {
			return nil, fmt.Errorf("cannot configure multiple ranges (%s, %s) on the same subnet (%s)", s, c.IPRange, c.Subnet)
		}
		c.IPRange = p
	}
	for _, s := range o.gateways {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("invalid gateway %q: write it as 10.20.0.1", s)
		}
		c := of(a)
		if c == nil {
			return nil, fmt.Errorf("no matching subnet for gateway %s", s)
		}
		if c.Gateway.IsValid() {
			return nil, fmt.Errorf("cannot configure multiple gateways (%s, %s) for the same subnet (%s)", s, c.Gateway, c.Subnet)
		}
		c.Gateway = a
	}
	for name, s := range o.aux {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("invalid aux-address %q: write it as name=10.20.0.5", s)
		}
		c := of(a)
		if c == nil {
			return nil, fmt.Errorf("no matching subnet for aux-address %s", s)
		}
		if c.AuxAddress == nil {
			c.AuxAddress = map[string]netip.Addr{}
		}
		c.AuxAddress[name] = a
	}
	return pools, nil
}
