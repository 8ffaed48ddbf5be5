// Package plugintest is a volume plugin for tests: its volumes are directories, and it tells who has them mounted.
//
// It is no example of a good plugin. Invariant: what it was asked is told in the order of asking.
package plugintest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Plugin keeps volumes as directories. The zero Plugin needs only Dir.
type Plugin struct {
	Dir   string // where the volumes are
	Scope string
	Old   bool // knows no Capabilities, as plugins of the first years

	mu      sync.Mutex
	options map[string]map[string]string
	mounted []string
	asked   []string
}

// Asked lists the methods that were called.
func (p *Plugin) Asked() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.asked)
}

// Mounted lists "NAME ID" of all mounts.
func (p *Plugin) Mounted() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.mounted)
}

// Options are those that a volume was made with.
func (p *Plugin) Options(name string) map[string]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.options[name]
}

// Serve answers on a socket until stop is called.
func (p *Plugin) Serve(socket string) (stop func() error, err error) {
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	s, done := &http.Server{Handler: p}, make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	return func() error {
		err := s.Close()
		if served := <-done; !errors.Is(served, http.ErrServerClosed) {
			err = errors.Join(err, served)
		}
		return err
	}, nil
}

type question struct {
	Name, ID string
	Opts     map[string]string
}

// ServeHTTP implements http.Handler.
func (p *Plugin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	method := strings.TrimPrefix(r.URL.Path, "/")
	p.asked = append(p.asked, method)
	var q question
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil || r.Method != http.MethodPost || r.Header.Get("Accept") != "application/vnd.docker.plugins.v1.2+json" {
		http.Error(w, fmt.Sprintf("%s %v %v", r.Method, r.Header, err), http.StatusBadRequest)
		return
	}
	if method == "VolumeDriver.Capabilities" && p.Old {
		http.NotFound(w, r)
		return
	}
	answer, err := p.answer(method, q)
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		answer = map[string]any{"Err": err.Error()}
	}
	json.NewEncoder(w).Encode(answer) // who asked may be gone
}

func (p *Plugin) answer(method string, q question) (map[string]any, error) {
	at := filepath.Join(p.Dir, q.Name)
	switch method {
	case "Plugin.Activate":
		return map[string]any{"Implements": []string{"VolumeDriver"}}, nil
	case "VolumeDriver.Capabilities":
		return map[string]any{"Capabilities": map[string]string{"Scope": p.Scope}}, nil
	case "VolumeDriver.List":
		entries, err := os.ReadDir(p.Dir)
		all := []map[string]string{}
		for _, e := range entries {
			all = append(all, map[string]string{"Name": e.Name()})
		}
		return map[string]any{"Volumes": all}, err
	case "VolumeDriver.Create":
		if q.Opts["bad"] != "" {
			return map[string]any{"Err": "bad option"}, nil
		}
		if p.options == nil {
			p.options = map[string]map[string]string{}
		}
		p.options[q.Name] = q.Opts
		return map[string]any{"Err": ""}, os.MkdirAll(at, 0o755)
	}
	if _, err := os.Stat(at); q.Name == "" || err != nil {
		return nil, errors.New("no volume " + q.Name)
	}
	switch method {
	case "VolumeDriver.Remove":
		return map[string]any{}, os.RemoveAll(at)
	case "VolumeDriver.Get":
		return map[string]any{"Volume": map[string]any{"Name": q.Name, "Mountpoint": at, "Status": map[string]any{"users": len(p.mounted)}}}, nil
	case "VolumeDriver.Unmount":
		p.mounted = slices.DeleteFunc(p.mounted, func(m string) bool { return m == q.Name+" "+q.ID })
	case "VolumeDriver.Mount":
		p.mounted = append(p.mounted, q.Name+" "+q.ID)
	}
	return map[string]any{"Mountpoint": at, "Err": ""}, nil
}
