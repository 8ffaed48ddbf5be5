package projects

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"path/filepath"
	"testing"

	"berth/internal/kerneltest"
)

// outsideVar is the socket at which those outside of the tests' world forward requests; "-": they don't.
const outsideVar = "BERTH_TEST_OUTSIDE"

// TestMain lets the long tests reach package registries: the world has no network but its own, so the process that waits outside of it
// serves a proxy at a socket in the file system.
func TestMain(m *testing.M) {
	if os.Geteuid() != 0 || os.Getenv(outsideVar) != "" {
		kerneltest.Main(m)
	}
	os.Setenv(outsideVar, "-")
	if os.Getenv("BERTH_SOAK") == "" {
		kerneltest.Main(m)
	}
	dir, err := os.MkdirTemp("/var/tmp", "berth-outside-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	socket := filepath.Join(dir, "proxy")
	l, err := net.Listen("unix", socket)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go http.Serve(l, http.HandlerFunc(forward))
	os.Setenv(outsideVar, socket)
	code := kerneltest.Enter(os.Args)
	os.RemoveAll(dir)
	os.Exit(code)
}

// forward is a proxy for programs that are told of one by http_proxy and https_proxy.
func forward(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect {
		(&httputil.ReverseProxy{Rewrite: func(*httputil.ProxyRequest) {}}).ServeHTTP(w, r)
		return
	}
	there, err := net.Dial("tcp", r.Host)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	w.WriteHeader(http.StatusOK)
	here, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		there.Close()
		return
	}
	join(here, there)
}

// join copies both ways until both ends are through.
func join(a, b net.Conn) {
	done := make(chan bool)
	go func() {
		io.Copy(a, b)
		a.Close()
		close(done)
	}()
	io.Copy(b, a)
	b.Close()
	<-done
}

// outside is the address of a proxy in the world that leads out of it; the test skips without one.
func outside(t *testing.T) string {
	t.Helper()
	socket := os.Getenv(outsideVar)
	if socket == "-" {
		t.Skip("uses package registries, so it is part of the long tests: BERTH_SOAK=1")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			there, err := net.Dial("unix", socket)
			if err != nil {
				c.Close()
				continue
			}
			go join(c, there)
		}
	}()
	return "http://" + l.Addr().String()
}
