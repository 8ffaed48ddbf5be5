package build

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"berth/build/protocol"
	"berth/cli/session"
	"berth/fault"

	"github.com/spf13/pflag"
)

// secrets are what a build's programs may see and nothing keeps.
type secrets struct {
	secret []string
	ssh    []string
}

func (o *secrets) flags(fs *pflag.FlagSet) {
	fs.StringArrayVar(&o.secret, "secret", nil, "Secret to expose to the build (format: \"id=mysecret[,src=/local/secret]\")")
	fs.StringArrayVar(&o.ssh, "ssh", nil, "SSH agent socket or keys to expose to the build (format: \"default|<id>[=<socket>|<key>[,<key>]]\")")
}

// none refuses secrets where they can't be given.
func (o *secrets) none() error {
	if len(o.secret)+len(o.ssh) > 0 {
		return fault.New(fault.Unsupported, "--secret and --ssh: the classic builder has no such thing: unset DOCKER_BUILDKIT, or build with berth's own daemon")
	}
	return nil
}

// source is where a secret comes from.
type source struct{ file, env string }

// parseSecret reads what follows --secret.
func parseSecret(text string, env func(string) (string, bool)) (id string, from source, err error) {
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return "", from, fmt.Errorf("--secret %q: %w", text, err)
	}
	kind := ""
	for _, f := range fields {
		k, v, ok := strings.Cut(f, "=")
		if !ok {
			return "", from, fmt.Errorf("--secret: invalid field '%s' must be a key=value pair", f)
		}
		switch strings.ToLower(k) {
		case "type":
			if kind = v; v != "file" && v != "env" {
				return "", from, fmt.Errorf("--secret: unsupported secret type %q", v)
			}
		case "id":
			id = v
		case "source", "src":
			from.file = v
		case "env":
			from.env = v
		default:
			return "", from, fmt.Errorf("--secret: unexpected key '%s' in '%s'", k, f)
		}
	}
	if id == "" {
		return "", from, errors.New("--secret: secret missing ID: write id=NAME")
	}
	if kind == "env" && from.env == "" {
		from.env, from.file = from.file, ""
	}
	if from == (source{}) {
		if _, set := env(id); set && kind != "file" {
			from.env = id
		} else {
			from.file = id
		}
	}
	return id, from, nil
}

// maxSecret is how long a secret may be, in bytes.
const maxSecret = 500 << 10

// read gives a secret's content.
func (f source) read(env func(string) (string, bool)) ([]byte, error) {
	if f.env != "" {
		v, set := env(f.env)
		if !set {
			return nil, fault.New(fault.NotFound, "the environment variable %s is not set", f.env)
		}
		return []byte(v), nil
	}
	info, err := os.Stat(f.file)
	if err == nil && info.Size() > maxSecret {
		err = fmt.Errorf("%s has more than %d bytes", f.file, maxSecret)
	}
	if err != nil {
		return nil, err
	}
	return os.ReadFile(f.file)
}

// given are secrets and agents that a command line names.
type given struct {
	secrets map[string]source
	agents  map[string]string // sockets, by id
	ours    []*agent
}

// open looks at what there is, and says it in r. The caller closes it.
func (o *secrets) open(ctx context.Context, s *session.Session, r *protocol.Request) (*given, error) {
	g := &given{secrets: map[string]source{}, agents: map[string]string{}}
	for _, text := range o.secret {
		id, from, err := parseSecret(text, s.Getenv)
		if err != nil {
			return nil, err
		}
		if from.file != "" {
			if _, err := os.Stat(from.file); err != nil {
				return nil, fmt.Errorf("--secret id=%s: failed to stat %s: %w", id, from.file, errors.Unwrap(err))
			}
		}
		g.secrets[id] = from
		r.Secrets = append(r.Secrets, id)
	}
	for _, text := range o.ssh {
		id, path, _ := strings.Cut(text, "=")
		if path == "" {
			if path = s.Env("SSH_AUTH_SOCK"); path == "" {
				return nil, fmt.Errorf("--ssh %s: invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set", text)
			}
		}
		if info, err := os.Stat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
			g.agents[id] = path
		} else if err := g.keys(ctx, id, strings.Split(path, ",")); err != nil {
			return nil, errors.Join(fmt.Errorf("--ssh %s: %w", text, err), g.close())
		}
		r.Agents = append(r.Agents, id)
	}
	slices.Sort(r.Secrets)
	return g, nil
}

// dial connects to an agent.
func (g *given) dial(id string) (*net.UnixConn, error) {
	path, ok := g.agents[id]
	if !ok {
		return nil, fault.New(fault.NotFound, "there is no ssh agent %s", id)
	}
	return net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
}
