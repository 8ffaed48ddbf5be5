package cli

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// configFile is what this client reads of its user's config.json, a file that it shares with docker.
type configFile struct {
	HTTPHeaders  map[string]string `json:"HttpHeaders"`
	PsFormat     string            `json:"psFormat"`
	ImagesFormat string            `json:"imagesFormat"`
	StatsFormat  string            `json:"statsFormat"`
	DetachKeys   string            `json:"detachKeys"`
	PruneFilters []string          `json:"pruneFilters"`
	Proxies      map[string]proxy  `json:"proxies"` // by the daemon's address, or "default"
}

// proxy is what containers are told of the way out, by environment variables.
type proxy struct {
	HTTP  string `json:"httpProxy"`
	HTTPS string `json:"httpsProxy"`
	No    string `json:"noProxy"`
	FTP   string `json:"ftpProxy"`
	All   string `json:"allProxy"`
}

// config is the user's configuration, read at its first use. A file that can't be read is warned about and counts as empty.
func (s *session) config() *configFile {
	if s.file != nil {
		return s.file
	}
	s.file = &configFile{}
	dir := s.global.config
	if dir == "" {
		dir = s.env("DOCKER_CONFIG")
	}
	if dir == "" {
		dir = filepath.Join(s.env("HOME"), ".docker")
	}
	path := filepath.Join(dir, "config.json")
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s.file
	}
	if err == nil {
		var c configFile
		if err = json.Unmarshal(text, &c); err == nil {
			s.file = &c
		}
	}
	if err != nil {
		s.warn([]string{fmt.Sprintf("the client's configuration %s is not used: %v", path, err)})
	}
	return s.file
}

// detachKeys are the keys that leave a container, as the option says or else the configuration; "" is the engine's default.
func (c *configFile) detachKeys(option string) string {
	if option == "" {
		return c.DetachKeys
	}
	return option
}

// proxies are the environment variables that every container made by this user gets.
func (c *configFile) proxies(host string) []string {
	p, ok := c.Proxies[host]
	if !ok {
		p = c.Proxies["default"]
	}
	var env []string
	for name, value := range map[string]string{"HTTP_PROXY": p.HTTP, "HTTPS_PROXY": p.HTTPS, "NO_PROXY": p.No, "FTP_PROXY": p.FTP, "ALL_PROXY": p.All} {
		if value != "" {
			env = append(env, name+"="+value, strings.ToLower(name)+"="+value)
		}
	}
	slices.Sort(env)
	return env
}

// headers go with every request: those of the configuration, and above them the custom ones (name=value, with commas between).
func (c *configFile) headers(text string) (map[string]string, error) {
	all := map[string]string{}
	for name, value := range c.HTTPHeaders {
		if !strings.EqualFold(name, "User-Agent") { // the program's own name stays
			all[name] = value
		}
	}
	if text == "" {
		return all, nil
	}
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return nil, fmt.Errorf("DOCKER_CUSTOM_HEADERS: %w", err)
	}
	custom := map[string]string{}
	for _, f := range fields {
		name, value, ok := strings.Cut(f, "=")
		if name = strings.TrimSpace(name); !ok || name == "" {
			return nil, fmt.Errorf("DOCKER_CUSTOM_HEADERS: %q is not of the form name=value", f)
		}
		custom[name] = value
	}
	maps.Copy(all, custom)
	return all, nil
}
