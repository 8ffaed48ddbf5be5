package build

import (
	"net/url"

	"github.com/spf13/pflag"
)

// allowed are the entitlements that the user gives the build.
type allowed struct{ names []string }

func (a *allowed) flags(fs *pflag.FlagSet) {
	fs.StringArrayVar(&a.names, "allow", nil, "Allow extra privileged entitlement (e.g., \"network.host\", \"security.insecure\")")
}

func (a *allowed) apply(q url.Values) { q["allow"] = a.names }
