package registry

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// trust is how a host proves who it is, and we to it.
type trust struct {
	insecure bool
	ca       []string    // files with certificates that are trusted beside the system's
	client   [][2]string // files with our own certificates, and their keys
	stamp    string      // changes when one of the files does
}

// namespace is what the certificate directories say of one registry.
type namespace struct {
	trust   trust
	mirrors []place
	server  *place // nil = the registry answers at its own address
}

// place is a host in a hosts.toml.
type place struct {
	url             *url.URL
	override        bool // the path is the whole base
	trust           trust
	resolves, pulls bool
}

// base is what stands before a repository's name.
func (p *place) base() string {
	path := strings.TrimRight(p.url.Path, "/")
	if p.override || strings.HasSuffix(path, "/v2") {
		return path
	}
	return path + "/v2"
}

// readNamespace reads what the first of dirs that knows a registry says of it, by its name or the host where it answers.
func readNamespace(dirs []string, names ...string) (*namespace, error) {
	for _, dir := range dirs {
		for _, name := range slices.Compact(append(names, "_default")) {
			n, err := readDir(filepath.Join(dir, name))
			if err == nil {
				return n, nil
			}
			if !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		}
	}
	return &namespace{}, nil
}

// readDir reads one registry's directory: NAME.crt is an authority, NAME.cert and NAME.key are ours, hosts.toml lists other places.
func readDir(dir string) (*namespace, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	n := &namespace{}
	names := map[string]bool{}
	for _, e := range entries {
		names[e.Name()] = true
	}
	for _, e := range entries {
		name := e.Name()
		path := filepath.Join(dir, name)
		switch stem := strings.TrimSuffix(name, filepath.Ext(name)); filepath.Ext(name) {
		case ".crt":
			n.trust.ca = append(n.trust.ca, path)
		case ".cert":
			if !names[stem+".key"] {
				return nil, fmt.Errorf("missing key %s.key for client certificate %s: CA certificates must use the extension .crt", stem, path)
			}
			n.trust.client = append(n.trust.client, [2]string{path, filepath.Join(dir, stem+".key")})
		case ".key":
			if !names[stem+".cert"] {
				return nil, fmt.Errorf("missing client certificate %s.cert for key %s", stem, path)
			}
		}
	}
	if names["hosts.toml"] {
		if err := n.readHosts(filepath.Join(dir, "hosts.toml")); err != nil {
			return nil, err
		}
	}
	n.trust.sign()
	return n, nil
}

// sign notes the state of the files.
func (t *trust) sign() {
	files := slices.Clone(t.ca)
	for _, c := range t.client {
		files = append(files, c[0], c[1])
	}
	var b strings.Builder
	if t.insecure {
		b.WriteString("insecure ")
	}
	for _, f := range files {
		if info, err := os.Stat(f); err == nil {
			fmt.Fprintf(&b, "%s %d %d ", f, info.ModTime().UnixNano(), info.Size())
		}
	}
	t.stamp = b.String()
}

// config is the trust in TLS's terms.
func (t trust) config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(t.ca) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		for _, f := range t.ca {
			pem, err := os.ReadFile(f)
			if err != nil {
				return nil, err
			}
			if !pool.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("%s holds no certificate in PEM form", f)
			}
		}
		c.RootCAs = pool
	}
	for _, f := range t.client {
		pair, err := tls.LoadX509KeyPair(f[0], f[1])
		if err != nil {
			return nil, fmt.Errorf("client certificate %s: %w", f[0], err)
		}
		c.Certificates = append(c.Certificates, pair)
	}
	return c, nil
}

// hostFile is the part of a hosts.toml that is understood. What else it says of a host is passed over.
type hostFile struct {
	Server string `toml:"server"`
	hostEntry
	Host map[string]hostEntry `toml:"host"`
}

type hostEntry struct {
	Capabilities []string `toml:"capabilities"`
	CA           any      `toml:"ca"`     // a file, or a list of files
	Client       any      `toml:"client"` // a file with both; a list of files; a list of pairs
	SkipVerify   bool     `toml:"skip_verify"`
	OverridePath bool     `toml:"override_path"`
}

// readHosts reads a hosts.toml, whose order is the order in which places are asked.
func (n *namespace) readHosts(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return n.parseHosts(path, string(text))
}

func (n *namespace) parseHosts(path, text string) error {
	var file hostFile
	meta, err := toml.Decode(text, &file)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	dir := filepath.Dir(path)
	if file.Server != "" {
		p, err := file.hostEntry.place(dir, file.Server)
		if err != nil {
			return fmt.Errorf("%s: server: %w", path, err)
		}
		if len(p.trust.ca)+len(p.trust.client) == 0 {
			p.trust.ca, p.trust.client = n.trust.ca, n.trust.client
			p.trust.sign()
		}
		n.server = p
	}
	seen := map[string]bool{}
	for _, key := range meta.Keys() {
		if len(key) < 2 || key[0] != "host" || seen[key[1]] {
			continue
		}
		seen[key[1]] = true
		p, err := file.Host[key[1]].place(dir, key[1])
		if err != nil {
			return fmt.Errorf("%s: host %s: %w", path, key[1], err)
		}
		n.mirrors = append(n.mirrors, *p)
	}
	return nil
}

func (e hostEntry) place(dir, address string) (*place, error) {
	if !strings.Contains(address, "://") {
		address = "https://" + address
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return nil, errors.New("no http or https address")
	}
	p := &place{url: u, override: e.OverridePath, trust: trust{insecure: e.SkipVerify}}
	p.resolves, p.pulls = len(e.Capabilities) == 0 || slices.Contains(e.Capabilities, "resolve"), len(e.Capabilities) == 0 || slices.Contains(e.Capabilities, "pull")
	if p.trust.ca, err = files(dir, e.CA); err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	if p.trust.client, err = pairs(dir, e.Client); err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	p.trust.sign()
	return p, nil
}

// files reads a file's name or a list of them, relative to dir.
func files(dir string, v any) ([]string, error) {
	switch v := v.(type) {
	case nil:
		return nil, nil
	case string:
		if !filepath.IsAbs(v) {
			v = filepath.Join(dir, v)
		}
		return []string{v}, nil
	case []any:
		var all []string
		for _, one := range v {
			if _, ok := one.(string); !ok {
				return nil, errors.New("a file's name is wanted")
			}
			f, err := files(dir, one)
			if err != nil {
				return nil, err
			}
			all = append(all, f...)
		}
		return all, nil
	}
	return nil, errors.New("a file's name or a list of them is wanted")
}

// pairs reads certificates and keys: one file with both, a list of such, or a list of [certificate, key].
func pairs(dir string, v any) ([][2]string, error) {
	list, ok := v.([]any)
	if !ok && v != nil {
		list = []any{v}
	}
	var all [][2]string
	for _, one := range list {
		f, err := files(dir, one)
		if err != nil {
			return nil, err
		}
		switch {
		case len(f) == 1 || len(f) == 2 && f[1] == filepath.Clean(dir):
			all = append(all, [2]string{f[0], f[0]})
		case len(f) == 2:
			all = append(all, [2]string{f[0], f[1]})
		default:
			return nil, errors.New("a certificate and its key are wanted")
		}
	}
	return all, nil
}
