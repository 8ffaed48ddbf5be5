package shim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"berth/fault"
	"berth/kernel"
)

// frames takes Docker's frames apart: all text by stream.
func frames(t *testing.T, data string) map[byte]string {
	t.Helper()
	got := map[byte]string{}
	for b := []byte(data); len(b) > 0; {
		if len(b) < 8 || b[1]|b[2]|b[3] != 0 {
			t.Fatalf("broken frame % x", b)
		}
		n := int(binary.BigEndian.Uint32(b[4:]))
		got[b[0]] += string(b[8 : 8+n])
		b = b[8+n:]
	}
	return got
}

func TestAttachFramesAndRaw(t *testing.T) {
	l := launcher(t, 1)
	r := request(t, "/bin/sh", "-c", "echo out; echo err >&2; read x; echo got $x; cat >&2")
	r.OpenStdin, r.StdinOnce = true, true
	a, framed := peerOf(t, Attachment{Stdin: true, Stdout: true, Stderr: true, Frames: true, Buffered: []byte("fo")})
	b, raw := peerOf(t, Attachment{Stdout: true})
	c, errs := peerOf(t, Attachment{Stderr: true})
	r.Attach = []Attachment{a, b, c}
	s := start(t, l, r)
	write(t, framed, "ur\nrest")
	if err := kernel.CloseWrite(framed); err != nil {
		t.Fatal(err)
	}
	got := frames(t, readToEnd(t, framed))
	if got[1] != "out\ngot four\n" || got[2] != "err\nrest" {
		t.Errorf("framed client got %q", got)
	}
	if got := readToEnd(t, raw); got != "out\ngot four\n" {
		t.Errorf("raw client got %q", got)
	}
	if got := readToEnd(t, errs); got != "err\nrest" {
		t.Errorf("stderr client got %q", got)
	}
	if exit := wait(t, s); exit.Code != 0 {
		t.Errorf("exit %+v", exit)
	}
}

// TestStdinStaysOpen is OpenStdin without StdinOnce: the end of a client's input ends the client.
func TestStdinStaysOpen(t *testing.T) {
	l := launcher(t, 1)
	ctx := deadline(t)
	r := request(t, "/bin/sh", "-c", "while read x; do echo got $x; done; echo end")
	r.OpenStdin = true
	s := start(t, l, r)
	for _, word := range []string{"one", "two"} {
		a, client := peerOf(t, Attachment{Stdin: true, Stdout: true})
		if err := s.Attach(ctx, a); err != nil {
			t.Fatal(err)
		}
		write(t, client, word+"\n")
		readUntil(t, client, "got "+word+"\n")
		kernel.CloseWrite(client)
		if got := readToEnd(t, client); got != "" {
			t.Errorf("after its end the client got %q", got)
		}
	}
}

// TestListenerHalfCloses is what docker attach without stdin does: its sending side is closed at once.
func TestListenerHalfCloses(t *testing.T) {
	l := launcher(t, 1)
	r := request(t, "/bin/sh", "-c", "read x; echo $x")
	r.OpenStdin, r.StdinOnce = true, true
	a, listener := peerOf(t, Attachment{Stdout: true})
	b, typist := peerOf(t, Attachment{Stdin: true})
	r.Attach = []Attachment{a, b}
	kernel.CloseWrite(listener)
	start(t, l, r)
	write(t, typist, "hello\n")
	if got := readToEnd(t, listener); got != "hello\n" {
		t.Errorf("got %q", got)
	}
}

func TestReplayHasNoGap(t *testing.T) {
	l := launcher(t, 1)
	ctx := deadline(t)
	const lines = 30_000
	r := request(t, "/bin/sh", "-c", fmt.Sprintf("seq %d; printf unfinished; read x", lines))
	r.OpenStdin, r.StdinOnce = true, true
	s := start(t, l, r)
	var clients []*os.File
	for range 10 {
		a, client := peerOf(t, Attachment{Stdout: true, Stderr: true, Frames: true, Logs: true})
		if err := s.Attach(ctx, a); err != nil {
			t.Fatal(err)
		}
		clients = append(clients, client)
	}
	results := make(chan string)
	for _, c := range clients {
		go func() {
			data, _ := io.ReadAll(c)
			results <- string(data)
		}()
	}
	var want strings.Builder
	for i := range lines {
		fmt.Fprintln(&want, i+1)
	}
	want.WriteString("unfinished")
	eventually(t, "the flood's end", func() bool {
		info, err := os.Stat(r.Log.Path)
		return err == nil && info.Size() > lines*60
	})
	late, client := peerOf(t, Attachment{Stdout: true, Logs: true, NoStream: true})
	if err := s.Attach(ctx, late); err != nil {
		t.Fatal(err)
	}
	if got := readToEnd(t, client); !strings.HasPrefix(want.String(), got) || len(got) < 100_000 {
		t.Errorf("replay alone has %d bytes", len(got))
	}
	typist, keyboard := peerOf(t, Attachment{Stdin: true})
	if err := s.Attach(ctx, typist); err != nil {
		t.Fatal(err)
	}
	write(t, keyboard, "\n")
	for range clients {
		if got := frames(t, <-results); got[1] != want.String() {
			t.Errorf("client got %d bytes, %d are right", len(got[1]), want.Len())
		}
	}
}

// TestPushBack has a client that doesn't read: the container waits for it, and doesn't once it is gone.
func TestPushBack(t *testing.T) {
	l := launcher(t, 1)
	r := request(t, "/bin/sh", "-c", "yes | head -c 20000000; echo >&2 done")
	r.Log = Log{Driver: LogNone}
	a, slow := peerOf(t, Attachment{Stdout: true})
	b, other := peerOf(t, Attachment{Stderr: true})
	r.Attach = []Attachment{a, b}
	s := start(t, l, r)
	other.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if n, err := other.Read(make([]byte, 10)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the container was not held up: %d, %v", n, err)
	}
	other.SetReadDeadline(time.Now().Add(limit))
	n, err := io.Copy(io.Discard, io.LimitReader(slow, 10_000_000))
	if err != nil || n != 10_000_000 {
		t.Fatalf("%d, %v", n, err)
	}
	slow.Close()
	readUntil(t, other, "done")
	if exit := wait(t, s); exit.Code != 0 {
		t.Errorf("exit %+v", exit)
	}
}

// TestSlowClientLosesNothing: the news of the exit doesn't wait forever, the output does.
func TestSlowClientLosesNothing(t *testing.T) {
	l := launcher(t, 1)
	r := request(t, "/bin/seq", "1000")
	a, slow := peerOf(t, Attachment{Stdout: true})
	filled := fill(t, a.Conn)
	r.Attach = []Attachment{a}
	s := start(t, l, r)
	if exit := wait(t, s); exit.Code != 0 {
		t.Errorf("exit %+v", exit)
	}
	got := readToEnd(t, slow)
	if got = got[filled:]; !strings.HasPrefix(got, "1\n2\n") || !strings.HasSuffix(got, "\n1000\n") {
		t.Errorf("got %q", got)
	}
	<-s.Done()
	if n := len(logLines(t, r.Log.Path)); n != 1000 {
		t.Errorf("%d lines are logged", n)
	}
}

// fill writes to a socket that nobody reads until it takes no more, and tells how much it took.
func fill(t *testing.T, s *os.File) (bytes int) {
	t.Helper()
	s.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	defer s.SetWriteDeadline(time.Time{})
	for {
		n, err := s.Write(make([]byte, 512))
		bytes += n
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return bytes
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestDetachKeys(t *testing.T) {
	l := launcher(t, 1)
	ctx := deadline(t)
	r := request(t, "/bin/sh", "-c", "while read x; do echo got $x; done")
	r.OpenStdin, r.StdinOnce = true, true
	keys := []byte{16, 17}
	a, client := peerOf(t, Attachment{Stdin: true, Stdout: true, DetachKeys: keys})
	r.Attach = []Attachment{a}
	s := start(t, l, r)
	write(t, client, "a\x10b\n")
	readUntil(t, client, "got a\x10b\n")
	write(t, client, "\x10")
	write(t, client, "\x11")
	if got := readToEnd(t, client); got != "" {
		t.Errorf("detached client got %q", got)
	}
	b, again := peerOf(t, Attachment{Stdin: true, Stdout: true})
	if err := s.Attach(ctx, b); err != nil {
		t.Fatal(err)
	}
	write(t, again, "there\n")
	readUntil(t, again, "got there\n")
}

// TestClientsComeAndGo leaves no descriptor behind in the supervisor, though the container is silent.
func TestClientsComeAndGo(t *testing.T) {
	l := launcher(t, 1)
	ctx := deadline(t)
	r := request(t, "/bin/sleep", "1000")
	r.OpenStdin = true
	s := start(t, l, r)
	fds := func() int {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.state.Shim))
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	before := fds()
	for i := range 50 {
		a, client := peerOf(t, Attachment{Stdin: i%2 == 0, Stdout: true})
		if err := s.Attach(ctx, a); err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 {
			kernel.CloseWrite(client)
		}
		client.Close()
	}
	eventually(t, "all clients gone", func() bool { return fds() <= before })
}

// TestAttachFails checks that what was handed over is closed either way.
func TestAttachFails(t *testing.T) {
	l := launcher(t, 1)
	s := start(t, l, request(t, "/bin/true"))
	wait(t, s)
	<-s.Done()
	a, client := peerOf(t, Attachment{Stdout: true})
	if err := s.Attach(deadline(t), a); !errors.Is(err, fault.Conflict) {
		t.Errorf("attach to an ended container: %v", err)
	}
	if got := readToEnd(t, client); got != "" {
		t.Errorf("got %q", got)
	}
}

func TestTerminal(t *testing.T) {
	l := launcher(t, 1)
	ctx := deadline(t)
	r := request(t, "/bin/sh", "-c", "stty size; trap 'stty size' WINCH; while :; do read x; echo got $x; done")
	r.Terminal, r.OpenStdin, r.StdinOnce = true, true, true
	r.Size = ConsoleSize{Height: 33, Width: 77}
	a, client := peerOf(t, Attachment{Stdin: true, Stdout: true, DetachKeys: []byte{16, 17}})
	r.Attach = []Attachment{a}
	s := start(t, l, r)
	readUntil(t, client, "33 77\r\n")
	write(t, client, "hello\n")
	readUntil(t, client, "got hello\r\n") // after the echo of what was typed
	if err := s.Resize(ctx, ConsoleSize{Height: 20, Width: 40}); err != nil {
		t.Fatal(err)
	}
	write(t, client, "\n") // ash runs its trap between two commands
	readUntil(t, client, "20 40\r\n")
	write(t, client, "\x10\x11")
	readToEnd(t, client)

	b, again := peerOf(t, Attachment{Stdin: true, Stdout: true, Logs: true})
	if err := s.Attach(ctx, b); err != nil {
		t.Fatal(err)
	}
	readUntil(t, again, "20 40\r\n")
	write(t, again, "\x03") // interrupts the foreground
	if exit := wait(t, s); exit.Code != 130 {
		t.Errorf("exit %+v", exit)
	}
	log := logLines(t, r.Log.Path)
	if !strings.Contains(log[0], `{"log":"33 77\r\n","stream":"stdout"`) {
		t.Errorf("log %q", log)
	}
}

// TestTerminalLastWords: what is written just before the end arrives.
func TestTerminalLastWords(t *testing.T) {
	l := launcher(t, 2)
	for range 10 {
		r := request(t, "/bin/seq", "500")
		r.Terminal = true
		a, client := peerOf(t, Attachment{Stdout: true})
		r.Attach = []Attachment{a}
		s := start(t, l, r)
		if got := readToEnd(t, client); !strings.HasSuffix(got, "\r\n500\r\n") || !strings.HasPrefix(got, "1\r\n2\r\n") {
			t.Errorf("got %q", got[max(0, len(got)-50):])
		}
		wait(t, s)
	}
}

// TestResizeWithoutTerminal does nothing: clients ask for it without looking.
func TestResizeWithoutTerminal(t *testing.T) {
	l := launcher(t, 1)
	s := start(t, l, request(t, "/bin/sleep", "1000"))
	if err := s.Resize(deadline(t), ConsoleSize{Height: 1, Width: 1}); err != nil {
		t.Errorf("resize: %v", err)
	}
}

// TestProgramsFilesBlock checks that the container's ends of its pipes are ordinary, blocking ones.
func TestProgramsFilesBlock(t *testing.T) {
	l := launcher(t, 1)
	r := request(t, "/bin/sh", "-c", "for i in 0 1 2; do sed -n 2p /proc/$$/fdinfo/$i; done; ls -l /proc/$$/fd")
	r.OpenStdin, r.StdinOnce = true, true
	a, client := peerOf(t, Attachment{Stdout: true})
	r.Attach = []Attachment{a}
	start(t, l, r)
	got := readToEnd(t, client)
	const nonblock = 0o4000
	flags, links := 0, 0
	for line := range strings.Lines(got) {
		var n int
		if _, err := fmt.Sscanf(line, "flags: %o", &n); err == nil {
			flags++
			if n&nonblock != 0 {
				t.Errorf("a file does not block: %s", line)
			}
		}
		links += strings.Count(line, "->")
	}
	if flags != 3 || links != 3 {
		t.Errorf("the program's files:\n%s", got)
	}
}
