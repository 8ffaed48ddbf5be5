package hostile

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/test/testengine"
)

// caller makes HTTP requests on an engine's socket, each on a connection of its own.
func caller(e *testengine.Engine) *http.Client {
	return &http.Client{Timeout: 60 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", e.Socket)
		}}}
}

// call makes one request and returns the answer's status and body.
func call(t testing.TB, e *testengine.Engine, method, path, media, body string) (int, string) {
	t.Helper()
	request, err := http.NewRequest(method, "http://engine"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if media != "" {
		request.Header.Set("Content-Type", media)
	}
	answer, err := caller(e).Do(request)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	return answer.StatusCode, string(text)
}

// raw sends bytes to the daemon's socket and returns the connection; the test closes it.
func raw(t testing.TB, e *testengine.Engine, text string) *net.UnixConn {
	t.Helper()
	c, err := net.Dial("unix", e.Socket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	return c.(*net.UnixConn)
}

// TestBadRequestsToTheAPI: every one gets a JSON message and a 4xx, and the daemon holds nothing for it.
func TestBadRequestsToTheAPI(t *testing.T) {
	e := testengine.Start(t)
	e.Busybox(t)
	id := strings.TrimSpace(e.Run(t, "run", "-d", "busybox", "sleep", "1000"))
	before := settled(t, e)
	const asJSON = "application/json"
	long := strings.Repeat("x", 200_000)
	for _, c := range []struct {
		status             int
		method, path       string
		media, body, words string
	}{
		{400, "POST", "/containers/create", asJSON, "{", ""},
		{400, "POST", "/containers/create", asJSON, "", ""},
		{400, "POST", "/containers/create", asJSON, "null", ""},
		{400, "POST", "/containers/create", asJSON, `[]`, ""},
		{400, "POST", "/containers/create", asJSON, `"busybox"`, ""},
		{400, "POST", "/containers/create", asJSON, `{"Image":7}`, ""},
		{400, "POST", "/containers/create", asJSON, `{"Image":"busybox"}{"Image":"busybox"}`, ""},
		{400, "POST", "/containers/create", asJSON, strings.Repeat(`{"Labels":`, 20_000), ""},
		{400, "POST", "/containers/create", "text/plain", `{"Image":"busybox"}`, ""},
		{400, "POST", "/containers/create", asJSON, `{"Image":""}`, ""},
		{404, "POST", "/containers/create", asJSON, `{"Image":"nosuch"}`, "No such image: nosuch:latest"},
		{400, "POST", "/containers/create", asJSON, `{"Image":"busybox","HostConfig":{"Memory":-5}}`, ""},
		{400, "POST", "/containers/create", asJSON, `{"Image":"busybox","HostConfig":{"Binds":["x"]},"Volumes":{"../..":{}}}`, ""},
		{400, "POST", "/containers/create", asJSON, `{"Image":"busybox","HostConfig":{"PortBindings":{"x/tcp":[{"HostPort":"1"}]}}}`, ""},
		{400, "POST", "/containers/create", asJSON, `{"Image":"busybox","Env":["A=` + "\\u0000" + `b"]}`, ""},
		{400, "POST", "/containers/create", asJSON, `{"Image":"busybox","Cmd":["a` + "\\u0000" + `b"]}`, ""},
		{404, "POST", "/containers/nosuch/start", "", "", "No such container: nosuch"},
		{404, "POST", "/containers/" + strings.Repeat("0", 64) + "/stop", "", "", "No such container"},
		{404, "POST", "/containers/..%2f..%2fetc/start", "", "", ""},
		{404, "GET", "/containers/" + long[:5000] + "/json", "", "", ""},
		{404, "DELETE", "/containers/nosuch", "", "", ""},
		{409, "DELETE", "/containers/" + id, "", "", "stop the container before"},
		{404, "POST", "/exec/nosuch/start", asJSON, "{}", ""},
		{404, "GET", "/exec/nosuch/json", "", "", ""},
		{400, "POST", "/containers/" + id + "/exec", asJSON, "{", ""},
		{400, "POST", "/containers/" + id + "/exec", asJSON, `{"Cmd":[]}`, ""},
		{400, "POST", "/containers/" + id + "/kill?signal=NOSUCH", "", "", ""},
		{400, "POST", "/containers/" + id + "/kill?signal=-1", "", "", ""},
		{400, "POST", "/containers/" + id + "/resize?h=x&w=1", "", "", ""},
		{400, "POST", "/containers/" + id + "/rename?name=a%2Fb", "", "", ""},
		{400, "GET", "/containers/" + id + "/logs", "", "", ""},
		{400, "GET", "/containers/" + id + "/logs?stdout=1&since=yesterday", "", "", ""},
		{400, "GET", "/containers/json?filters=%7Bx", "", "", ""},
		{400, "GET", "/containers/json?filters=%7B%22nosuch%22%3A%5B%22x%22%5D%7D", "", "", ""},
		{400, "GET", "/containers/json?limit=x", "", "", ""},
		{400, "POST", "/containers/" + id + "/wait?condition=nosuch", "", "", ""},
		{400, "GET", "/events?since=x", "", "", ""},
		{404, "GET", "/images/nosuch/json", "", "", ""},
		{404, "DELETE", "/images/nosuch", "", "", ""},
		{404, "POST", "/images/nosuch/tag?repo=a&tag=b", "", "", ""},
		{400, "POST", "/images/busybox/tag?repo=UPPER&tag=b", "", "", ""},
		{400, "POST", "/images/create?fromImage=a:b:c", "", "", ""},
		{404, "GET", "/nosuch", "", "", ""},
		{400, "GET", "/v1.10/info", "", "", "too old"},
		{400, "GET", "/v9.99/info", "", "", "too new"},
		{404, "GET", "/v1.4x/info", "", "", ""},
	} {
		status, body := call(t, e, c.method, c.path, c.media, c.body)
		show := c.body[:min(len(c.body), 60)]
		if status != c.status || !strings.Contains(body, c.words) || !strings.HasPrefix(body, `{"message":"`) || len(body) > 6000 {
			t.Errorf("%s %.80s %s: %d %.300s", c.method, c.path, show, status, body)
		}
	}
	// A body without an end is not swallowed whole.
	endless := io.MultiReader(strings.NewReader(`{"Image":"`), io.LimitReader(letters{}, 1<<30))
	request, _ := http.NewRequest("POST", "http://engine/containers/create", endless)
	request.Header.Set("Content-Type", asJSON)
	if answer, err := caller(e).Do(request); err == nil {
		answer.Body.Close()
		if answer.StatusCode/100 != 4 {
			t.Errorf("a body of 1 GiB: %s", answer.Status)
		}
	}
	if peak := memory(t, e); peak > 200<<10 {
		t.Errorf("the daemon took %d KiB for it", peak)
	}
	for _, text := range []string{"", "\x00\xff\x00\xff", "GET\r\n\r\n", "GET /_ping HTTP/9.9\r\n\r\n", "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
		"GET /_ping HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("A: b\r\n", 30_000), "POST /containers/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n"} {
		c, err := net.Dial("unix", e.Socket)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, text)
		c.Close()
	}
	same(t, e, before)
}

type letters struct{}

func (letters) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

// memory is the daemon's peak of resident memory in KiB.
func memory(t testing.TB, e *testengine.Engine) (peak int) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", e.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(status), "\n") {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			fmt.Sscan(rest, &peak)
		}
	}
	return peak
}

// TestVanishingClients: whoever follows something and goes away, or half away, is forgotten.
func TestVanishingClients(t *testing.T) {
	e := testengine.Start(t)
	e.Busybox(t)
	id := strings.TrimSpace(e.Run(t, "run", "-d", "-i", "busybox", "sh", "-c", "while :; do echo line; sleep 0.01; done"))
	tty := strings.TrimSpace(e.Run(t, "run", "-d", "-it", "busybox", "sh"))
	created := strings.TrimSpace(e.Run(t, "create", "-i", "busybox", "cat"))
	const upgrade = "Host: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
	exec := func(of string) string {
		var made struct{ ID string }
		_, body := call(t, e, "POST", "/containers/"+of+"/exec", "application/json", `{"Cmd":["sleep","0.2"],"AttachStdin":true,"AttachStdout":true}`)
		if err := json.Unmarshal([]byte(body), &made); err != nil {
			t.Fatal(body, err)
		}
		return made.ID
	}
	each := func() []string {
		return []string{
			"GET /containers/" + id + "/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: x\r\n\r\n",
			"GET /events HTTP/1.1\r\nHost: x\r\n\r\n",
			"POST /containers/" + id + "/wait HTTP/1.1\r\nHost: x\r\n\r\n",
			"POST /containers/" + created + "/wait?condition=next-exit HTTP/1.1\r\nHost: x\r\n\r\n",
			"POST /containers/" + id + "/attach?stream=1&stdout=1&stdin=1&logs=1 HTTP/1.1\r\n" + upgrade + "\r\n",
			"POST /containers/" + id + "/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n",
			"POST /containers/" + tty + "/attach?stream=1&stdout=1&stdin=1 HTTP/1.1\r\n" + upgrade + "\r\nech",
			"POST /containers/" + created + "/attach?stream=1&stdout=1&stdin=1 HTTP/1.1\r\n" + upgrade + "\r\n",
			"POST /exec/" + exec(id) + "/start HTTP/1.1\r\n" + upgrade + "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
			"POST /images/load HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
			"POST /images/create?fromSrc=- HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhello",
			"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{",
		}
	}
	visit := func(how int) {
		for _, text := range each() {
			c := raw(t, e, text)
			switch how {
			case 0: // gone at once
			case 1: // half closed, then gone after the first answer
				c.CloseWrite()
				c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
				c.Read(make([]byte, 10))
			case 2: // gone after the first answer
				c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
				c.Read(make([]byte, 10))
			}
			c.Close()
		}
	}
	visit(2)
	before := settled(t, e)
	for how := range 3 {
		for range 3 {
			visit(how)
		}
		same(t, e, before)
	}
	if out := e.Run(t, "exec", id, "echo", "well"); out != "well\n" {
		t.Errorf("the container says %q", out)
	}
	for _, c := range []string{id, tty} {
		if got := strings.TrimSpace(e.Run(t, "inspect", "-f", "{{.State.Status}}", c)); got != "running" {
			t.Errorf("%s is %s", c, got)
		}
	}
}

// TestTwoHundredClientsAtOnce: a burst of requests of all kinds is answered and forgotten.
func TestTwoHundredClientsAtOnce(t *testing.T) {
	e := testengine.Start(t)
	e.Busybox(t)
	id := strings.TrimSpace(e.Run(t, "run", "-d", "busybox", "sleep", "1000"))
	before := settled(t, e)
	var wg sync.WaitGroup
	for n := range 200 {
		wg.Go(func() {
			path := []string{"/info", "/version", "/containers/json?all=1", "/images/json", "/containers/" + id + "/json", "/containers/" + id + "/logs?stdout=1", "/containers/" + id + "/top", "/_ping"}[n%8]
			for range 3 {
				if status, body := call(t, e, "GET", path, "", ""); status != 200 {
					t.Errorf("%s: %d %s", path, status, body)
				}
			}
		})
	}
	wg.Wait()
	for range 20 {
		wg.Go(func() { e.Run(t, "run", "--rm", "busybox", "true") })
	}
	wg.Wait()
	same(t, e, before)
}
