package conform

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"berth/test/testengine"
)

// ask sends one request over a connection of its own and returns the answer, its body read.
func ask(t *testing.T, e *testengine.Engine, method, path, body string) (*http.Response, string) {
	t.Helper()
	conn, err := net.Dial("unix", e.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	request, err := http.NewRequest(method, "http://x"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	request.Close = true
	if err := request.Write(conn); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), request)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return response, string(data)
}

// TestStatusCodes: what programs get that speak HTTP themselves, in this order. The codes are
// Docker's, but for syntax errors, where 20.10 said 500.
func TestStatusCodes(t *testing.T) {
	e := testengine.Start(t)
	e.Busybox(t)
	for _, c := range []struct {
		method, path, body string
		code               int
		words              string
	}{
		{"GET", "/_ping", "", 200, "OK"},
		{"GET", "/v1.24/version", "", 200, `"ApiVersion":"1.56"`},
		{"GET", "/v1.23/version", "", 400, "too old"},
		{"GET", "/v1.99/version", "", 400, "too new"},
		{"GET", "/nosuch", "", 404, "page not found"},
		{"POST", "/containers/create", `{`, 400, "invalid JSON"},
		{"POST", "/containers/create", `{}`, 400, "config cannot be empty"},
		{"POST", "/containers/create", `{"Image":"nosuch"}`, 404, "No such image: nosuch:latest"},
		{"POST", "/containers/create?name=x", `{"Image":"busybox"}`, 400, "Invalid container name"},
		{"POST", "/containers/create", `{"Image":"busybox","HostConfig":{"NetworkMode":"nosuch"}}`, 400, "network nosuch not found"},
		{"POST", "/containers/create", `{"Image":"busybox","HostConfig":{"PidMode":"container:nosuch"}}`, 400, "No such container: nosuch"},
		{"POST", "/containers/create", `{"Image":"busybox","HostConfig":{"IpcMode":"container:nosuch"}}`, 400, "No such container: nosuch"},
		{"POST", "/containers/create", `{"Image":"busybox","ExposedPorts":{"80/tcp":{}},"HostConfig":{"NetworkMode":"container:nosuch"}}`, 400, "port exposing and the container type network mode"},
		{"POST", "/containers/create", `{"Image":"busybox","Hostname":"x","HostConfig":{"NetworkMode":"container:nosuch"}}`, 400, "hostname and the network mode"},
		{"POST", "/containers/create", `{"Image":"busybox","HostConfig":{"NetworkMode":"host"},"NetworkingConfig":{"EndpointsConfig":{"host":{"MacAddress":"02:42:ac:11:00:0b"}}}}`, 400, "mac-address and the network mode"},
		{"POST", "/containers/create?name=raw", `{"Image":"busybox","Cmd":["sleep","100"]}`, 201, `"Warnings":[]`},
		{"POST", "/containers/create?name=raw", `{"Image":"busybox"}`, 409, `The container name "/raw" is already in use by container`},
		{"POST", "/containers/raw/exec", `{"Cmd":["true"]}`, 409, "is not running"},
		{"POST", "/containers/raw/kill", "", 409, "is not running"},
		{"POST", "/containers/raw/start", "", 204, ""},
		{"POST", "/containers/raw/start", "", 304, ""},
		{"DELETE", "/containers/raw", "", 409, "stop the container before"},
		{"POST", "/containers/raw/kill?signal=BAD", "", 400, "Invalid signal: BAD"},
		{"POST", "/containers/raw/exec", `{}`, 400, "o exec command specified"},
		{"POST", "/containers/raw/wait?condition=bad", "", 400, "invalid condition"},
		{"POST", "/containers/raw/rename?name=", "", 400, "may be empty"},
		{"GET", "/containers/raw/logs", "", 400, "you must choose at least one stream"},
		{"GET", "/containers/json?filters=bad", "", 400, "invalid filter"},
		{"GET", "/containers/json?filters=%7B%22name%22%3A%7B%22raw%22%3Atrue%7D%7D", "", 200, `"/raw"`},
		{"GET", "/containers/raw/stats?stream=false&one-shot=1", "", 200, `"cpu_stats"`},
		{"POST", "/containers/raw/stop?t=0", "", 204, ""},
		{"POST", "/containers/raw/stop", "", 304, ""},
		{"POST", "/v1.41/containers/raw/wait", "", 200, `"StatusCode":137`},
		{"DELETE", "/containers/raw", "", 204, ""},
		{"DELETE", "/containers/raw", "", 404, "No such container: raw"},
		{"GET", "/images/a/b/c:d/json", "", 404, "No such image: a/b/c:d"},
		{"POST", "/images/busybox/tag?repo=BAD", "", 400, "invalid reference format"},
		{"GET", "/exec/nosuch/json", "", 404, "No such exec instance"},
		{"GET", "/networks/nosuch", "", 404, "network nosuch not found"},
		{"GET", "/volumes/nosuch", "", 404, "no such volume"},
		{"GET", "/events?since=bad", "", 400, "Unix seconds"},
		{"GET", "/swarm", "", 503, "This node is not a swarm manager"},
		{"GET", "/plugins", "", 200, "[]"},
	} {
		response, body := ask(t, e, c.method, c.path, c.body)
		if response.StatusCode != c.code || !strings.Contains(strings.ReplaceAll(body, `\"`, `"`), c.words) {
			t.Errorf("%s %s: %s %s, want %d with %q", c.method, c.path, response.Status, body, c.code, c.words)
		}
		if response.Header.Get("Api-Version") != "1.56" || response.Header.Get("Ostype") != "linux" {
			t.Errorf("%s %s: header %v", c.method, c.path, response.Header)
		}
		var message struct{ Message string }
		if c.code >= 400 && (json.Unmarshal([]byte(body), &message) != nil || message.Message == "") {
			t.Errorf("%s %s: the error is no message: %s", c.method, c.path, body)
		}
	}
}

// TestLegacyHijack attaches as the first clients did: without an upgrade, and with a body that is not input.
func TestLegacyHijack(t *testing.T) {
	e := testengine.Start(t)
	e.Busybox(t)
	ask(t, e, "POST", "/containers/create?name=cat", `{"Image":"busybox","Cmd":["cat"],"OpenStdin":true,"StdinOnce":true}`)
	for _, protocol := range []string{"HTTP/1.1", "HTTP/1.0"} {
		conn, err := net.Dial("unix", e.Socket)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, "POST /v1.24/containers/cat/attach?stream=1&stdin=1&stdout=1 "+protocol+"\r\nHost: x\r\n"+
			"Content-Type: application/json\r\nContent-Length: 15\r\n\r\n"+`{"stream":true}`)
		r := bufio.NewReader(conn)
		response, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if response.StatusCode != 200 || response.Header.Get("Content-Type") != "application/vnd.docker.raw-stream" {
			t.Errorf("%s: %s, %v", protocol, response.Status, response.Header)
		}
		ask(t, e, "POST", "/containers/cat/start", "")
		io.WriteString(conn, "typed\n")
		conn.(*net.UnixConn).CloseWrite()
		data, err := io.ReadAll(r)
		if want := "\x01\x00\x00\x00\x00\x00\x00\x06typed\n"; err != nil || string(data) != want {
			t.Errorf("%s: %q, %v, want %q", protocol, data, err, want)
		}
		ask(t, e, "POST", "/containers/cat/wait", "")
	}
}
