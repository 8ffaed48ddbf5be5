package cli

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"berth/client"

	"berth/cli/session"
)

const fakeID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// asked is a request that the fake daemon got.
type asked struct {
	method, path string
	query        url.Values
	body         string
	auth         string // X-Registry-Auth
}

func (a asked) String() string { return a.method + " " + a.path }

// fake is a daemon's socket: it writes down what it is asked and answers what the test says.
type fake struct {
	t       *testing.T
	host    string
	config  string // the client's configuration directory
	version string // the API version that it says it has
	server  string // the program that it says it is

	mu      sync.Mutex
	asked   []asked
	answers map[string]any // by "METHOD /path": a JSON value, a refusal, or a http.HandlerFunc
}

// refusal is an answer with a status and a message.
type refusal struct {
	status  int
	message string
}

func newFake(t *testing.T) *fake {
	f := &fake{t: t, config: t.TempDir(), answers: map[string]any{}, version: client.NewestVersion, server: "Berth/test (linux)"}
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	f.host = "unix://" + socket
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: f}}
	s.Start()
	t.Cleanup(s.Close)
	f.on("POST /containers/create", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(201)
		fmt.Fprintf(w, `{"Id":%q,"Warnings":[]}`, fakeID)
	})
	for _, verb := range []string{"start", "stop", "restart", "kill", "pause", "unpause", "rename", "resize"} {
		f.on("POST /containers/"+fakeID+"/"+verb, reply(204))
	}
	return f
}

func reply(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// on sets the answer to a request.
func (f *fake) on(request string, answer any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if h, ok := answer.(func(http.ResponseWriter, *http.Request)); ok {
		answer = http.HandlerFunc(h)
	}
	f.answers[request] = answer
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Api-Version", f.version)
	h.Set("Ostype", "linux")
	h.Set("Server", f.server)
	path := r.URL.Path
	if rest, ok := strings.CutPrefix(path, "/v1."); ok {
		minor, after, _ := strings.Cut(rest, "/")
		path = "/" + after
		if newer("1."+minor, f.version) {
			h.Set("Content-Type", "application/json")
			w.WriteHeader(400)
			fmt.Fprintf(w, `{"message":"client version 1.%s is too new. Maximum supported API version is %s"}`, minor, f.version)
			return
		}
	}
	if path == "/_ping" {
		io.WriteString(w, "OK")
		return
	}
	a := asked{r.Method, path, r.URL.Query(), "", r.Header.Get("X-Registry-Auth")}
	if r.Header.Get("Upgrade") == "" || strings.Contains(path, "/exec/") {
		b, _ := io.ReadAll(r.Body)
		a.body = string(b)
	}
	f.mu.Lock()
	f.asked = append(f.asked, a)
	answer, ok := f.answers[a.String()]
	f.mu.Unlock()
	if !ok {
		answer = refusal{404, "no answer to " + a.String()}
	}
	switch answer := answer.(type) {
	case http.HandlerFunc:
		answer(w, r)
	case refusal:
		h.Set("Content-Type", "application/json")
		w.WriteHeader(answer.status)
		json.NewEncoder(w).Encode(map[string]string{"message": answer.message})
	case json.RawMessage:
		h.Set("Content-Type", "application/json")
		w.Write(answer)
	default:
		h.Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(answer)
	}
}

func newer(a, b string) bool {
	var x, y int
	fmt.Sscanf(a, "1.%d", &x)
	fmt.Sscanf(b, "1.%d", &y)
	return x > y
}

// take gives the requests so far and forgets them.
func (f *fake) take() []asked {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.asked
	f.asked = nil
	return all
}

// lines gives the requests so far as "METHOD /path", and forgets them.
func (f *fake) lines() string {
	var all []string
	for _, a := range f.take() {
		all = append(all, a.String())
	}
	return strings.ReplaceAll(strings.Join(all, "\n"), fakeID, "ID")
}

// hijack answers an upgrade and hands the connection to serve.
func hijack(frames bool, serve func(conn net.Conn, in io.Reader)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		kind := "raw"
		if frames {
			kind = "multiplexed"
		}
		fmt.Fprintf(conn, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.%s-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n", kind)
		serve(conn, rw)
	}
}

// frame is one piece of output as it travels when there is no terminal.
func frame(stream byte, text string) []byte {
	b := append([]byte{stream, 0, 0, 0}, binary.BigEndian.AppendUint32(nil, uint32(len(text)))...)
	return append(b, text...)
}

// ran is what a command line printed and returned.
type ran struct {
	code     int
	out, err string
}

// berth runs the command line in this process against the fake.
func (f *fake) berth(args ...string) ran { return f.berthIn("", args...) }

func (f *fake) berthIn(stdin string, args ...string) ran {
	env := map[string]string{"DOCKER_HOST": f.host, "HOME": os.Getenv("HOME"), "DOCKER_CONFIG": f.config}
	return runMain(env, strings.NewReader(stdin), args...)
}

func runMain(env map[string]string, in io.Reader, args ...string) ran {
	var out, errs bytes.Buffer
	code := Main(&session.Program{
		Args: args, In: in, Out: &out, Err: &errs, Version: "1.0", Commit: "c0ffee",
		Getenv: func(k string) (string, bool) { v, ok := env[k]; return v, ok },
	})
	return ran{code, out.String(), errs.String()}
}
