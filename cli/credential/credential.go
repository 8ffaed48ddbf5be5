// Package credential finds and keeps a user's credentials for registries: in the environment, with a helper program, or in config.json,
// where docker finds and keeps them too.
//
// It logs in nowhere. Invariant: a secret is handed to the one who asks and to the helper's standard input, never to a message or an argument.
package credential

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"

	"berth/cli/config"
	"berth/fault"

	"github.com/moby/moby/api/types/registry"
)

// DefaultServer is the key of the default registry's credentials, for historical reasons the address of its first index.
const DefaultServer = "https://index.docker.io/v1/"

// tokenUser stands in a helper's answer for a name where the secret is an identity token.
const tokenUser = "<token>"

// Store is where a user's credentials are.
type Store struct {
	File *config.File
	// Environment holds the credentials by server that the environment brought; they come first.
	Environment map[string]registry.AuthConfig
}

// Key gives the server under which the credentials of a registry are kept. The registry may be a name's host or a URL.
func Key(registry string) string {
	switch h := Host(registry); h {
	case "docker.io", "index.docker.io", "registry-1.docker.io":
		return DefaultServer
	default:
		return h
	}
}

// Host gives the host, with its port if there is one, of what may be a URL.
func Host(server string) string {
	if strings.Contains(server, "://") {
		if u, err := url.Parse(server); err == nil && u.Host != "" {
			return u.Host
		}
	}
	host, _, _ := strings.Cut(server, "/")
	return host
}

// Helper names the program that keeps a server's credentials, docker-credential- and the result; "" is none.
func (s Store) Helper(server string) string {
	if h, ok := s.File.CredentialHelpers[server]; ok {
		return h
	}
	if s.File.CredentialsStore == "" && len(s.File.CredentialHelpers) == 0 && len(s.File.Auths) == 0 {
		return usualHelper() // nothing has been decided yet
	}
	return s.File.CredentialsStore
}

// Get gives the credentials for a server, which is what Key gave; the zero value when there are none.
func (s Store) Get(ctx context.Context, server string) (registry.AuthConfig, error) {
	if a, ok := entry(s.Environment, server); ok {
		return decoded(a, server)
	}
	if helper := s.Helper(server); helper != "" {
		return helperGet(ctx, helper, server)
	}
	a, ok := entry(s.File.Auths, server)
	if !ok {
		return registry.AuthConfig{}, nil
	}
	return decoded(a, server)
}

// Encode is how credentials, one registry's or a map of several, travel in a header: JSON in base64url (RFC 4648, section 5).
func Encode(credentials any) (string, error) {
	text, err := json.Marshal(credentials)
	return base64.URLEncoding.EncodeToString(text), err
}

// Put keeps credentials for a.ServerAddress. plain tells that a password was written to config.json as it is.
func (s Store) Put(ctx context.Context, a registry.AuthConfig) (plain bool, err error) {
	if helper := s.Helper(a.ServerAddress); helper != "" {
		if err := helperStore(ctx, helper, a); err != nil {
			return false, err
		}
		_, err := s.File.SetAuth(a.ServerAddress, registry.AuthConfig{}) // that there are some
		if err == nil && s.File.CredentialsStore == "" && s.File.CredentialHelpers[a.ServerAddress] == "" {
			err = s.File.SetCredentialsStore(helper)
		}
		return false, err
	}
	changed, err := s.File.SetAuth(a.ServerAddress, a)
	return changed && a.Password != "", err
}

// Erase forgets the credentials of a registry, under all the names that programs have kept them under.
// It is an error, the one about the first of them, when none of the places could be cleared.
func (s Store) Erase(ctx context.Context, server string) error {
	names := []string{server}
	if server != DefaultServer {
		names = []string{server, "http://" + server, "https://" + server}
		for _, name := range slices.Sorted(maps.Keys(s.File.Auths)) {
			if Host(name) == server && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	var first error
	failed := 0
	for _, name := range names {
		var err error
		if helper := s.Helper(name); helper != "" {
			err = helperErase(ctx, helper, name)
		}
		if err == nil {
			err = s.File.DeleteAuth(name)
		}
		if err != nil {
			failed++
			first = cmp.Or(first, fmt.Errorf("%s: %w", name, err))
		}
	}
	if failed == len(names) {
		return first
	}
	return nil
}

// Servers lists the servers that there may be credentials for. It asks no helper.
func (s Store) Servers() []string {
	all := maps.Clone(s.File.CredentialHelpers)
	if all == nil {
		all = map[string]string{}
	}
	for _, known := range []map[string]registry.AuthConfig{s.File.Auths, s.Environment} {
		for server := range known {
			all[server] = ""
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// entry finds a server's credentials; old programs kept them under a URL.
func entry(auths map[string]registry.AuthConfig, server string) (registry.AuthConfig, bool) {
	if a, ok := auths[server]; ok {
		return a, true
	}
	for _, name := range slices.Sorted(maps.Keys(auths)) {
		if Host(name) == server {
			return auths[name], true
		}
	}
	return registry.AuthConfig{}, false
}

// decoded takes name and password out of their common encoding.
func decoded(a registry.AuthConfig, server string) (registry.AuthConfig, error) {
	if a.Auth != "" {
		text, err := base64.StdEncoding.DecodeString(a.Auth)
		name, password, ok := strings.Cut(string(text), ":")
		if err != nil || !ok || name == "" {
			return registry.AuthConfig{}, fault.New(fault.Invalid, "the credentials kept for %s can't be read: auth is not the base64 of name:password; log in again", server)
		}
		a.Username, a.Password, a.Auth = name, strings.Trim(password, "\x00"), ""
	}
	a.ServerAddress = server
	return a, nil
}

// ParseEnvironment reads what DOCKER_AUTH_CONFIG holds, a config.json with auths alone, for Store.Environment.
func ParseEnvironment(text string) (map[string]registry.AuthConfig, error) {
	var c struct {
		Auths map[string]struct {
			Auth string `json:"auth"`
		} `json:"auths"`
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	err := d.Decode(&c)
	if err == nil {
		if _, more := d.Token(); more != io.EOF {
			err = errors.New("something follows the JSON object")
		}
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "DOCKER_AUTH_CONFIG can't be used: %s; it has to be {\"auths\": {HOST: {\"auth\": base64 of NAME:PASSWORD}}}", safe(err))
	}
	all := map[string]registry.AuthConfig{}
	for server, a := range c.Auths {
		all[server] = registry.AuthConfig{Auth: a.Auth}
	}
	return all, nil
}

// safe is a decoder's complaint without the text it is about, which may be a secret.
func safe(err error) string {
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax):
		return fmt.Sprintf("it is no JSON at byte %d", syntax.Offset)
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return "the JSON ends early"
	}
	return err.Error()
}
