package shim

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"berth/fault"
	"berth/kernel"
	"berth/oci"
)

func pair(t testing.TB) (a, b *os.File) {
	t.Helper()
	a, b, err := kernel.SocketPair("test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestMessageCarriesFiles(t *testing.T) {
	a, b := pair(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	zero, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	defer zero.Close()
	env := strings.Repeat("x", 1<<20) // more than a socket takes at once
	r := &Request{NetNS: null, Bundle: oci.Bundle{ID: "x", User: env}, Attach: []Attachment{{Conn: zero, Stdin: true}, {Conn: null, Buffered: []byte{0, 255}}}}
	sent := make(chan error, 1)
	go func() {
		m := &call{Number: 7, Op: opStart, Start: r}
		m.collect()
		sent <- sendCall(a, m)
	}()
	m, err := receiveCall(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	got := m.Start
	if m.Number != 7 || got.Bundle.User != env || !got.Attach[0].Stdin || string(got.Attach[1].Buffered) != "\x00\xff" {
		t.Errorf("message %d of %d attachments", m.Number, len(got.Attach))
	}
	var buf [1]byte
	if n, _ := got.NetNS.Read(buf[:]); n != 0 {
		t.Error("the network namespace is another file")
	}
	if n, _ := got.Attach[0].Conn.Read(buf[:]); n != 1 {
		t.Error("the first connection is another file")
	}
	if n, _ := got.Attach[1].Conn.Read(buf[:]); n != 0 {
		t.Error("the second connection is another file")
	}
	kernel.CloseAll([]*os.File{got.NetNS, got.Attach[0].Conn, got.Attach[1].Conn})
}

func TestErrorsTravel(t *testing.T) {
	for _, err := range []error{
		nil,
		errors.New("plain"),
		fault.New(fault.Conflict, "taken"),
		&oci.StartError{Code: 127, Err: errors.New(`exec: "x": executable file not found in $PATH`)},
		&oci.StartError{Code: 126, Err: fault.New(fault.Denied, "no")},
	} {
		data := encode(&answer{Error: toWire(err)})
		var m answer
		if merr := json.Unmarshal(data, &m); merr != nil {
			t.Fatal(merr)
		}
		got := m.Error.error()
		if err == nil {
			if got != nil {
				t.Errorf("nil became %v", got)
			}
			continue
		}
		var want, have *oci.StartError
		if got == nil || got.Error() != err.Error() || fault.Of(got) != fault.Of(err) || errors.As(err, &want) != errors.As(got, &have) {
			t.Errorf("%v became %v", err, got)
		}
		if want != nil && want.Code != have.Code {
			t.Errorf("code %d became %d", want.Code, have.Code)
		}
	}
}

// frame makes the bytes of a message.
func frame(version, files byte, body string) []byte {
	b := []byte{'b', version, files, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint32(b[4:], uint32(len(body)))
	return append(b, body...)
}

func TestBrokenMessages(t *testing.T) {
	long := frame(protocol, 0, "{}")
	binary.BigEndian.PutUint32(long[4:], maxBody+1)
	for _, c := range []struct {
		name  string
		bytes []byte
		want  error
	}{
		{"nothing", nil, io.EOF},
		{"half a header", frame(protocol, 0, "")[:4], io.ErrUnexpectedEOF},
		{"half a body", frame(protocol, 0, `{"op":"state"}`)[:12], io.ErrUnexpectedEOF},
		{"another protocol", []byte("GET / HTTP/1.1\r\n"), fault.Corrupt},
		{"a later version", frame(protocol+1, 0, "{}"), fault.Unsupported},
		{"no JSON", frame(protocol, 0, "{"), fault.Corrupt},
		{"too long", long, fault.Corrupt},
		{"files that did not come", frame(protocol, 1, "{}"), fault.Corrupt},
		{"files that are missing", frame(protocol, 0, `{"start":{"bundle":{},"attach":[{}]}}`), fault.Invalid},
		{"a namespace for nothing", frame(protocol, 0, `{"netns":true}`), fault.Invalid},
	} {
		a, b := pair(t)
		if _, err := a.Write(c.bytes); err != nil && len(c.bytes) > 0 {
			t.Fatal(err)
		}
		a.Close()
		if m, err := receiveCall(b); !errors.Is(err, c.want) {
			t.Errorf("%s: %+v, %v", c.name, m, err)
		}
	}
}

// TestRefusedFilesAreClosed: nobody knows what they are for, so nobody may keep them.
func TestRefusedFilesAreClosed(t *testing.T) {
	a, b := pair(t)
	mine, its := pair(t)
	if err := kernel.SendFiles(a, frame(protocol, 1, `{"op":"state"}`), []*os.File{its}); err != nil {
		t.Fatal(err)
	}
	its.Close()
	if m, err := receiveCall(b); !errors.Is(err, fault.Invalid) {
		t.Fatalf("%+v, %v", m, err)
	}
	mine.SetReadDeadline(time.Now().Add(limit))
	if _, err := mine.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the file is still open: %v", err)
	}
}

func FuzzReceive(f *testing.F) {
	f.Add(frame(protocol, 0, `{"n":1,"op":"signal","signal":15}`))
	f.Add(frame(protocol, 0, `{"start":{"bundle":{"spec":{"process":{"args":["x"]}}},"attach":[{"stdin":true}]}}`))
	f.Add(append(frame(protocol, 0, `{}`), frame(protocol, 3, `{"attach":{}}`)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, b := pair(t)
		go func() {
			a.Write(data)
			a.Close()
		}()
		for {
			m, err := receiveCall(b)
			if err != nil {
				return
			}
			if m.files != nil {
				t.Error("files are left over")
			}
			for _, at := range m.attachments() {
				if at.Conn == nil {
					t.Error("an attachment without its connection")
				}
			}
		}
	})
}

func FuzzProcessStatus(f *testing.F) {
	f.Add([]byte("14 (berth-shim) S 6 14 14 0 -1 4194304 705 0 0 0 1 2 3 4 20 0 5 0 12345 1 2 3\n"))
	f.Add([]byte("1 (a) b) (c) R 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 99 1\n"))
	f.Add([]byte(")"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if start, state, err := parseStat(data); err != nil && (start != 0 || state != 0) {
			t.Errorf("%d %c with %v", start, state, err)
		}
	})
}

func TestProcessStatus(t *testing.T) {
	start, state, err := parseStat([]byte("14 (a) R 1 (b) S 6 14 14 0 -1 4194304 705 0 0 0 1 2 3 4 20 0 5 0 12345 1 2 3\n"))
	if start != 12345 || state != 'S' || err != nil {
		t.Errorf("%d %c %v", start, state, err)
	}
	self, err := identify(os.Getpid())
	if err != nil || !self.alive() || self.Start == 0 {
		t.Errorf("self: %+v, %v", self, err)
	}
	self.Start++
	if self.alive() {
		t.Error("another process with this number is taken for it")
	}
}
