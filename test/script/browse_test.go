package script

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"berth/test/testengine"
)

// browser is `image explore` on a terminal.
type browser struct {
	*testing.T
	cmd      *exec.Cmd
	terminal *os.File
	program  *os.File     // the terminal's other end, which outlives the program
	before   unix.Termios // the terminal's mode
	mu       sync.Mutex
	out      bytes.Buffer
	over     chan struct{}
}

func startBrowser(t *testing.T, e *testengine.Engine, image string) *browser {
	t.Helper()
	return startOnTerminal(t, e, "image", "explore", image)
}

// startOnTerminal starts any command.
func startOnTerminal(t *testing.T, e *testengine.Engine, args ...string) *browser {
	t.Helper()
	b := &browser{T: t, over: make(chan struct{}), cmd: e.Command(filepath.Join(testengine.Programs(t), "berth"), args...)}
	var err error
	if b.terminal, b.program, err = pty.Open(); err != nil {
		t.Fatal(err)
	}
	b.resize(24, 80)
	b.before = b.mode()
	b.cmd.Env = append(b.cmd.Environ(), "TERM=xterm")
	b.cmd.Stdin, b.cmd.Stdout, b.cmd.Stderr = b.program, b.program, b.program
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(b.over)
		buf := make([]byte, 64<<10)
		for {
			n, err := b.terminal.Read(buf)
			b.mu.Lock()
			b.out.Write(buf[:n])
			b.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		b.cmd.Process.Kill()
		b.cmd.Wait()
		b.program.Close()
		b.terminal.Close()
		<-b.over
	})
	return b
}

func (b *browser) resize(rows, columns uint16) {
	if err := pty.Setsize(b.terminal, &pty.Winsize{Rows: rows, Cols: columns}); err != nil {
		b.Fatal(err)
	}
}

func (b *browser) mode() unix.Termios {
	t, err := unix.IoctlGetTermios(int(b.program.Fd()), unix.TCGETS)
	if err != nil {
		b.Fatal(err)
	}
	return *t
}

var attributes = regexp.MustCompile("\x1b\\[[0-9;]*m")

// screen is what the terminal shows: the last frame that came whole.
func (b *browser) screen() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := b.out.String()
	end := strings.LastIndex(all, "\x1b[J")
	if end < 0 {
		return all
	}
	text := all[strings.LastIndex(all[:end], "\x1b[H")+3 : end]
	return strings.ReplaceAll(strings.ReplaceAll(attributes.ReplaceAllString(text, ""), "\x1b[K", ""), "\r\n", "\n")
}

// see waits until the screen fits the pattern.
func (b *browser) see(pattern string) {
	b.Helper()
	want := regexp.MustCompile(pattern)
	testengine.Eventually(b.T, 20*time.Second, func() error {
		if s := b.screen(); !want.MatchString(s) {
			return fmt.Errorf("the screen has no %s:\n%s", pattern, s)
		}
		return nil
	})
}

func (b *browser) press(keys string) {
	b.Helper()
	if _, err := b.terminal.WriteString(keys); err != nil {
		b.Fatal(err)
	}
}

// ended waits for the end and wants the terminal as it was.
func (b *browser) ended(code int) {
	b.Helper()
	err := b.cmd.Wait()
	if got := b.cmd.ProcessState.ExitCode(); got != code {
		b.Errorf("exit code %d, not %d: %v\n%s", got, code, err, b.screen())
	}
	if b.mode() != b.before {
		b.Errorf("the terminal's mode was\n%+v, and is\n%+v", b.before, b.mode())
	}
	testengine.Eventually(b.T, 5*time.Second, func() error {
		b.mu.Lock()
		defer b.mu.Unlock()
		if !strings.HasSuffix(b.out.String(), "\x1b[?25h\x1b[?1049l") {
			return errors.New("the screen and the cursor are not given back")
		}
		return nil
	})
}

// TestBrowse drives the browser of images by keys, as a user does.
func TestBrowse(t *testing.T) {
	e := testengine.Start(t)
	e.Busybox(t)
	e.Run(t, "run", "--name", "one", "busybox", "sh", "-c", "mkdir -p /srv/a && head -c 3000000 /dev/zero >/srv/a/big && echo one >/srv/note && printf x >\"$(printf '/srv/\\033[2Jbad')\"")
	e.Run(t, "commit", "-m", "first", "one", "app:1")
	e.Run(t, "run", "--name", "two", "app:1", "sh", "-c", "rm -r /srv/a && echo changed >/srv/note")
	e.Run(t, "commit", "one", "app:1")
	e.Run(t, "commit", "two", "app:2")

	b := startBrowser(t, e, "app:2")
	b.see(`(?m)^ app:2 +[0-9a-f]{12} +linux/amd64 +$`)
	b.see(`3 layers .* hidden 3MB  efficiency [0-9.]+ %`)
	b.see(`layer 0 +\n.*│A .* ▸ bin/`)
	b.press("\x1b[B")
	b.see(`layer 1 +\n`)
	b.see(`│A +3MB +big`)
	b.see(`│A +1B +\?\[2Jbad`)
	b.press("G\t")
	b.see(`│D +3MB +big`)
	b.see(`│C +8B +note`)
	b.press("\x1b[F")
	b.see(`-rw-r--r-- 0:0 /srv/note \(was 4B\)`)
	b.press("m")
	b.see(`layers 0 to 2 +\n.*▸ bin/`)
	b.press("/NOTE\r")
	b.see(`│C +8B +note +\n`)
	b.press("\x1b")
	b.see(`▸ bin/`)
	b.press("?")
	b.see("open and close a directory")
	b.press("\x1bw")
	b.see(`3MB  layer 2   /srv/a`)
	b.press("q")
	b.resize(30, 100)
	b.see(`(?m)^ app:2 {1,}.{90,}$`)
	if lines := strings.Count(b.screen(), "\n"); lines != 29 {
		t.Errorf("%d lines on a terminal of 30", lines+1)
	}
	b.press("q")
	b.ended(0)

	for sig, code := range map[syscall.Signal]int{syscall.SIGTERM: 143, syscall.SIGHUP: 129, syscall.SIGINT: 130} {
		b := startBrowser(t, e, "app:2")
		b.see(`▸ bin/`)
		if err := b.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		b.ended(code)
	}

	b = startBrowser(t, e, "app:2")
	b.see(`▸ bin/`)
	b.press("\x03")
	b.ended(0)

	// What goes away while it is looked at is said, and nothing breaks.
	b = startBrowser(t, e, "app:2")
	b.see(`▸ bin/`)
	e.Run(t, "rm", "-f", "one", "two")
	e.Run(t, "rmi", "-f", "app:2")
	b.press("]")
	b.see("No such image")
	b.press("q")
	b.ended(0)
}
