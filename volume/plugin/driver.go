package plugin

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"berth/fault"
)

// Driver is one plugin that keeps volumes. Errors that the plugin answers with are in its own words.
type Driver struct {
	name     string
	scope    string
	at       address
	base     string // of the requests' URLs
	http     *http.Client
	patience time.Duration
}

// Volume is one of a plugin's.
type Volume struct {
	Name       string
	Mountpoint string         // on this machine; "" while it is not mounted
	CreatedAt  string         // RFC 3339; plugins may leave it out
	Status     map[string]any // whatever the plugin tells of it
}

const (
	mediaType   = "application/vnd.docker.plugins.v1.2+json"
	callLimit   = 2 * time.Minute // of one call that does something
	askLimit    = time.Minute     // of one that only asks
	maxAnswer   = 16 << 20        // bytes
	firstPause  = 100 * time.Millisecond
	greeting    = "Plugin.Activate"
	scopeLocal  = "local"
	scopeGlobal = "global"
)

func newDriver(name string, at address, patience time.Duration) (*Driver, error) {
	u, err := url.Parse(at.Addr)
	if err != nil {
		return nil, err
	}
	// A connection for each call: nothing is left open on a plugin that goes, and none is tried that has gone.
	t := &http.Transport{DisableKeepAlives: true}
	d := &Driver{name: name, scope: scopeLocal, at: at, http: &http.Client{Transport: t}, patience: patience}
	switch u.Scheme {
	case "unix":
		d.base = "http://plugin/"
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", u.Path)
		}
	case "https":
		d.base = at.Addr
		t.TLSClientConfig, err = at.tls()
	default:
		d.base = "http://" + u.Host + u.Path
	}
	d.base = strings.TrimSuffix(d.base, "/") + "/"
	return d, err
}

// tls reads what the connection is secured by. As the protocol has it, a server is not checked when no CA is told.
func (a address) tls() (*tls.Config, error) {
	c := &tls.Config{InsecureSkipVerify: a.TLSConfig.InsecureSkipVerify || a.TLSConfig.CAFile == ""}
	if file := a.TLSConfig.CAFile; file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(text) {
			return nil, fault.New(fault.Invalid, "%s has no certificate", file)
		}
	}
	if a.TLSConfig.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(a.TLSConfig.CertFile, a.TLSConfig.KeyFile)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// greet asks what the plugin is, and how far its volumes reach.
func (d *Driver) greet(ctx context.Context, patience time.Duration) error {
	var hello struct{ Implements []string }
	if err := d.call(ctx, askLimit, patience, greeting, nil, &hello); err != nil {
		return err
	}
	if !slices.Contains(hello.Implements, subsystem) {
		return fault.New(fault.NotFound, "Plugin does not implement the requested driver")
	}
	var c struct{ Capabilities struct{ Scope string } }
	err := d.call(ctx, askLimit, 0, "VolumeDriver.Capabilities", nil, &c)
	if refused := (*refusal)(nil); err != nil && !errors.As(err, &refused) { // older plugins don't know the question
		return err
	}
	if strings.EqualFold(c.Capabilities.Scope, scopeGlobal) {
		d.scope = scopeGlobal
	}
	return nil
}

// Name is the plugin's.
func (d *Driver) Name() string { return d.name }

// Scope is "local", or "global" when the same volumes are on other machines too.
func (d *Driver) Scope() string { return d.scope }

type request struct {
	Name string            `json:",omitempty"`
	ID   string            `json:",omitempty"`
	Opts map[string]string `json:",omitempty"`
}

// Create makes a volume, or is content with the one that the plugin has under that name.
func (d *Driver) Create(ctx context.Context, name string, options map[string]string) error {
	return d.call(ctx, callLimit, d.patience, "VolumeDriver.Create", request{Name: name, Opts: options}, nil)
}

// Remove deletes a volume with all in it.
func (d *Driver) Remove(ctx context.Context, name string) error {
	return d.call(ctx, callLimit, d.patience, "VolumeDriver.Remove", request{Name: name}, nil)
}

// Mount makes a volume usable for the user id, who ends it by Unmount. The answer is a directory of this machine.
func (d *Driver) Mount(ctx context.Context, name, id string) (path string, err error) {
	var answer struct{ Mountpoint string }
	if err := d.call(ctx, callLimit, d.patience, "VolumeDriver.Mount", request{Name: name, ID: id}, &answer); err != nil {
		return "", err
	}
	if !strings.HasPrefix(answer.Mountpoint, "/") {
		return "", fault.New(fault.Unavailable, "volume plugin %s mounted %s at %q, which is no absolute path", d.name, name, answer.Mountpoint)
	}
	return answer.Mountpoint, nil
}

// Unmount ends what Mount began for id.
func (d *Driver) Unmount(ctx context.Context, name, id string) error {
	return d.call(ctx, callLimit, d.patience, "VolumeDriver.Unmount", request{Name: name, ID: id}, nil)
}

// Path is where a volume is mounted; "" while it is not.
func (d *Driver) Path(ctx context.Context, name string) (string, error) {
	var answer struct{ Mountpoint string }
	err := d.call(ctx, askLimit, 0, "VolumeDriver.Path", request{Name: name}, &answer)
	return answer.Mountpoint, err
}

// Get describes a volume. fault.NotFound when the plugin answers and has none of that name.
func (d *Driver) Get(ctx context.Context, name string) (Volume, error) {
	var answer struct{ Volume *Volume }
	err := d.call(ctx, askLimit, 0, "VolumeDriver.Get", request{Name: name}, &answer)
	if refused := (*refusal)(nil); errors.As(err, &refused) {
		return Volume{}, fault.Wrap(fault.NotFound, err)
	}
	if err != nil {
		return Volume{}, err
	}
	if answer.Volume == nil {
		return Volume{}, fault.New(fault.NotFound, "get %s: no such volume", name)
	}
	answer.Volume.Name = name
	return *answer.Volume, nil
}

func (d *Driver) list(ctx context.Context) ([]Volume, error) {
	var answer struct{ Volumes []Volume }
	err := d.call(ctx, askLimit, 0, "VolumeDriver.List", nil, &answer)
	return slices.DeleteFunc(answer.Volumes, func(v Volume) bool { return v.Name == "" }), err
}

// refusal is what the plugin itself said.
type refusal struct{ said string }

func (r *refusal) Error() string { return r.said }

// call asks one method. A plugin that can't be reached is asked again for as long as patience says, at growing distances:
// it may be starting. One that was reached is not, as it may have done the work.
func (d *Driver) call(ctx context.Context, limit, patience time.Duration, method string, arguments, answer any) error {
	body := []byte("{}")
	if arguments != nil {
		var err error
		if body, err = json.Marshal(arguments); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	end := time.Now().Add(patience)
	for pause := firstPause; ; pause *= 2 {
		err := d.once(ctx, method, body, answer)
		dial := (*net.OpError)(nil)
		if err == nil || !errors.As(err, &dial) || dial.Op != "dial" || time.Now().Add(pause).After(end) {
			return d.explain(method, err)
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return d.explain(method, err)
		case <-timer.C:
		}
	}
}

// explain says which plugin an error is of.
func (d *Driver) explain(method string, err error) error {
	refused := (*refusal)(nil)
	switch {
	case err == nil || errors.As(err, &refused):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		err = errors.New("it does not answer")
	}
	return fault.New(fault.Unavailable, "volume plugin %s at %s: %s: %w: is the plugin running?", d.name, d.at.Addr, method, cause(err))
}

// cause leaves out the address that the HTTP client repeats.
func cause(err error) error {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		return u.Err
	}
	return err
}

func (d *Driver) once(ctx context.Context, method string, body []byte, answer any) (err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, d.base+method, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Accept", mediaType)
	r.Header.Set("Content-Type", "application/json")
	response, err := d.http.Do(r)
	if err != nil {
		return err
	}
	defer fault.Close(response.Body, &err)
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err != nil {
		return err
	}
	if len(text) > maxAnswer {
		return fmt.Errorf("its answer is longer than %d bytes", maxAnswer)
	}
	return read(method, response.StatusCode, text, answer)
}

// read takes a plugin's answer apart.
func read(method string, status int, text []byte, answer any) error {
	var said struct{ Err string }
	parseErr := json.Unmarshal(text, &said)
	switch {
	case said.Err != "" && status == http.StatusOK:
		return &refusal{said.Err}
	case said.Err != "":
		return &refusal{method + ": " + said.Err}
	case status != http.StatusOK:
		return &refusal{fmt.Sprintf("%s: %s", method, firstLine(text, status))}
	case len(bytes.TrimSpace(text)) == 0:
		return nil
	case parseErr != nil:
		return fmt.Errorf("its answer is no JSON: %w", parseErr)
	case answer == nil:
		return nil
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("its answer is not understood: %w", err)
	}
	return nil
}

// firstLine is what can be shown of a text that is no answer.
func firstLine(text []byte, status int) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	if line = strings.ToValidUTF8(line, ""); line == "" {
		return http.StatusText(status)
	}
	return line[:min(len(line), 300)]
}
