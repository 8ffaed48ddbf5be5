package bundle

import (
	"slices"
	"strings"

	"berth/fault"
	"berth/oci"

	api "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// DefaultPath is PATH where neither image nor user set one.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// processRule says what runs, as whom and where.
func processRule(f *Facts, b *oci.Bundle) error {
	c, p := f.config(), b.Spec.Process
	p.Args = append([]string{f.Record.Path}, f.Record.Args...)
	p.Env = Environment(append(slices.Clone(f.LinkEnv), c.Env...), c.Hostname, c.Tty)
	p.Cwd = c.WorkingDir
	if p.Cwd == "" {
		p.Cwd = "/"
	}
	p.Terminal = c.Tty
	if size := f.host().ConsoleSize; c.Tty && size[0] > 0 && size[1] > 0 {
		p.ConsoleSize = &specs.Box{Height: size[0], Width: size[1]}
	}
	if adj := f.host().OomScoreAdj; adj != 0 {
		p.OOMScoreAdj = &adj
	}
	p.User.Umask = f.host().Umask
	b.User = c.User
	b.GroupAdd = f.host().GroupAdd
	b.MakeCwd = true
	b.Init = f.Defaults.Init
	if f.host().Init != nil {
		b.Init = *f.host().Init
	}
	return nil
}

// Environment puts the user's variables over the defaults; a name without a value removes one.
// HOME is added where the container's users are known.
func Environment(user []string, hostname string, tty bool) []string {
	env := []string{"PATH=" + DefaultPath, "HOSTNAME=" + hostname}
	if tty {
		env = append(env, "TERM=xterm")
	}
	return OverlayEnv(env, user)
}

// OverlayEnv replaces or appends variables; a name without "=" removes.
func OverlayEnv(env, over []string) []string {
	at := make(map[string]int, len(env)+len(over))
	for i, e := range env {
		name, _, _ := strings.Cut(e, "=")
		at[name] = i
	}
	removed := false
	for _, e := range over {
		name, _, hasValue := strings.Cut(e, "=")
		i, known := at[name]
		switch {
		case !hasValue && known:
			env[i], removed = "", true
			delete(at, name)
		case !hasValue:
		case known:
			env[i] = e
		default:
			at[name] = len(env)
			env = append(env, e)
		}
	}
	if !removed {
		return env
	}
	kept := env[:0]
	for _, e := range env {
		if e != "" {
			kept = append(kept, e)
		}
	}
	return kept
}

// rlimitRule sets the limits of --ulimit.
func rlimitRule(f *Facts, b *oci.Bundle) error {
	b.Spec.Process.Rlimits = Rlimits(f.host())
	return nil
}

// Rlimits turns --ulimit into the runtime-spec's limits of a process.
func Rlimits(h *api.HostConfig) []specs.POSIXRlimit {
	var all []specs.POSIXRlimit
	for _, u := range h.Ulimits {
		all = append(all, specs.POSIXRlimit{
			Type: "RLIMIT_" + strings.ToUpper(u.Name), Soft: uint64(u.Soft), Hard: uint64(u.Hard),
		})
	}
	return all
}

// sysctlRule sets --sysctl. That every user may open low ports and ping, as in the field, is the network's doing.
func sysctlRule(f *Facts, b *oci.Bundle) error {
	mode := f.host().NetworkMode
	set := map[string]string{}
	for k, v := range f.host().Sysctls {
		if mode.IsHost() && strings.HasPrefix(k, "net.") {
			return fault.New(fault.Invalid, "sysctl %q not allowed in host network namespace", k)
		}
		set[k] = v
	}
	if len(set) > 0 {
		b.Spec.Linux.Sysctl = set
	}
	return nil
}
