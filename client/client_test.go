package client

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"berth/fault"
)

// serve answers requests on a unix socket and gives a client of it.
func serve(t *testing.T, h http.HandlerFunc) (*Client, *atomic.Int32) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var connections atomic.Int32
	s := &http.Server{Handler: h, ConnState: func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			connections.Add(1)
		}
	}}
	go s.Serve(l)
	c, err := New(Options{Host: "unix://" + socket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return c, &connections
}

func TestConnectionsAreUsedAgain(t *testing.T) {
	c, n := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/json"):
			io.WriteString(w, "[]\n")
		case r.Method == "DELETE":
			w.WriteHeader(204)
		default:
			w.(http.Flusher).Flush()
			fmt.Fprintf(w, `{"Id":"%s"}`, strings.Repeat("x", 9000))
		}
	})
	ctx := context.Background()
	for range 3 {
		if _, err := c.Containers.List(ctx, Listing{}); err != nil {
			t.Fatal(err)
		}
		if err := c.Containers.Remove(ctx, "x", Removal{}); err != nil {
			t.Fatal(err)
		}
		out, err := c.Containers.Create(ctx, "", "", CreateRequest{})
		if err != nil || len(out.ID) != 9000 {
			t.Fatalf("got %d letters, %v", len(out.ID), err)
		}
	}
	if n.Load() != 1 {
		t.Errorf("%d connections for requests one after the other", n.Load())
	}
}

func TestClosingDoesNotWait(t *testing.T) {
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	w, err := c.Containers.Wait(context.Background(), "x", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

func TestContextEndsARequest(t *testing.T) {
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(context.Background())
	w, err := c.Containers.Wait(ctx, "x", "")
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := w.Result(); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestErrorsHaveKinds(t *testing.T) {
	for status, kind := range kinds {
		if status == 304 {
			continue
		}
		c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(status)
			io.WriteString(w, `{"message":"the words"}`)
		})
		err := c.System.Ping(context.Background())
		if !errors.Is(err, kind) || fault.Of(err) != kind || err.Error() != "Error response from daemon: the words" {
			t.Errorf("%d: got %q of kind %q", status, err, fault.Of(err))
		}
	}
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Error(w, "not JSON", 500) })
	if err := c.System.Ping(context.Background()); err.Error() != "Error response from daemon: not JSON" {
		t.Errorf("got %q", err)
	}
}

func TestStreamedBody(t *testing.T) {
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/_ping" {
			w.Header().Set("Api-Version", "1.47")
			return
		}
		b, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, `{"stream":"%s %d %v"}`, r.URL.Path, len(b), err)
	})
	p, err := c.Images.Load(context.Background(), bytes.NewReader(make([]byte, 300_000)), true, nil)
	if err != nil {
		t.Fatal(err)
	}
	m, err := p.Next()
	if err != nil || m.Stream != "/v1.47/images/load 300000 <nil>" {
		t.Errorf("got %+v, %v", m, err)
	}
	if _, err := p.Next(); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
}

// TestPingTellsTheVersion: whoever asked an older engine for something that has no version speaks its version from then on.
func TestPingTellsTheVersion(t *testing.T) {
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.41")
		if r.URL.Path != "/_ping" {
			fmt.Fprintf(w, `{"stream":%q}`, r.URL.Path)
		}
	})
	if asks, err := c.Images.Asks(context.Background()); asks || err != nil {
		t.Fatalf("the engine asks: %v, %v", asks, err)
	}
	p, err := c.Images.Build(context.Background(), nil, nil, bytes.NewReader(make([]byte, 10)))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if m, err := p.Next(); err != nil || m.Stream != "/v1.41/build" {
		t.Errorf("got %+v, %v", m, err)
	}
}

// failing gives some bytes and then an error, as a broken disk does.
type failing struct{ left int }

func (f *failing) Read(p []byte) (int, error) {
	if f.left == 0 {
		return 0, errors.New("the disk broke")
	}
	n := min(len(p), f.left)
	f.left -= n
	return n, nil
}

func TestHalfABodyIsNotAWholeOne(t *testing.T) {
	read := make(chan error, 1)
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/_ping" {
			return
		}
		_, err := io.Copy(io.Discard, r.Body)
		read <- err
	})
	if _, err := c.Images.Load(context.Background(), &failing{100_000}, true, nil); err == nil {
		t.Error("no error")
	}
	if err := <-read; err == nil {
		t.Error("the daemon took half a body for a whole one")
	}
}

func TestHosts(t *testing.T) {
	for host, want := range map[string]string{
		"unix:///run/x.sock":     "unix /run/x.sock",
		"tcp://127.0.0.1:2375":   "tcp 127.0.0.1:2375",
		"tcp://[::1]:1":          "tcp [::1]:1",
		"tcp://host":             "tcp host:2375",
		"127.0.0.1:7":            "tcp 127.0.0.1:7",
		"/run/x":                 "unix /run/x",
		"unix://":                "invalid argument",
		"x":                      "invalid argument",
		"foo://x":                "invalid argument",
		"ssh://me@there":         "unsupported",
		"tcp://host:2375/prefix": "unsupported",
		"tcp://":                 "invalid argument",
	} {
		network, address, err := parseHost(host)
		got := network + " " + address
		if err != nil {
			got = string(fault.Of(err))
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", host, got, want)
		}
	}
}

func TestNobodyThere(t *testing.T) {
	c, err := New(Options{Host: "unix://" + filepath.Join(t.TempDir(), "s")})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.System.Ping(context.Background()); !errors.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "Is the daemon running?") {
		t.Errorf("got %v", err)
	}
}

func TestDemux(t *testing.T) {
	frame := func(kind byte, text string) string {
		return string([]byte{kind, 0, 0, 0, 0, 0, 0, byte(len(text))}) + text
	}
	for _, c := range []struct{ in, out, err, fault string }{
		{frame(1, "a") + frame(2, "b") + frame(0, "c") + frame(1, ""), "ac", "b", ""},
		{frame(1, "a")[:8], "", "", io.ErrUnexpectedEOF.Error()},
		{frame(1, "abc")[:10], "ab", "", io.ErrUnexpectedEOF.Error()},
		{"\x01\x00\x00", "", "", io.ErrUnexpectedEOF.Error()},
		{frame(3, "oops") + frame(1, "late"), "", "", "error from daemon in stream: oops"},
		{frame(9, "?"), "", "", "the daemon's stream has a frame of the unknown kind 9"},
	} {
		var out, errs bytes.Buffer
		err := Demux(&out, &errs, strings.NewReader(c.in))
		if got := fmt.Sprint(err); out.String() != c.out || errs.String() != c.err || got != c.fault && (err != nil || c.fault != "") {
			t.Errorf("%q: got %q, %q, %v", c.in, &out, &errs, err)
		}
	}
}

func FuzzDemux(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x00\x00\x00\x01a"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var out bytes.Buffer
		Demux(&out, &out, bytes.NewReader(b))
		if out.Len() > len(b) {
			t.Errorf("%d bytes out of %d", out.Len(), len(b))
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n0\r\nT: v\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 404 Not\r\nA:b\r\n\r\nrest"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := &Response{conn: &conn{r: bufio.NewReaderSize(bytes.NewReader(b), 16)}}
		if r.readHead("GET") != nil {
			return
		}
		body, err := io.ReadAll(r)
		if len(body) > len(b) {
			t.Errorf("%d bytes out of %d, %v", len(body), len(b), err)
		}
	})
}

func TestAnswersAgreeWithNetHTTP(t *testing.T) {
	for _, text := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n1\r\nc\r\n0\r\nT: v\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 404 Not\r\nA: b \r\n\r\nrest",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab",
		"HTTP/1.1 204 No Content\r\n\r\n",
	} {
		ours := &Response{conn: &conn{r: bufio.NewReader(strings.NewReader(text))}}
		err := ours.readHead("GET")
		body, bodyErr := io.ReadAll(ours)
		r := bufio.NewReader(strings.NewReader(text))
		theirs, theirErr := http.ReadResponse(r, nil)
		for theirErr == nil && theirs.StatusCode == 100 {
			theirs, theirErr = http.ReadResponse(r, nil)
		}
		theirBody, theirBodyErr := io.ReadAll(theirs.Body)
		if (err == nil) != (theirErr == nil) || ours.Status != theirs.StatusCode || string(body) != string(theirBody) || (bodyErr == nil) != (theirBodyErr == nil) {
			t.Errorf("%q: got %d %q %v %v, net/http %d %q %v %v", text, ours.Status, body, err, bodyErr, theirs.StatusCode, theirBody, theirErr, theirBodyErr)
		}
	}
}

// TestMain plays the daemon when a test launches it.
func TestMain(m *testing.M) {
	if os.Getenv("BERTH_TEST_DAEMON") != "" {
		os.Exit(playDaemon())
	}
	os.Exit(m.Run())
}

func playDaemon() int {
	ready := os.NewFile(3, "ready")
	socket := os.Args[1]
	fmt.Println("the daemon's own words", os.Getenv("BERTH_AUTOSTARTED"), os.Getenv("BERTH_READY_FD"))
	if os.Args[2] == "fail" {
		fmt.Fprintln(ready, "the bridge's address is taken")
		return 1
	}
	os.Remove(socket)
	l, err := net.Listen("unix", socket)
	if err != nil {
		fmt.Fprintln(ready, err)
		return 1
	}
	started, _ := os.OpenFile(socket+".starts", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	fmt.Fprintln(started, os.Getpid())
	fmt.Fprintln(ready, "ready")
	ready.Close()
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/stop") {
			os.Exit(0)
		}
	})}
	s.Serve(l)
	return 0
}

// flock is a lock as the program's own.
func flock(path string) (func() error, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, err
	}
	return f.Close, nil
}

func launch(t *testing.T, mode string) (socket string, l *Launch) {
	dir := t.TempDir()
	socket = filepath.Join(dir, "s")
	t.Setenv("BERTH_TEST_DAEMON", "1")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return socket, &Launch{Program: self, Args: []string{socket, mode}, Dir: filepath.Join(dir, "run"), Log: filepath.Join(dir, "log"), Lock: flock}
}

func TestLaunch(t *testing.T) {
	socket, l := launch(t, "serve")
	// A socket that a dead daemon left counts as none.
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	t.Cleanup(func() {
		if c, err := New(Options{Host: "unix://" + socket}); err == nil {
			c.Call(context.Background(), Request{Method: "POST", Path: "/stop"}, nil)
		}
	})
	var all sync.WaitGroup
	for range 4 {
		all.Add(1)
		go func() {
			defer all.Done()
			c, err := New(Options{Host: "unix://" + socket, Launch: l})
			if err == nil {
				err = c.System.Ping(context.Background())
			}
			if err != nil {
				t.Error(err)
			}
			c.Close()
		}()
	}
	all.Wait()
	starts, err := os.ReadFile(socket + ".starts")
	if err != nil || bytes.Count(starts, []byte("\n")) != 1 {
		t.Fatalf("the daemon was started as %q, %v", starts, err)
	}
	pid := strings.TrimSpace(string(starts))
	out, err := exec.Command("ps", "-o", "sid=,pid=", "-p", pid).Output()
	if f := strings.Fields(string(out)); err != nil || len(f) != 2 || f[0] != f[1] {
		t.Errorf("the daemon has no session of its own: %q, %v", out, err)
	}
	if log, err := os.ReadFile(l.Log); err != nil || string(log) != "the daemon's own words 1 3\n" {
		t.Errorf("its log is %q, %v", log, err)
	}
}

func TestLaunchFails(t *testing.T) {
	socket, l := launch(t, "fail")
	c, err := New(Options{Host: "unix://" + socket, Launch: l})
	if err != nil {
		t.Fatal(err)
	}
	err = c.System.Ping(context.Background())
	want := "the daemon did not start: the bridge's address is taken\nThe last lines of " + l.Log + ":\n  the daemon's own words 1 3"
	if err == nil || err.Error() != want || !errors.Is(err, fault.Unavailable) {
		t.Errorf("got %v", err)
	}
	l.Program = "/nonexistent/berthd"
	if err := c.System.Ping(context.Background()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestWarningsOfAStopAreHeard(t *testing.T) {
	for header, want := range map[string][]string{
		`199 berth "one: \"x\"\ntwo"`: {`one: "x"`, "two"},
		"":                            nil, "199 berth broken": nil, `199 berth "open`: nil,
	} {
		c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Warning", header)
			w.WriteHeader(http.StatusNoContent)
		})
		var got []string
		if err := c.Containers.Stop(t.Context(), "x", Halt{Warn: func(lines []string) { got = lines }}); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v", header, got, err)
		}
	}
}

func FuzzWarnings(f *testing.F) {
	for _, seed := range []string{`199 berth "a\nb"`, "", `"`, ` "\u0000"`, ` "\"`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		for _, line := range warnings(header) {
			if strings.Contains(line, "\n") {
				t.Errorf("%q: %q", header, line)
			}
		}
	})
}
