package plugin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/fault"
	"berth/volume/plugin/plugintest"
)

// serve listens on a socket until the test ends.
func serve(t *testing.T, socket string, h http.Handler) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { s.Serve(l); close(done) }()
	t.Cleanup(func() { s.Close(); <-done })
}

func newSet(t *testing.T) *Set {
	t.Helper()
	dir := t.TempDir()
	s := &Set{Sockets: filepath.Join(dir, "run"), Specs: []string{filepath.Join(dir, "etc"), filepath.Join(dir, "lib")}, Patience: time.Minute}
	for _, d := range append(s.Specs, s.Sockets) {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestLifeOfAVolume(t *testing.T) {
	s, ctx := newSet(t), t.Context()
	p := &plugintest.Plugin{Dir: t.TempDir(), Scope: "global"}
	at := filepath.Join(p.Dir, "a")
	serve(t, filepath.Join(s.Sockets, "store.sock"), p)
	d, err := s.Driver(ctx, "store")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.Driver(ctx, "store"); err != nil || again != d || d.Scope() != "global" || d.Name() != "store" {
		t.Errorf("%p %p %+v %v", again, d, d, err)
	}
	if err := d.Create(ctx, "a", map[string]string{"size": "1g"}); err != nil || p.Options("a")["size"] != "1g" {
		t.Errorf("%v, %v", p.Options("a"), err)
	}
	if err := d.Create(ctx, "b", map[string]string{"bad": "1"}); err == nil || err.Error() != "bad option" {
		t.Errorf("refused: %v", err)
	}
	if v, err := d.Get(ctx, "a"); err != nil || v.Name != "a" || v.Mountpoint != at || v.Status["users"] != 0.0 {
		t.Errorf("%+v, %v", v, err)
	}
	if _, err := d.Get(ctx, "nosuch"); !errors.Is(err, fault.NotFound) {
		t.Errorf("get of none: %v", err)
	}
	if path, err := d.Mount(ctx, "a", "one"); err != nil || path != at || strings.Join(p.Mounted(), ";") != "a one" {
		t.Errorf("%q, %v, %v", path, err, p.Mounted())
	}
	if path, err := d.Path(ctx, "a"); err != nil || path != at {
		t.Errorf("%q, %v", path, err)
	}
	if err := d.Unmount(ctx, "a", "one"); err != nil || len(p.Mounted()) != 0 {
		t.Errorf("%v, %v", err, p.Mounted())
	}
	if found, failed := s.List(ctx); len(failed) != 0 || len(found["store"]) != 1 || found["store"][0].Name != "a" {
		t.Errorf("%v, %v", found, failed)
	}
	if err := d.Remove(ctx, "a"); err != nil {
		t.Error(err)
	}
	if err := d.Remove(ctx, "a"); err == nil || err.Error() != "VolumeDriver.Remove: no volume a" {
		t.Errorf("removed twice: %v", err)
	}
	if n := strings.Count(strings.Join(p.Asked(), " "), "Plugin.Activate"); n != 1 {
		t.Errorf("greeted %d times: %v", n, p.Asked())
	}
}

func TestWherePluginsAre(t *testing.T) {
	s, ctx := newSet(t), t.Context()
	socket := filepath.Join(t.TempDir(), "s")
	serve(t, socket, &plugintest.Plugin{Dir: t.TempDir(), Old: true})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp := &http.Server{Handler: http.StripPrefix("/base", &plugintest.Plugin{Dir: t.TempDir()})}
	go tcp.Serve(l)
	t.Cleanup(func() { tcp.Close() })
	sub := filepath.Join(s.Sockets, "deep")
	write := func(path, text string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	serve(t, filepath.Join(sub, "deep.sock"), &plugintest.Plugin{Dir: t.TempDir()})
	write(s.Specs[0]+"/text.spec", " unix://"+socket+"\n")
	write(s.Specs[1]+"/text.spec", "unix:///nowhere")
	write(s.Specs[1]+"/json/json.json", `{"Name": "json", "Addr": "http://`+l.Addr().String()+`/base"}`)
	write(s.Specs[0]+"/broken.json", "{")
	write(s.Specs[0]+"/readme.txt", "")
	write(s.Sockets+"/file.sock", "") // no socket
	for _, name := range []string{"deep", "text", "json"} {
		if d, err := s.Driver(ctx, name); err != nil || d.Scope() != "local" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if names := strings.Join(s.Names(), " "); names != "deep json text" {
		t.Errorf("names: %s", names)
	}
	for _, name := range []string{"nosuch", "file", "../text", "", "readme"} {
		_, err := s.Driver(ctx, name)
		if want := fmt.Sprintf("error looking up volume plugin %s: plugin %q not found", name, name); !errors.Is(err, fault.NotFound) || err.Error() != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.Driver(ctx, "broken"); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "broken.json") {
		t.Errorf("broken: %v", err)
	}
}

// A plugin of another kind is none for volumes; a list leaves it out.
func TestOtherPlugins(t *testing.T) {
	s := newSet(t)
	serve(t, filepath.Join(s.Sockets, "net.sock"), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"Implements": ["NetworkDriver"]}`)
	}))
	if _, err := s.Driver(t.Context(), "net"); !errors.Is(err, fault.NotFound) || !strings.HasSuffix(err.Error(), "Plugin does not implement the requested driver") {
		t.Errorf("%v", err)
	}
	if found, failed := s.List(t.Context()); len(found) != 0 || len(failed) != 0 {
		t.Errorf("%v, %v", found, failed)
	}
}

// One that starts a little later is waited for; a list asks a dead one only once and names it.
func TestPatience(t *testing.T) {
	s := newSet(t)
	socket := filepath.Join(t.TempDir(), "late")
	if err := os.WriteFile(s.Specs[0]+"/late.spec", []byte("unix://"+socket), 0o644); err != nil {
		t.Fatal(err)
	}
	if found, failed := s.List(t.Context()); len(found) != 0 || failed["late"] == nil || fault.Of(failed["late"]) != fault.Unavailable {
		t.Errorf("%v, %v", found, failed)
	}
	got := make(chan error, 1)
	go func() {
		_, err := s.Driver(t.Context(), "late")
		got <- err
	}()
	serve(t, socket, &plugintest.Plugin{Dir: t.TempDir()})
	if err := <-got; err != nil {
		t.Error(err)
	}
	s.Patience = time.Nanosecond
	if err := os.WriteFile(s.Specs[0]+"/dead.spec", []byte("unix://"+socket+".not"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := s.Driver(t.Context(), "dead")
	if fault.Of(err) != fault.Unavailable || !strings.Contains(err.Error(), "is the plugin running?") || !strings.Contains(err.Error(), "no such file or directory") {
		t.Errorf("dead: %v", err)
	}
}

// Whatever a plugin does, a call ends with its context.
func TestAPluginThatHangs(t *testing.T) {
	s := newSet(t)
	serve(t, filepath.Join(s.Sockets, "hung.sock"), http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Driver(ctx, "hung"); fault.Of(err) != fault.Unavailable || !strings.Contains(err.Error(), "it does not answer") {
		t.Errorf("%v", err)
	}
}

func TestStrangeAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		status     int
		text, want string
		kind       fault.Kind
	}{
		"no JSON":         {200, "hello", "its answer is no JSON", fault.Unavailable},
		"another type":    {200, `{"Mountpoint": 3}`, "its answer is not understood", fault.Unavailable},
		"relative":        {200, `{"Mountpoint": "data"}`, "no absolute path", fault.Unavailable},
		"nothing":         {200, "", "no absolute path", fault.Unavailable},
		"status only":     {503, "", "VolumeDriver.Mount: Service Unavailable", ""},
		"status and text": {500, "broken\nmore", "VolumeDriver.Mount: broken", ""},
		"status and Err":  {500, `{"Err": "full"}`, "VolumeDriver.Mount: full", ""},
		"Err":             {200, `{"Err": "full"}`, "full", ""},
		"too long":        {200, strings.Repeat(" ", maxAnswer+1), "longer than", fault.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSet(t)
			serve(t, filepath.Join(s.Sockets, "odd.sock"), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/Plugin.Activate" {
					fmt.Fprint(w, `{"Implements": ["VolumeDriver"]}`)
					return
				}
				if r.URL.Path == "/VolumeDriver.Capabilities" {
					http.NotFound(w, r)
					return
				}
				w.WriteHeader(c.status)
				fmt.Fprint(w, c.text)
			}))
			d, err := s.Driver(t.Context(), "odd")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := d.Mount(t.Context(), "v", "id"); err == nil || !strings.Contains(err.Error(), c.want) || fault.Of(err) != c.kind {
				t.Errorf("%v (%s)", err, fault.Of(err))
			}
		})
	}
}

func FuzzParseSpec(f *testing.F) {
	for _, s := range []string{"unix:///run/x.sock", "tcp://h:1", `{"Addr": "https://h", "TLSConfig": {"CAFile": "x"}}`, "{", "x", "unix://a/b"} {
		f.Add([]byte(s), strings.HasPrefix(s, "{"))
	}
	f.Fuzz(func(t *testing.T, text []byte, isJSON bool) {
		a, err := parseSpec(text, isJSON)
		if err != nil {
			return
		}
		if _, err := newDriver("x", a, 0); err != nil && a.TLSConfig == (address{}).TLSConfig {
			t.Errorf("%+v is accepted and can't be used: %v", a, err)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	for _, s := range []string{"", "{}", `{"Err": "x"}`, `{"Volumes": [{"Name": "a", "Status": {"x": 1}}]}`, "[", "null", "\xff"} {
		f.Add(200, []byte(s))
		f.Add(500, []byte(s))
	}
	f.Fuzz(func(t *testing.T, status int, text []byte) {
		var answer struct{ Volumes []Volume }
		if err := read("m", status, text, &answer); err == nil && status != http.StatusOK {
			t.Errorf("status %d is no error", status)
		}
	})
}
