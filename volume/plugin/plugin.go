// Package plugin talks to volume plugins: programs beside the engine that keep volumes, by the field's standard
// protocol, JSON over HTTP on a socket.
//
// It is not a store of volumes: what a plugin keeps, and who has it mounted, is remembered above. Invariant: every call
// ends within its time limit, whatever the plugin does or leaves undone.
//
//	/run/docker/plugins/NAME.sock, NAME/NAME.sock        a plugin's socket
//	/etc/docker/plugins/NAME.spec, NAME.json             where else it listens
//	/usr/lib/docker/plugins/NAME.spec, NAME.json
package plugin

import (
	"cmp"
	"context"
	"encoding/json"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"berth/fault"
)

// Set is the plugins of a machine. The zero Set looks where plugins register themselves. Its methods may be called concurrently.
type Set struct {
	Sockets  string        // directory of sockets; "": /run/docker/plugins
	Specs    []string      // directories of files that tell an address; nil: /etc/docker/plugins and /usr/lib/docker/plugins
	Patience time.Duration // for how long one that can't be reached is asked again; 0: 30 seconds

	mu     sync.Mutex
	active map[string]*Driver // by name
}

const (
	defaultSockets  = "/run/docker/plugins"
	defaultPatience = 30 * time.Second
	subsystem       = "VolumeDriver" // what a plugin for volumes says that it implements
	maxSpec         = 64 << 10       // bytes of a file that tells an address
)

var namePattern = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.:-]*$`) })

func (s *Set) sockets() string { return cmp.Or(s.Sockets, defaultSockets) }

func (s *Set) specs() []string {
	if s.Specs != nil {
		return s.Specs
	}
	return []string{"/etc/docker/plugins", "/usr/lib/docker/plugins"}
}

// address is where a plugin listens.
type address struct {
	Addr      string // a URL: unix:///path, tcp://host:port, http://… or https://…
	TLSConfig struct {
		InsecureSkipVerify        bool
		CAFile, CertFile, KeyFile string
	}
}

// Names lists the plugins that are registered, whether they work or not.
func (s *Set) Names() []string {
	var names []string
	for _, base := range append([]string{s.sockets()}, s.specs()...) {
		for _, pattern := range []string{"*", "*/*"} {
			found, _ := filepath.Glob(filepath.Join(base, pattern)) // only a bad pattern is an error
			for _, path := range found {
				name, kind := strings.TrimSuffix(filepath.Base(path), filepath.Ext(path)), filepath.Ext(path)
				if base == s.sockets() && kind != ".sock" || base != s.sockets() && kind != ".spec" && kind != ".json" {
					continue
				}
				if _, err := s.find(name); err == nil {
					names = append(names, name)
				}
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// find looks where a plugin listens. Sockets go before files, the first file wins.
func (s *Set) find(name string) (address, error) {
	missing := fault.New(fault.NotFound, "plugin %q not found", name)
	if !namePattern().MatchString(name) {
		return address{}, missing
	}
	for _, path := range places(s.sockets(), name, ".sock") {
		if info, err := os.Stat(path); err == nil && info.Mode()&fs.ModeSocket != 0 {
			return address{Addr: "unix://" + path}, nil
		}
	}
	for _, base := range s.specs() {
		for _, kind := range []string{".spec", ".json"} {
			for _, path := range places(base, name, kind) {
				if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() || info.Size() > maxSpec {
					continue
				}
				text, err := os.ReadFile(path)
				if err != nil {
					return address{}, err
				}
				a, err := parseSpec(text, kind == ".json")
				if err != nil {
					return address{}, fault.New(fault.Invalid, "read %s: %w", path, err)
				}
				return a, nil
			}
		}
	}
	return address{}, missing
}

func places(base, name, kind string) []string {
	return []string{filepath.Join(base, name+kind), filepath.Join(base, name, name+kind)}
}

// parseSpec reads a file that tells a plugin's address: a URL, or JSON with one.
func parseSpec(text []byte, isJSON bool) (a address, err error) {
	a.Addr = strings.TrimSpace(string(text))
	if isJSON {
		a.Addr = ""
		if err := json.Unmarshal(text, &a); err != nil {
			return a, err
		}
	}
	u, err := url.Parse(a.Addr)
	if err != nil {
		return a, err
	}
	switch u.Scheme {
	case "unix":
		if u.Path == "" || u.Host != "" {
			return a, fault.New(fault.Invalid, "address %q: a socket is written unix:///path", a.Addr)
		}
	case "tcp", "http", "https":
		if u.Host == "" {
			return a, fault.New(fault.Invalid, "address %q has no host", a.Addr)
		}
	default:
		return a, fault.New(fault.Invalid, "address %q: unknown protocol: write unix:///path or tcp://host:port", a.Addr)
	}
	return a, nil
}

// Driver finds the plugin of that name and greets it, once. fault.NotFound: none is registered, or it keeps no volumes.
func (s *Set) Driver(ctx context.Context, name string) (*Driver, error) {
	d, err := s.driver(ctx, name, s.patience())
	if err != nil {
		return nil, fault.Wrap(cmp.Or(fault.Of(err), fault.Unavailable), &lookupError{name, err})
	}
	return d, nil
}

type lookupError struct {
	name  string
	cause error
}

func (e *lookupError) Error() string {
	return "error looking up volume plugin " + e.name + ": " + e.cause.Error()
}
func (e *lookupError) Unwrap() error { return e.cause }

func (s *Set) patience() time.Duration { return cmp.Or(s.Patience, defaultPatience) }

func (s *Set) driver(ctx context.Context, name string, patience time.Duration) (*Driver, error) {
	at, err := s.find(name)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	d := s.active[name]
	s.mu.Unlock()
	if d != nil && d.at == at {
		return d, nil
	}
	if d, err = newDriver(name, at, s.patience()); err != nil {
		return nil, err
	}
	if err := d.greet(ctx, patience); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active == nil {
		s.active = map[string]*Driver{}
	}
	s.active[name] = d
	return d, nil
}

// lookLimit bounds how long a list waits for one plugin.
const lookLimit = 5 * time.Second

// List gives the volumes of all plugins by the plugin's name, asked side by side and only once. Plugins that don't answer
// are in failed; those that keep no volumes are in neither.
func (s *Set) List(ctx context.Context) (found map[string][]Volume, failed map[string]error) {
	found, failed = map[string][]Volume{}, map[string]error{}
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, name := range s.Names() {
		wg.Go(func() {
			var list []Volume
			d, err := s.driver(ctx, name, 0)
			if err == nil {
				list, err = d.list(ctx)
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				found[name] = list
			case fault.Of(err) != fault.NotFound:
				failed[name] = err
			}
		})
	}
	wg.Wait()
	return found, failed
}
