package daemon

import (
	"bufio"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/fault"
)

func TestListenReplacesAStaleSocketOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "d.sock")
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	first, err := Listen([]string{"unix://" + path}, "", false)
	if err != nil {
		t.Fatalf("over a stale socket: %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := Listen([]string{"unix://" + path}, "", false); !errors.Is(err, fault.Conflict) {
		t.Errorf("over a live socket: %v", err)
	}
	first[0].Close()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the name stays: %v", err)
	}
}

func TestListenRefuses(t *testing.T) {
	for host, kind := range map[string]fault.Kind{
		"tcp://0.0.0.0:2375":    fault.Denied,
		"tcp://192.0.2.1:2375":  fault.Denied,
		"http://127.0.0.1:2375": fault.Invalid,
		"/run/x.sock":           fault.Invalid,
	} {
		if all, err := Listen([]string{host}, "", false); !errors.Is(err, kind) || all != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	if _, err := Listen([]string{"unix://" + t.TempDir() + "/x"}, "no-such-group", true); !errors.Is(err, fault.NotFound) {
		t.Errorf("a missing group: %v", err)
	}
}

// TestHijack hands the connection over in both forms, with what the client sent too early.
func TestHijack(t *testing.T) {
	for name, c := range map[string]struct {
		header, path string
		first, media string
	}{
		"body":       {"Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 4\r\n", "/v1.42/x", "HTTP/1.1 101 UPGRADED", "application/vnd.docker.multiplexed-stream"},
		"upgrade":    {"Connection: Upgrade\r\nUpgrade: tcp\r\n", "/v1.42/x", "HTTP/1.1 101 UPGRADED", "application/vnd.docker.multiplexed-stream"},
		"old client": {"Connection: Upgrade\r\nUpgrade: tcp\r\n", "/v1.41/x", "HTTP/1.1 101 UPGRADED", "application/vnd.docker.raw-stream"},
		"bare":       {"", "/v1.50/x", "HTTP/1.1 200 OK", "application/vnd.docker.raw-stream"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &Server{log: discard()}
			mux := http.NewServeMux()
			mux.HandleFunc("POST /x", s.adapt(func(w http.ResponseWriter, r *http.Request) error {
				h, err := hijack(w, r, false)
				if err != nil {
					return err
				}
				defer h.conn.Close()
				defer h.own.Close()
				h.conn.Write(append(append(h.answer, "got "...), h.buffered...))
				return nil
			}))
			path := filepath.Join(t.TempDir(), "s")
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			server := &http.Server{Handler: s.versioned(mux)}
			go server.Serve(l)
			defer server.Close()
			conn, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			body := ""
			if strings.Contains(c.header, "Content-Length") {
				body = "{  }"
			}
			io.WriteString(conn, "POST "+c.path+" HTTP/1.1\r\nHost: x\r\n"+c.header+"\r\n"+body+"early")
			r := bufio.NewReader(conn)
			first, _ := r.ReadString('\n')
			rest, _ := io.ReadAll(r)
			if strings.TrimSpace(first) != c.first || !strings.Contains(string(rest), "Content-Type: "+c.media+"\r\n") {
				t.Errorf("%q %q", first, rest)
			}
			// "early" comes buffered, or is still in the socket: the bytes are never lost, so accept what was there.
			if !strings.Contains(string(rest), "got ") || strings.Contains(string(rest), "{") {
				t.Errorf("nothing came through the handed-over connection: %q", rest)
			}
		})
	}
}

// TestAConnectionSurvivesAnUnreadUpload: a client sends more than the handler reads, and uses the connection again.
func TestAConnectionSurvivesAnUnreadUpload(t *testing.T) {
	var log strings.Builder
	s := &Server{log: discard()}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /x", s.adapt(func(w http.ResponseWriter, r *http.Request) error {
		defer upload(w, r)()
		io.CopyN(io.Discard, r.Body, 100)
		return newLines(w).write("done")
	}))
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: s.versioned(mux), ErrorLog: slog.NewLogLogger(slog.NewTextHandler(&log, nil), 0)}
	go server.Serve(l)
	conn, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	for range 20 {
		go io.WriteString(conn, "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 20000\r\n\r\n"+strings.Repeat("x", 20000))
		response, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("%v\n%s", err, log.String())
		}
		if body, err := io.ReadAll(response.Body); err != nil || string(body) != "\"done\"\n" {
			t.Fatalf("%q, %v", body, err)
		}
	}
	conn.Close()
	server.Close()
}

// TestAPanicIsTold: its cause and stack are in the log as an error, the client gets an answer or an end in the middle of one, and others go on.
func TestAPanicIsTold(t *testing.T) {
	var log strings.Builder
	s := &Server{log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelError}))}
	mux := http.NewServeMux()
	mux.HandleFunc("/early", s.adapt(func(http.ResponseWriter, *http.Request) error { panic("early cause") }))
	mux.HandleFunc("/late", s.adapt(func(w http.ResponseWriter, _ *http.Request) error {
		if err := newLines(w).write("begun"); err != nil {
			return err
		}
		panic("late cause")
	}))
	mux.HandleFunc("/cut", s.adapt(func(w http.ResponseWriter, _ *http.Request) error {
		if err := newLines(w).write("begun"); err != nil {
			return err
		}
		panic(http.ErrAbortHandler)
	}))
	server := httptest.NewServer(mux)
	for _, test := range []struct {
		path   string
		status int
		whole  bool
		log    string
	}{
		{"/early", 500, true, "early cause"},
		{"/late", 200, false, "late cause"},
		{"/cut", 200, false, ""},
	} {
		response, err := http.Get(server.URL + test.path)
		if err != nil {
			t.Fatalf("%s: %v", test.path, err)
		}
		_, err = io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != test.status || (err == nil) != test.whole {
			t.Errorf("%s: status %d, %v", test.path, response.StatusCode, err)
		}
	}
	server.Close() // waits for the handlers, which write the log
	for _, want := range []string{"early cause", "late cause", "/late", "socket_test.go"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, log.String())
		}
	}
	if strings.Contains(log.String(), "/cut") {
		t.Errorf("an answer that was cut on purpose is told of:\n%s", log.String())
	}
}
