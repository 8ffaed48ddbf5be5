package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"berth/cli/session"
)

// container makes the fake run one container: serve is its process, given its
// connection once the container was started; what it returns is the exit code.
func (f *fake) container(frames bool, serve func(conn net.Conn, in io.Reader) int) {
	started, ended := make(chan struct{}), make(chan int, 8)
	var once sync.Once
	f.on("POST /containers/"+fakeID+"/start", func(w http.ResponseWriter, _ *http.Request) {
		once.Do(func() { close(started) })
		w.WriteHeader(204)
	})
	f.on("POST /containers/"+fakeID+"/attach", hijack(frames, func(conn net.Conn, in io.Reader) {
		<-started
		ended <- serve(conn, in)
	}))
	f.on("POST /containers/"+fakeID+"/wait", func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		select {
		case code := <-ended:
			fmt.Fprintf(w, `{"StatusCode":%d}`, code)
		case <-r.Context().Done():
		}
	})
}

func TestRunForeground(t *testing.T) {
	f := newFake(t)
	f.container(true, func(conn net.Conn, in io.Reader) int {
		conn.Write(frame(1, "out\n"))
		conn.Write(frame(2, "err\n"))
		return 7
	})
	got := f.berth("run", "--rm", "busybox", "x")
	if want := (ran{7, "out\n", "err\n"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	all := f.take()
	if len(all) != 4 {
		t.Fatalf("%d requests, want create, attach, wait and start: %v", len(all), all)
	}
	if all[0].path != "/containers/create" || !strings.HasSuffix(all[3].path, "/start") {
		t.Errorf("the order is %v; create must be first and start last", all)
	}
	for _, a := range all[1:3] {
		switch {
		case strings.HasSuffix(a.path, "/attach"):
			if q := a.query.Encode(); q != "stderr=1&stdout=1&stream=1" {
				t.Errorf("attach?%s", q)
			}
		case strings.HasSuffix(a.path, "/wait"):
			if q := a.query.Encode(); q != "condition=removed" {
				t.Errorf("wait?%s", q)
			}
		default:
			t.Errorf("unexpected %v before the start", a)
		}
	}
}

func TestRunGivesInputAndItsEnd(t *testing.T) {
	f := newFake(t)
	f.container(true, func(conn net.Conn, in io.Reader) int {
		b, err := io.ReadAll(in)
		conn.Write(frame(1, fmt.Sprintf("%q %v", b, err)))
		return 0
	})
	if got, want := f.berthIn("hello", "run", "-i", "busybox"), (ran{0, `"hello" <nil>`, ""}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestRunOutputAfterAReset(t *testing.T) {
	f := newFake(t)
	f.container(true, func(conn net.Conn, in io.Reader) int {
		conn.Write(frame(1, "all"))
		conn.Write(frame(3, "the engine broke"))
		return 0
	})
	got := f.berth("run", "busybox")
	if got.code != 125 || got.out != "all" || !strings.Contains(got.err, "the engine broke") {
		t.Errorf("got %+v", got)
	}
}

func TestRunDetached(t *testing.T) {
	f := newFake(t)
	cid := filepath.Join(t.TempDir(), "cid")
	got := f.berth("run", "-d", "--name", "x", "--cidfile", cid, "busybox")
	if want := (ran{0, fakeID + "\n", ""}); got != want {
		t.Errorf("got %+v", got)
	}
	if b, err := os.ReadFile(cid); err != nil || string(b) != fakeID {
		t.Errorf("the ID's file has %q, %v", b, err)
	}
	if l := f.lines(); l != "POST /containers/create\nPOST /containers/ID/start" {
		t.Errorf("requests:\n%s", l)
	}
	got = f.berth("run", "-d", "--cidfile", cid, "busybox")
	if got.code != 125 || !strings.Contains(got.err, "container ID file found") || len(f.take()) != 0 {
		t.Errorf("got %+v", got)
	}
}

// missing makes create say that the image isn't there until it was pulled.
func missing(f *fake, pulled *int) {
	create := f.answers["POST /containers/create"].(http.HandlerFunc)
	f.on("POST /containers/create", func(w http.ResponseWriter, r *http.Request) {
		if *pulled == 0 {
			w.WriteHeader(404)
			io.WriteString(w, `{"message":"No such image: busybox:latest"}`)
			return
		}
		create(w, r)
	})
	f.on("POST /images/create", func(w http.ResponseWriter, r *http.Request) {
		*pulled++
		io.WriteString(w, `{"status":"Pulling from library/busybox","id":"latest"}`+"\n"+`{"status":"Downloading","progressDetail":{"current":1,"total":2},"id":"abc"}`+"\n"+`{"status":"Pull complete","progressDetail":{},"id":"abc"}`+"\n"+`{"status":"Status: Downloaded newer image for busybox:latest"}`+"\n")
	})
}

func TestRunPulls(t *testing.T) {
	f := newFake(t)
	pulled := 0
	missing(f, &pulled)
	got := f.berth("run", "-d", "busybox")
	want := ran{0, fakeID + "\n", "Unable to find image 'busybox:latest' locally\nlatest: Pulling from library/busybox\nabc: Pull complete\nStatus: Downloaded newer image for busybox:latest\n"}
	if got != want {
		t.Errorf("got %+v", got)
	}
	for _, a := range f.take() {
		if a.path == "/images/create" && a.query.Encode() != "fromImage=docker.io%2Flibrary%2Fbusybox&tag=latest" {
			t.Errorf("pull asked %s", a.query.Encode())
		}
	}

	pulled = 0
	if got := f.berth("run", "-d", "--pull", "never", "busybox"); got.code != 125 || !strings.Contains(got.err, "No such image: busybox:latest") || pulled != 0 {
		t.Errorf("never: got %+v, pulled %d times", got, pulled)
	}
	if got := f.berth("run", "-d", "--pull", "always", "-q", "busybox"); got != (ran{0, fakeID + "\n", ""}) || pulled != 1 {
		t.Errorf("always: got %+v, pulled %d times", got, pulled)
	}
	f.on("POST /images/create", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `{"errorDetail":{"message":"toomanyrequests: slow down"},"error":"toomanyrequests: slow down"}`)
	})
	if got := f.berth("run", "-d", "--pull", "always", "busybox"); got.code != 125 || !strings.Contains(got.err, "toomanyrequests: slow down") {
		t.Errorf("failing pull: got %+v", got)
	}
}

func TestRunThatDoesNotStart(t *testing.T) {
	for text, code := range map[string]int{
		`OCI runtime create failed: exec: "nope": executable file not found in $PATH`: 127,
		`exec: "/x": stat /x: no such file or directory`:                              127,
		`exec: "/etc/passwd": permission denied`:                                      126,
		`exec: "/etc": is a directory`:                                                126,
		`the disk is full`:                                                            125,
	} {
		f := newFake(t)
		f.container(true, func(net.Conn, io.Reader) int { return 0 })
		f.on("POST /containers/"+fakeID+"/start", refusal{400, text})
		f.on("DELETE /containers/"+fakeID, reply(204))
		for _, args := range [][]string{{"run", "--rm", "busybox"}, {"run", "-d", "--rm", "busybox"}} {
			got := f.berth(args...)
			if want := "berth: Error response from daemon: " + text + "\n\nRun 'berth run --help' for more information\n"; got.code != code || got.err != want {
				t.Errorf("%q: got %+v, want code %d", text, got, code)
			}
			if l := f.lines(); !strings.Contains(l, "DELETE /containers/ID") {
				t.Errorf("the container was left behind:\n%s", l)
			}
		}
	}
}

func TestVersionIsAgreedOn(t *testing.T) {
	f := newFake(t)
	f.version = "1.41"
	if got := f.berth("run", "-d", "busybox"); got.code != 0 {
		t.Errorf("got %+v", got)
	}
	f.version = "1.30"
	if got := runMain(map[string]string{"DOCKER_HOST": f.host, "DOCKER_API_VERSION": "1.30"}, nil, "run", "-d", "busybox"); got.code != 0 {
		t.Errorf("got %+v", got)
	}
}

func TestExec(t *testing.T) {
	f := newFake(t)
	f.on("POST /containers/web/exec", map[string]string{"Id": "e1"})
	f.on("GET /exec/e1/json", map[string]any{"ID": "e1", "ExitCode": 5, "Running": false})
	f.on("POST /exec/e1/start", hijack(true, func(conn net.Conn, in io.Reader) {
		b, _ := io.ReadAll(in)
		conn.Write(frame(2, "got "+string(b)))
	}))
	if got, want := f.berthIn("text", "exec", "-i", "-e", "A=b", "-w", "/x", "-u", "1", "web", "cat", "-"), (ran{5, "", "got text"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	all := f.take()
	if len(all) != 3 {
		t.Fatalf("requests: %v", all)
	}
	want := `{"User":"1","AttachStdin":true,"AttachStderr":true,"AttachStdout":true,"Env":["A=b"],"WorkingDir":"/x","Cmd":["cat","-"]}`
	if all[0].body != want {
		t.Errorf("exec sent %s", all[0].body)
	}
	f.on("POST /exec/e1/start", reply(200))
	if got := f.berth("exec", "-d", "web", "x"); got != (ran{0, "", ""}) {
		t.Errorf("detached: got %+v", got)
	}
	f.on("POST /exec/e1/start", refusal{400, `exec: "nope": executable file not found in $PATH`})
	if got := f.berth("exec", "web", "nope"); got.code != 127 {
		t.Errorf("got %+v", got)
	}
}

// onTerminal runs this test's program as the command line on a pseudo-terminal of its own.
func onTerminal(t *testing.T, f *fake, args ...string) (cmd *exec.Cmd, screen, tty *os.File) {
	t.Helper()
	screen, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	if err := pty.Setsize(screen, &pty.Winsize{Rows: 30, Cols: 90}); err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), "BERTH_TEST_MAIN=1", "DOCKER_HOST="+f.host, "DOCKER_CONFIG="+f.config)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// A read of the screen can't be given a deadline: the process's end ends it.
	limit := time.AfterFunc(30*time.Second, func() { cmd.Process.Kill(); tty.Close() })
	t.Cleanup(func() {
		limit.Stop()
		cmd.Process.Kill()
		cmd.Wait()
		tty.Close()
		screen.Close()
	})
	return cmd, screen, tty
}

func TestMain(m *testing.M) {
	if os.Getenv("BERTH_TEST_MAIN") != "" {
		os.Exit(Main(&session.Program{Args: os.Args[1:], In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.LookupEnv}))
	}
	os.Exit(m.Run())
}

// expect reads the screen until it shows text.
func expect(t *testing.T, screen *os.File, text string) string {
	t.Helper()
	var seen strings.Builder
	buf := make([]byte, 4096)
	for !strings.Contains(seen.String(), text) {
		n, err := screen.Read(buf)
		seen.Write(buf[:n])
		if err != nil {
			t.Fatalf("the screen shows %q, then %v; want %q", seen.String(), err, text)
		}
	}
	return seen.String()
}

func TestRunOnATerminal(t *testing.T) {
	f := newFake(t)
	sizes := make(chan string, 16)
	f.on("POST /containers/"+fakeID+"/resize", func(w http.ResponseWriter, r *http.Request) {
		sizes <- r.URL.RawQuery
	})
	f.container(false, func(conn net.Conn, in io.Reader) int {
		io.WriteString(conn, "prompt$ ")
		b := make([]byte, 1)
		for {
			if _, err := io.ReadFull(in, b); err != nil {
				return 1
			}
			fmt.Fprintf(conn, "<%02x>", b)
			if b[0] == 3 {
				return 130
			}
		}
	})
	cmd, screen, _ := onTerminal(t, f, "run", "-it", "--rm", "busybox", "sh")
	expect(t, screen, "prompt$ ")
	if s := <-sizes; s != "h=30&w=90" {
		t.Errorf("the first size was %s", s)
	}
	if err := pty.Setsize(screen, &pty.Winsize{Rows: 40, Cols: 120}); err != nil {
		t.Fatal(err)
	}
	if s := <-sizes; s != "h=40&w=120" {
		t.Errorf("the changed size was %s", s)
	}
	io.WriteString(screen, "a")
	expect(t, screen, "<61>")
	io.WriteString(screen, "\x03") // Ctrl-C is a byte for the container, not a signal for the client
	expect(t, screen, "<03>")
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 130 {
		t.Errorf("the client ended with %v", err)
	}
	var create string
	for _, a := range f.take() {
		if a.path == "/containers/create" {
			create = a.body
		}
	}
	if !strings.Contains(create, `"ConsoleSize":[30,90]`) || !strings.Contains(create, `"StdinOnce":true`) {
		t.Errorf("create sent %s", create)
	}
}

func TestDetachKeysLeaveTheTerminalAsItWas(t *testing.T) {
	f := newFake(t)
	f.container(false, func(conn net.Conn, in io.Reader) int {
		io.WriteString(conn, "ready")
		io.ReadFull(in, make([]byte, 2)) // the keys: the daemon lets the client go, and the container runs on
		conn.Close()
		<-t.Context().Done()
		return 0
	})
	cmd, screen, tty := onTerminal(t, f, "run", "-it", "busybox")
	cooked := func() bool {
		flags, err := exec.Command("stty", "-F", tty.Name(), "-a").Output()
		if err != nil {
			t.Fatal(err)
		}
		return !strings.Contains(string(flags), "-echo ") && !strings.Contains(string(flags), "-icanon")
	}
	expect(t, screen, "ready")
	if cooked() {
		t.Error("the terminal is not in raw mode while the container has it")
	}
	io.WriteString(screen, "\x10\x11")
	expect(t, screen, "read escape sequence")
	if err := cmd.Wait(); err != nil {
		t.Errorf("the client ended with %v", err)
	}
	if !cooked() {
		t.Error("the terminal was left in raw mode")
	}
}

func TestSignalsGoToTheContainer(t *testing.T) {
	f := newFake(t)
	killed := make(chan string, 1)
	f.on("POST /containers/"+fakeID+"/kill", func(w http.ResponseWriter, r *http.Request) {
		killed <- r.URL.Query().Get("signal")
		w.WriteHeader(204)
	})
	f.container(true, func(conn net.Conn, in io.Reader) int {
		conn.Write(frame(1, "up\n"))
		return 128 + map[string]int{"2": 2, "15": 15}[<-killed]
	})
	cmd := exec.Command("/proc/self/exe", "run", "busybox")
	cmd.Env = append(os.Environ(), "BERTH_TEST_MAIN=1", "DOCKER_HOST="+f.host)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if cmd.Wait(); cmd.ProcessState.ExitCode() != 143 {
		t.Errorf("the client ended with %v", cmd.ProcessState)
	}
}

func TestRunNeedsATerminalForOne(t *testing.T) {
	f := newFake(t)
	if got := f.berth("run", "-it", "busybox"); got != (ran{1, "", "the input device is not a TTY\n"}) || len(f.take()) != 0 {
		t.Errorf("got %+v", got)
	}
}

// TestDaemonGoneAndBack breaks the connection of wait, as a restart of the daemon does.
func TestDaemonGoneAndBack(t *testing.T) {
	f := newFake(t)
	f.container(true, func(conn net.Conn, in io.Reader) int { return 0 })
	tries := 0
	f.on("POST /containers/"+fakeID+"/wait", func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		if tries++; tries == 1 {
			conn, _, _ := w.(http.Hijacker).Hijack()
			conn.Close()
			return
		}
		io.WriteString(w, `{"StatusCode":9}`)
	})
	if got := f.berth("run", "busybox"); got.code != 9 {
		t.Errorf("got %+v", got)
	}
	// Removed in the meantime: the events know the code.
	tries = 0
	f.on("POST /containers/"+fakeID+"/wait", func(w http.ResponseWriter, r *http.Request) {
		if tries++; tries == 1 {
			w.(http.Flusher).Flush()
			conn, _, _ := w.(http.Hijacker).Hijack()
			conn.Close()
			return
		}
		w.WriteHeader(404)
		io.WriteString(w, `{"message":"No such container"}`)
	})
	f.on("GET /events", map[string]any{"Type": "container", "Action": "die", "Actor": map[string]any{"ID": fakeID, "Attributes": map[string]string{"exitCode": "11"}}})
	if got := f.berth("run", "--rm", "busybox"); got.code != 11 {
		t.Errorf("got %+v", got)
	}
	f.on("GET /events", json.RawMessage(""))
	tries = 0
	if got := f.berth("run", "--rm", "busybox"); got.code != 125 || !strings.Contains(got.err, "its exit code is not known") {
		t.Errorf("got %+v", got)
	}
}
