package network

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"berth/kernel/netlink"
	"berth/kernel/nft"
)

// zone is ours in firewalld(1): what comes from its links is accepted there. It stands in firewalld's permanent configuration, so that bridges stay in it over
// firewalld's reloads; what passes is still our own tables' business.
const zone = "berth"

// withFirewalld tells whether firewalld runs: its table is there as long as it does.
func (s seen) withFirewalld() bool {
	return slices.ContainsFunc(s.filters, func(f *nft.Filter) bool { return f.Table == "firewalld" })
}

// firewallCmd runs firewall-cmd(1), firewalld's own program, and returns what it says.
func firewallCmd(ctx context.Context, args ...string) (string, error) {
	const patient = time.Minute // it waits for firewalld, which may be loading
	ctx, cancel := context.WithTimeout(ctx, patient)
	defer cancel()
	out, err := exec.CommandContext(ctx, "firewall-cmd", args...).CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil {
		return text, fmt.Errorf("firewall-cmd %s: %w: %s", strings.Join(args, " "), err, text)
	}
	return text, nil
}

// makeZone sees to it that our zone is there and accepts, in firewalld's permanent configuration and in the one at work.
func makeZone(ctx context.Context) error {
	info, err := firewallCmd(ctx, "--permanent", "--info-zone="+zone)
	if err != nil {
		if _, err := firewallCmd(ctx, "--permanent", "--new-zone="+zone); err != nil && !strings.Contains(err.Error(), "NAME_CONFLICT") {
			return err
		}
	}
	if !strings.Contains(info, "target: ACCEPT\n") {
		if _, err := firewallCmd(ctx, "--permanent", "--zone="+zone, "--set-target=ACCEPT"); err != nil {
			return err
		}
	}
	active, err := firewallCmd(ctx, "--get-zones")
	if err == nil && !slices.Contains(strings.Fields(active), zone) {
		_, err = firewallCmd(ctx, "--reload") // a new zone can be had no other way
	}
	return err
}

// joinZone puts bridges into our zone, and makes that when it is missing. A bridge that the administrator has in another one stays there. Each
// call is a start of a large program, so that nothing is asked that an error tells.
func joinZone(ctx context.Context, bridges ...string) error {
	for _, b := range bridges {
		err := addToZone(ctx, b)
		if err != nil && strings.Contains(err.Error(), "INVALID_ZONE") {
			if err = makeZone(ctx); err == nil {
				err = addToZone(ctx, b)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func addToZone(ctx context.Context, link string) error {
	for _, where := range [][]string{{"--permanent"}, nil} {
		_, err := firewallCmd(ctx, append(where, "--zone="+zone, "--add-interface="+link)...)
		if err != nil && !strings.Contains(err.Error(), "ALREADY_ENABLED") && !strings.Contains(err.Error(), "ZONE_CONFLICT") {
			return err
		}
	}
	return nil
}

// leaveZone takes links out of our zone.
func leaveZone(ctx context.Context, links ...string) {
	for _, l := range links {
		for _, where := range [][]string{{"--permanent"}, nil} {
			// It fails where the link isn't in, and then there is nothing to do.
			_, _ = firewallCmd(ctx, append(where, "--zone="+zone, "--remove-interface="+l)...)
		}
	}
}

// sweepZone takes out what a killed removal left: names of links that are gone.
func sweepZone(ctx context.Context) error {
	text, err := firewallCmd(ctx, "--permanent", "--zone="+zone, "--list-interfaces")
	if err != nil {
		return err
	}
	links, err := netlink.Links()
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(text) {
		if !slices.ContainsFunc(links, func(l netlink.Link) bool { return l.Name == name }) {
			leaveZone(ctx, name)
		}
	}
	return nil
}
