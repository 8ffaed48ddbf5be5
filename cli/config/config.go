// Package config is the user's configuration of the client, which docker reads and writes too.
//
// It is not the engine's. Invariant: what another program keeps in the file stays there.
package config

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/registry"
)

// File is what this client reads of its user's config.json, a file that it shares with docker.
type File struct {
	Path string                                            `json:"-"` // where it is, or would be
	Lock func(dir string) (unlock func() error, err error) `json:"-"` // keeps other commands from changing it meanwhile; nil: nothing does

	Auths             map[string]registry.AuthConfig `json:"auths"` // as they stand there: see package credential
	CredentialsStore  string                         `json:"credsStore"`
	CredentialHelpers map[string]string              `json:"credHelpers"`

	HTTPHeaders    map[string]string `json:"HttpHeaders"`
	PsFormat       string            `json:"psFormat"`
	ImagesFormat   string            `json:"imagesFormat"`
	NetworksFormat string            `json:"networksFormat"`
	VolumesFormat  string            `json:"volumesFormat"`
	StatsFormat    string            `json:"statsFormat"`
	DetachKeys     string            `json:"detachKeys"`
	PruneFilters   []string          `json:"pruneFilters"`
	Proxies        map[string]proxy  `json:"proxies"` // by the daemon's address, or "default"
}

// proxy is what containers are told of the way out, by environment variables.
type proxy struct {
	HTTP  string `json:"httpProxy"`
	HTTPS string `json:"httpsProxy"`
	No    string `json:"noProxy"`
	FTP   string `json:"ftpProxy"`
	All   string `json:"allProxy"`
}

// Load reads the file at path. One that isn't there is empty; with an error the file is empty too, and can be used.
func Load(path string) (*File, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(bytes.TrimSpace(text)) == 0 {
		return &File{Path: path}, nil
	}
	c := &File{Path: path}
	if err == nil {
		err = json.Unmarshal(text, c)
	}
	if err != nil {
		return &File{Path: path}, err
	}
	return c, nil
}

// KeysToDetach are the keys that leave a container, as the option says or else the configuration; "" is the engine's default.
func (c *File) KeysToDetach(option string) string {
	if option == "" {
		return c.DetachKeys
	}
	return option
}

// ProxyEnv are the environment variables that every container made by this user gets.
func (c *File) ProxyEnv(host string) []string {
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

// Headers go with every request: those of the configuration, and above them the custom ones (name=value, with commas between).
func (c *File) Headers(text string) (map[string]string, error) {
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
