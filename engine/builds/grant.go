package builds

import (
	"fmt"
	"slices"

	"berth/build/dockerfile"
	"berth/fault"
)

// Grants are what the daemon's owner lets builds have that ask for it.
type Grants struct {
	NoHostNetwork bool // not even with the entitlement network.host
	Insecure      bool // with the entitlement security.insecure, all rights on this machine
}

// entitled tells a Dockerfile's RUN what it may have in a build that was given entitlements.
func entitled(entitlements []string) func(string) error {
	return func(asked string) error {
		option := map[string]string{dockerfile.NetworkHost: "--network=host", dockerfile.SecurityInsecure: "--security=insecure"}[asked]
		if !slices.Contains(entitlements, asked) {
			return fault.New(fault.Denied, "%s is not allowed: RUN %s needs --allow %s", asked, option, asked)
		}
		return nil
	}
}

// Check refuses entitlements that no build gets here, or that there are not.
func (g Grants) Check(entitlements []string) error {
	for _, e := range entitlements {
		var err error
		switch {
		case e != dockerfile.NetworkHost && e != dockerfile.SecurityInsecure:
			return fault.New(fault.Invalid, "unknown entitlement %q: there are %s and %s", e, dockerfile.NetworkHost, dockerfile.SecurityInsecure)
		case e == dockerfile.NetworkHost && g.NoHostNetwork:
			err = fmt.Errorf("set builder.entitlements.network-host to true in daemon.json")
		case e == dockerfile.SecurityInsecure && !g.Insecure:
			err = fmt.Errorf("set builder.entitlements.security-insecure to true in daemon.json")
		}
		if err != nil {
			return fault.New(fault.Denied, "granting entitlement %s is not allowed by build daemon configuration: %w", e, err)
		}
	}
	return nil
}
