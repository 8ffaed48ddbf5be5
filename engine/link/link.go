// Package link says what a legacy link gives a container: a name for another one, and variables that describe it.
//
// It is pure, and it is not the networks' names, which need no link. Invariant: what it prints depends on the
// linked container alone, so that it can be printed anew when that has another address.
package link

import (
	"cmp"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"berth/fault"
	"berth/network"

	wire "github.com/moby/moby/api/types/network"
)

// Link is one of --link: another container, and how it is called.
type Link struct{ Container, Alias string }

// Parse reads "name", "name:alias", or "/name:/parent/alias" as inspect shows it. fault.Invalid in the field's words.
func Parse(s string) (Link, error) {
	if s == "" {
		return Link{}, fault.New(fault.Invalid, "empty string specified for links")
	}
	name, alias, ok := strings.Cut(s, ":")
	if strings.HasPrefix(name, "/") {
		name, alias = name[1:], path.Base(alias)
	}
	if !ok {
		alias = path.Base(name)
	}
	alias = strings.TrimPrefix(alias, "/") // as names are written in the API
	if name == "" || alias == "" || alias == "." || strings.ContainsAny(alias, ":/ \t\n\x00") {
		return Link{}, fault.New(fault.Invalid, "bad format for links: %s", s)
	}
	return Link{name, alias}, nil
}

// String is the link as Parse reads it.
func (l Link) String() string { return l.Container + ":" + l.Alias }

// Shown is the link as inspect has it; names are without slash.
func (l Link) Shown(name, parent string) string { return "/" + name + ":/" + parent + "/" + l.Alias }

// Target is a linked container that runs.
type Target struct {
	Alias, Name, Hostname string
	Parent                string // the name of the container that has the link
	Address               netip.Addr
	Ports                 []wire.Port // exposed
	Env                   []string
}

// Host is the target's line in /etc/hosts: alias, host name, name.
func (t Target) Host() network.HostEntry {
	names := []string{t.Alias, t.Hostname}
	if t.Alias != t.Name {
		names = append(names, t.Name)
	}
	return network.HostEntry{Address: t.Address, Names: names}
}

// Variables describe the target to programs of the time before names.
func (t Target) Variables() []string {
	prefix := strings.ToUpper(strings.ReplaceAll(t.Alias, "-", "_"))
	ports := slices.Clone(t.Ports)
	slices.SortFunc(ports, func(a, b wire.Port) int {
		return cmp.Or(cmp.Compare(a.Num(), b.Num()), cmp.Compare(a.Proto(), b.Proto()))
	})
	var env []string
	for k, p := range ports {
		proto, number := string(p.Proto()), strconv.Itoa(int(p.Num()))
		url := proto + "://" + t.Address.String() + ":" + number
		if k == 0 {
			env = append(env, prefix+"_PORT="+url)
		}
		one := prefix + "_PORT_" + number + "_" + strings.ToUpper(proto)
		env = append(env, one+"="+url, one+"_ADDR="+t.Address.String(), one+"_PORT="+number, one+"_PROTO="+proto)
	}
	env = append(env, prefix+"_NAME=/"+t.Parent+"/"+t.Alias)
	for _, e := range t.Env {
		if name, _, ok := strings.Cut(e, "="); ok && name != "HOME" && name != "PATH" {
			env = append(env, prefix+"_ENV_"+e)
		}
	}
	return env
}
