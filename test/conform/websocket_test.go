package conform

import (
	"context"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"berth/test/testengine"

	"github.com/coder/websocket"
)

// TestAttachByWebSocket types into a container and reads what it says, raw, and is told of its end.
func TestAttachByWebSocket(t *testing.T) {
	e := testengine.Start(t)
	e.Busybox(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", e.Socket)
	}}}
	dial := func(path string) (*websocket.Conn, *http.Response, error) {
		return websocket.Dial(ctx, "ws://berth"+path, &websocket.DialOptions{HTTPClient: client})
	}
	if _, r, err := dial("/containers/none/attach/ws?stream=1"); err == nil || r.StatusCode != http.StatusNotFound {
		t.Errorf("no such container: %v, %v", r, err)
	}
	for version, kind := range map[string]websocket.MessageType{"/v1.51": websocket.MessageBinary, "/v1.27": websocket.MessageText} {
		id := strings.TrimSpace(e.Run(t, "run", "-d", "-i", "busybox", "sh", "-c", `echo early; while read x; do echo "got $x"; echo "bad $x" >&2; [ "$x" != end ] || exit; done`))
		testengine.Eventually(t, time.Minute, func() error { _, err := e.Try("exec", id, "true"); return err })
		c, _, err := dial(version + "/containers/" + id + "/attach/ws?stream=1&logs=1&stdin=1&stdout=1&stderr=1")
		if err != nil {
			t.Fatal(err)
		}
		defer c.CloseNow()
		var got strings.Builder
		until := func(words string) {
			t.Helper()
			for !strings.Contains(got.String(), words) {
				k, data, err := c.Read(ctx)
				if err != nil || k != kind {
					t.Fatalf("%v, %v after %q", k, err, got.String())
				}
				got.Write(data)
			}
		}
		until("early\n")
		for _, word := range []string{"one", strings.Repeat("x", 3000), "end"} {
			if err := c.Write(ctx, kind, []byte(word+"\n")); err != nil {
				t.Fatal(err)
			}
			until("got " + word + "\n")
			until("bad " + word + "\n")
		}
		if _, _, err := c.Read(ctx); websocket.CloseStatus(err) != websocket.StatusNormalClosure {
			t.Errorf("at the end: %v", err)
		}
	}
}
