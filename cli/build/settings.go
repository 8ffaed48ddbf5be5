package build

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"berth/cli/flag"
	"berth/cli/session"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"
)

// settings are what programs of a build find around them, beside the sizes that options has.
type settings struct {
	hosts, security, fresh []string
	ulimits                []*units.Ulimit
	builder                string
}

func (o *settings) flags(fs *pflag.FlagSet) {
	fs.Var(flag.Checked(&o.hosts, flag.ExtraHost), "add-host", "Add a custom host-to-IP mapping (format: \"host:ip\")")
	fs.Var(flag.List(&o.security), "security-opt", "Security options")
	fs.Var(flag.Ulimits(&o.ulimits), "ulimit", "Ulimit options")
	fs.Var(flag.List(&o.fresh), "no-cache-filter", "Do not cache specified stages")
	fs.Var(flag.Value{Kind: "list", Take: func(v string) error { return resource(fs, v) }}, "resource", "Resource limits for build containers (format: \"memory=2g\", \"cpu-quota=50000\")")
	fs.StringVar(&o.builder, "builder", "", "Override the configured builder instance (there is one: \"default\")")
	fs.Bool("disable-content-trust", true, "Skip image verification")
	flag.Old(fs, "disable-content-trust", "and is ignored.")
}

// resources are the limits that --resource can name: options of their own.
var resources = []string{"memory", "memory-swap", "cpu-shares", "cpu-period", "cpu-quota", "cpuset-cpus", "cpuset-mems"}

// resource sets the options that a list of limits names.
func resource(fs *pflag.FlagSet, v string) error {
	for one := range strings.SplitSeq(v, ",") {
		key, value, ok := strings.Cut(one, "=")
		if !ok || !slices.Contains(resources, key) {
			return fmt.Errorf("invalid resource %q: write KEY=VALUE, KEY one of %s", one, strings.Join(resources, ", "))
		}
		if err := fs.Set(key, value); err != nil {
			return err
		}
	}
	return nil
}

func (o *settings) apply(q url.Values) error {
	if o.builder != "" && o.builder != "default" {
		return fmt.Errorf("no builder %q found: the engine has one, which is called default", o.builder)
	}
	q["extrahosts"], q["securityopt"] = o.hosts, o.security
	for _, list := range o.fresh {
		q["nocachefilter"] = append(q["nocachefilter"], strings.Split(list, ",")...)
	}
	if len(o.ulimits) == 0 {
		return nil
	}
	text, err := json.Marshal(o.ulimits)
	q.Set("ulimits", string(text))
	return err
}

// arguments are a build's: those of the command line, where one without a value is the environment's, and below them the proxies of the user's
// configuration. nil is one that has no value: the Dockerfile's counts.
func arguments(s *session.Session, given, proxies []string) map[string]*string {
	args := map[string]*string{}
	for _, kv := range given {
		k, v, ok := strings.Cut(kv, "=")
		if !ok {
			v, ok = s.Getenv(k)
		}
		if args[k] = nil; ok {
			args[k] = &v
		}
	}
	for _, kv := range proxies {
		k, v, _ := strings.Cut(kv, "=")
		if _, said := args[k]; !said {
			args[k] = &v
		}
	}
	return args
}
