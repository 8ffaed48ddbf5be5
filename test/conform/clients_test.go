package conform

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"berth/test/testengine"
)

// head sends a request and reads the answer's head alone; its body is read from r.
func head(t *testing.T, e *testengine.Engine, method, path string, header ...string) (response *http.Response, r *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("unix", e.Socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	request, err := http.NewRequestWithContext(context.Background(), method, "http://x"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	if err := request.Write(conn); err != nil {
		t.Fatal(err)
	}
	r = bufio.NewReader(conn)
	if response, err = http.ReadResponse(r, request); err != nil {
		t.Fatalf("%s %s: no head: %v", method, path, err)
	}
	return response, r
}

// TestHeadsComeBeforeData asks for streams that have nothing to say yet.
func TestHeadsComeBeforeData(t *testing.T) {
	e := testengine.Start(t)
	e.Busybox(t)
	e.Run(t, "run", "-d", "--name", "quiet", "busybox", "sleep", "1000")
	for _, c := range []struct{ method, path string }{
		{"GET", "/containers/quiet/logs?follow=1&stdout=1"}, {"POST", "/containers/quiet/wait"}, {"GET", "/events"},
		{"POST", "/containers/quiet/attach?stream=1&stdout=1"}, {"GET", "/containers/quiet/stats"},
	} {
		if response, _ := head(t, e, c.method, c.path); response.StatusCode != 200 {
			t.Errorf("%s %s: %s", c.method, c.path, response.Status)
		}
	}
}

// TestStreamTypes: what a stream says that it is, by API version, terminal, and way to ask.
func TestStreamTypes(t *testing.T) {
	const raw, frames = "application/vnd.docker.raw-stream", "application/vnd.docker.multiplexed-stream"
	e := testengine.Start(t)
	e.Busybox(t)
	e.Run(t, "run", "-d", "--name", "plain", "busybox", "sleep", "1000")
	e.Run(t, "run", "-d", "-t", "--name", "tty", "busybox", "sleep", "1000")
	upgrade := []string{"Connection", "Upgrade", "Upgrade", "tcp"}
	for _, c := range []struct {
		path   string
		header []string
		status int
		kind   string
	}{
		{"/v1.42/containers/plain/logs?stdout=1", nil, 200, frames},
		{"/v1.41/containers/plain/logs?stdout=1", nil, 200, raw},
		{"/v1.42/containers/tty/logs?stdout=1", nil, 200, raw},
		{"/v1.42/containers/plain/attach?stream=1&stdout=1", upgrade, 101, frames},
		{"/v1.41/containers/plain/attach?stream=1&stdout=1", upgrade, 101, raw},
		{"/v1.42/containers/tty/attach?stream=1&stdout=1", upgrade, 101, raw},
		{"/v1.42/containers/plain/attach?stream=1&stdout=1", nil, 200, raw},
	} {
		method := "GET"
		if strings.Contains(c.path, "attach") {
			method = "POST"
		}
		response, _ := head(t, e, method, c.path, c.header...)
		if got := response.Header.Get("Content-Type"); response.StatusCode != c.status || got != c.kind {
			t.Errorf("%s %v: %s, %q", c.path, c.header, response.Status, got)
		}
	}
}

// TestAttachAfterTheEnd asks with logs=1 and stream=0 for what a container wrote that has ended.
func TestAttachAfterTheEnd(t *testing.T) {
	e := testengine.Start(t)
	e.Busybox(t)
	e.Run(t, "run", "--name", "done", "busybox", "sh", "-c", "echo one; echo two")
	response, r := head(t, e, "POST", "/containers/done/attach?logs=1&stream=0&stdout=1&stderr=1")
	data, err := io.ReadAll(r)
	if want := "\x01\x00\x00\x00\x00\x00\x00\x04one\n\x01\x00\x00\x00\x00\x00\x00\x04two\n"; response.StatusCode != 200 || err != nil || string(data) != want {
		t.Errorf("%s: %q, %v, want %q", response.Status, data, err, want)
	}
}

// TestWrongDetachKeysAreRefused before the connection becomes a stream.
func TestWrongDetachKeysAreRefused(t *testing.T) {
	e := testengine.Start(t)
	e.Busybox(t)
	e.Run(t, "run", "-d", "--name", "quiet", "busybox", "sleep", "1000")
	response, body := ask(t, e, "POST", "/containers/quiet/attach?stream=1&stdin=1&detachKeys=ctrl-nonsense", "")
	if response.StatusCode != 400 || !strings.Contains(body, "ctrl-nonsense") {
		t.Errorf("%s %s", response.Status, body)
	}
}
