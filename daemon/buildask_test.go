package daemon

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"berth/build/protocol"
	"berth/engine/builds"
	"berth/fault"
)

// questioner is a server that knows nothing but how questions are answered.
func questioner(t *testing.T) (*answers, string) {
	t.Helper()
	b := builder{answers: &answers{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /build/answers/{id}", func(w http.ResponseWriter, r *http.Request) {
		tr := &tracked{ResponseWriter: w}
		if err := b.answer(tr, r); err != nil && !tr.started {
			writeError(tr, err)
		}
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return b.answers, s.URL
}

// asking asks in the background, and gives the question's id and how it went.
func asking(ctx context.Context, a *answers) (id string, done chan answer) {
	r, w := io.Pipe()
	done = make(chan answer, 1)
	go func() {
		out := &messages{lines: newLines(&recorded{w: w, h: http.Header{}}), gone: func() {}}
		conn, err := a.ask(ctx, out, protocol.Ask{What: protocol.Secret, Name: "s"})
		done <- answer{conn, err}
	}()
	line := make([]byte, 1024)
	n, _ := r.Read(line) // what is wrong with it shows below
	_, rest, _ := strings.Cut(string(line[:n]), `"id":"`)
	id, _, _ = strings.Cut(rest, `"`)
	return id, done
}

// recorded is an answer that is read while it is written.
type recorded struct {
	w io.Writer
	h http.Header
}

func (r *recorded) Header() http.Header         { return r.h }
func (r *recorded) Write(p []byte) (int, error) { return r.w.Write(p) }
func (r *recorded) WriteHeader(int)             {}
func (r *recorded) Flush()                      {}

func post(t *testing.T, address string) int {
	t.Helper()
	r, err := http.Post(address, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	return r.StatusCode
}

func TestQuestionsAreAnsweredOnce(t *testing.T) {
	a, at := questioner(t)
	id, done := asking(context.Background(), a)
	q := url.Values{"error": {"no such secret"}, "missing": {"1"}}
	if code := post(t, at+"/build/answers/"+id+"?"+q.Encode()); code != http.StatusNoContent {
		t.Error(code)
	}
	if got := <-done; !errors.Is(got.err, fault.NotFound) || !strings.Contains(got.err.Error(), "no such secret") {
		t.Error(got.err)
	}
	if code := post(t, at+"/build/answers/"+id+"?"+q.Encode()); code != http.StatusNotFound {
		t.Errorf("a question was answered twice: %d", code)
	}
	if code := post(t, at+"/build/answers/unknown"); code != http.StatusNotFound {
		t.Error(code)
	}
}

func TestQuestionsEndWithTheirBuild(t *testing.T) {
	a, at := questioner(t)
	ctx, cancel := context.WithCancel(context.Background())
	id, done := asking(ctx, a)
	cancel()
	if got := <-done; !errors.Is(got.err, fault.Canceled) {
		t.Error(got.err)
	}
	if code := post(t, at+"/build/answers/"+id); code != http.StatusNotFound {
		t.Error(code)
	}
}

// TestAnswerAtTheLastMoment answers a question whose build has just ended: the connection is not kept.
func TestAnswerAtTheLastMoment(t *testing.T) {
	a := &answers{waiting: map[string]chan answer{}}
	ctx, cancel := context.WithCancel(context.Background())
	id, done := asking(ctx, a)
	ch := a.take(id)
	cancel()
	conn := &closing{closed: make(chan struct{})}
	ch <- answer{conn: conn}
	if got := <-done; got.err == nil && got.conn != builds.Conn(conn) {
		t.Error(got)
	} else if got.err != nil {
		<-conn.closed
	}
}

type closing struct {
	builds.Conn
	closed chan struct{}
}

func (c *closing) Close() error {
	close(c.closed)
	return nil
}
