// Package session is what all commands share: the streams and environment of one run
// of the program, its global options, the connection to the engine, the user's configuration, and how errors become exit codes.
//
// It is no command, and knows none. Invariant: nothing is read or connected before a command asks for it,
// so that a command pays only for what it uses.
package session

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"berth/cli/config"
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
}

// Session is a program whose global options are known.
type Session struct {
	*Program
	Global Globals
	Conn   *client.Client
	file   *config.File // nil: not read yet
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
	s.file = &config.File{}
	dir := s.Global.Config
	if dir == "" {
		dir = s.Env("DOCKER_CONFIG")
	}
	if dir == "" {
		dir = filepath.Join(s.Env("HOME"), ".docker")
	}
	path := filepath.Join(dir, "config.json")
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s.file
	}
	if err == nil {
		var c config.File
		if err = json.Unmarshal(text, &c); err == nil {
			s.file = &c
		}
	}
	if err != nil {
		s.Warn([]string{fmt.Sprintf("the client's configuration %s is not used: %v", path, err)})
	}
	return s.file
}
