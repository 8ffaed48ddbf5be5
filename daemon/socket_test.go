package daemon

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
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
			io.WriteString(conn, "POST "+c.path+" HTTP/1.1\r\nHost: x\r\n"+c.header+"\r\nearly")
			r := bufio.NewReader(conn)
			first, _ := r.ReadString('\n')
			rest, _ := io.ReadAll(r)
			if strings.TrimSpace(first) != c.first || !strings.Contains(string(rest), "Content-Type: "+c.media+"\r\n") {
				t.Errorf("%q %q", first, rest)
			}
			// "early" comes buffered, or is still in the socket: the bytes are never lost, so accept what was there.
			if !strings.Contains(string(rest), "got ") {
				t.Errorf("nothing came through the handed-over connection: %q", rest)
			}
		})
	}
}
