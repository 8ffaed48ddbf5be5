// Package session is what all commands share: the streams and environment of one run
// of the program, its global options, the connection to the engine, the user's configuration, and how errors become exit codes.
//
// It is no command, and knows none. Invariant: nothing is read or connected before a command asks for it,
// so that a command pays only for what it uses.
package session

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"berth/cli/config"
	"berth/cli/credential"
	"berth/client"
	"berth/fault"
)

// Name is how the program calls itself in messages.
const Name = "berth"

// Program is one run of the command line.
type Program struct {
	Args    []string // without the program's own name
	In      io.Reader
	Out     io.Writer
	Err     io.Writer
	Getenv  func(string) (string, bool) // as os.LookupEnv
	Version string
	Commit  string
	// Launch tells how to start a daemon when the default socket has none; nil: never.
	Launch func() *client.Launch
	// Lock keeps other runs of the program from changing the files of a directory until unlock is called; nil: nothing does.
	Lock func(dir string) (unlock func() error, err error)
}

// Session is a program whose global options are known.
type Session struct {
	*Program
	Global Globals
	Conn   *client.Client
	file   *config.File      // nil: not read yet
	creds  *credential.Store // nil: not asked for yet
}

// Globals are the options before the verb.
type Globals struct {
	Hosts    []string
	Config   string
	Context  string
	LogLevel string
	Debug    bool
	Version  bool
	Help     bool
	TLS      bool
}

// Env gives an environment variable; "" when it is not set.
func (s *Session) Env(key string) string {
	v, _ := s.Getenv(key)
	return v
}

// API gives the client, made at its first use.
func (s *Session) API() (*client.Client, error) {
	if s.Conn != nil {
		return s.Conn, nil
	}
	o := client.Options{Host: s.Env("DOCKER_HOST"), Version: s.Env("DOCKER_API_VERSION"), Agent: "Berth-Client/" + s.Version + " (linux)"}
	if v := s.Env("DOCKER_TLS_VERIFY"); v != "" && strings.HasPrefix(o.Host, "tcp://") {
		return nil, fault.New(fault.Unsupported, "DOCKER_TLS_VERIFY is set, but this client has no TLS; use a unix socket")
	}
	if c := s.Global.Context; c != "" && c != "default" {
		return nil, fault.New(fault.NotFound, "context %q: context not found: only \"default\" exists; use -H to name a host", c)
	}
	if n := len(s.Global.Hosts); n > 1 {
		return nil, fault.New(fault.Invalid, "specify only one -H")
	} else if n == 1 {
		o.Host = s.Global.Hosts[0]
	}
	if o.Host == "" {
		o.Host = client.DefaultHost
	}
	if o.Host == client.DefaultHost && s.Launch != nil && s.Env("BERTH_AUTOSTART") != "0" {
		o.Launch = s.Launch()
	}
	var err error
	if o.Header, err = s.Config().Headers(s.Env("DOCKER_CUSTOM_HEADERS")); err != nil {
		return nil, err
	}
	s.Conn, err = client.New(o)
	return s.Conn, err
}

// Warn prints warnings.
func (s *Session) Warn(lines []string) {
	for _, l := range lines {
		fmt.Fprintln(s.Err, "WARNING: "+l)
	}
}

// Config is the user's configuration, read at its first use. A file that can't be read is warned about and counts as empty.
func (s *Session) Config() *config.File {
	if s.file != nil {
		return s.file
	}
	dir := s.Global.Config
	if dir == "" {
		dir = s.Env("DOCKER_CONFIG")
	}
	if dir == "" {
		dir = filepath.Join(s.Env("HOME"), ".docker")
	}
	path := filepath.Join(dir, "config.json")
	file, err := config.Load(path)
	if err != nil {
		s.Warn([]string{fmt.Sprintf("the client's configuration %s is not used: %v", path, err)})
	}
	file.Lock = s.Lock
	s.file = file
	return s.file
}

// Credentials is where the user's credentials for registries are.
func (s *Session) Credentials() credential.Store {
	if s.creds != nil {
		return *s.creds
	}
	s.creds = &credential.Store{File: s.Config()}
	if text := s.Env("DOCKER_AUTH_CONFIG"); text != "" {
		var err error
		if s.creds.Environment, err = credential.ParseEnvironment(text); err != nil {
			s.Warn([]string{err.Error()})
		}
	}
	return *s.creds
}

// Auth gives the X-Registry-Auth for a registry, named by the host of an image's name; "" where the user has no credentials for it.
// Credentials that can't be had are warned about: most work needs none.
func (s *Session) Auth(ctx context.Context, host string) string {
	a, err := s.Credentials().Get(ctx, credential.Key(host))
	if err == nil && a.Username == "" && a.IdentityToken == "" && a.RegistryToken == "" {
		return ""
	}
	var header string
	if err == nil {
		header, err = credential.Encode(a)
	}
	if err != nil {
		s.Warn([]string{fmt.Sprintf("%s is asked without credentials: %v", host, err)})
		return ""
	}
	return header
}
