package network

import (
	"errors"
	"fmt"
	"net/netip"

	"berth/cli/flag"
	"berth/cli/session"
	"berth/fault"

	"github.com/moby/moby/api/types/network"
	"github.com/spf13/cobra"
)

// Connect is the command "network connect".
func Connect(s *session.Session) *cobra.Command {
	var ip, ip6 string
	var linkLocal, aliases, links []string
	driver := map[string]string{}
	var priority int
	cmd := &cobra.Command{
		Use: "connect [OPTIONS] NETWORK CONTAINER", Args: session.Exactly(2), Example: "network connect front web\nnetwork connect --ip 10.20.0.9 --alias db back postgres",
		RunE: func(cmd *cobra.Command, args []string) error {
			e := &network.EndpointSettings{Aliases: aliases, Links: links, GwPriority: priority}
			if len(driver) > 0 {
				e.DriverOpts = driver
			}
			var a network.EndpointIPAMConfig
			for _, f := range []struct {
				name, text string
				to         *netip.Addr
			}{{"ip", ip, &a.IPv4Address}, {"ip6", ip6, &a.IPv6Address}} {
				if f.text == "" {
					continue
				}
				var err error
				if *f.to, err = netip.ParseAddr(f.text); err != nil {
					return fmt.Errorf("invalid value %q for --%s: not an IP address", f.text, f.name)
				}
			}
			for _, l := range linkLocal {
				own, err := netip.ParseAddr(l)
				if err != nil {
					return fmt.Errorf("invalid value %q for --link-local-ip: not an IP address", l)
				}
				a.LinkLocalIPs = append(a.LinkLocalIPs, own)
			}
			if a.IPv4Address.IsValid() || a.IPv6Address.IsValid() || len(a.LinkLocalIPs) > 0 {
				e.IPAMConfig = &a
			}
			api, err := s.API()
			if err != nil {
				return err
			}
			return api.Networks.Connect(cmd.Context(), args[0], args[1], e)
		},
	}
	fs := cmd.Flags()
	fs.StringSliceVar(&aliases, "alias", nil, "Add network-scoped alias for the container")
	fs.Var(flag.Pairs(&driver, nil), "driver-opt", "driver options for the network")
	fs.IntVar(&priority, "gw-priority", 0, "Highest gw-priority provides the default gateway. Accepts positive and negative values.")
	fs.StringVar(&ip, "ip", "", `IPv4 address (e.g., "172.30.100.104")`)
	fs.StringVar(&ip6, "ip6", "", `IPv6 address (e.g., "2001:db8::33")`)
	fs.Var(flag.List(&links), "link", "Add link to another container")
	fs.StringSliceVar(&linkLocal, "link-local-ip", nil, "Add a link-local address for the container")
	return cmd
}

// Disconnect is the command "network disconnect".
func Disconnect(s *session.Session) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "disconnect [OPTIONS] NETWORK CONTAINER", Args: session.Exactly(2), Example: "network disconnect front web",
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := s.API()
			if err != nil {
				return err
			}
			return api.Networks.Disconnect(cmd.Context(), args[0], args[1], force)
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force the container to disconnect from a network")
	return cmd
}

// Remove is the command "network rm".
func Remove(s *session.Session) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "rm [OPTIONS] NETWORK [NETWORK...]", Args: session.AtLeast(1), Example: "network rm front",
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := s.API()
			if err != nil {
				return err
			}
			return s.Each(args, func(ref string) error {
				err := api.Networks.Remove(cmd.Context(), ref)
				if force && errors.Is(err, fault.NotFound) {
					return nil
				}
				if err == nil {
					_, err = fmt.Fprintln(s.Out, ref)
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not error if the network does not exist")
	return cmd
}
