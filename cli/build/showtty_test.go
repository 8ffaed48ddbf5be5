package build

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/build/progress"
	"berth/cli/terminal"

	"github.com/creack/pty"
	"github.com/opencontainers/go-digest"
)

// screen is a terminal of a fixed size that keeps all lines that it ever showed.
type screen struct {
	t             *testing.T
	height, width int
	lines         []string
	row, column   int
	colours       int
}

// Write implements io.Writer.
func (s *screen) Write(p []byte) (int, error) {
	text := string(p)
	for len(text) > 0 {
		for len(s.lines) <= s.row {
			s.lines = append(s.lines, "")
		}
		switch {
		case strings.HasPrefix(text, "\x1b["):
			end := 2 + strings.IndexAny(text[2:], "AJKm")
			n, _ := strconv.Atoi(text[2:end])
			switch text[end] {
			case 'A':
				if top := max(len(s.lines)-s.height, 0); s.row-n < top {
					s.t.Errorf("the cursor is moved up out of the screen: %d of row %d, the top is %d", n, s.row, top)
				}
				s.row -= n
			case 'J':
				s.lines = s.lines[:s.row+1]
				fallthrough
			case 'K':
				l := []rune(s.lines[s.row])
				s.lines[s.row] = string(l[:min(s.column, len(l))])
			case 'm':
				s.colours++
			}
			text = text[end+1:]
		case text[0] == '\r':
			s.column, text = 0, text[1:]
		case text[0] == '\n':
			s.row, s.column, text = s.row+1, 0, text[1:] // as terminals do it for programs that know nothing of them
		default:
			n := strings.IndexAny(text, "\r\n\x1b")
			if n < 0 {
				n = len(text)
			}
			l, word := []rune(s.lines[s.row]), []rune(text[:n])
			if s.column+len(word) >= s.width {
				s.t.Errorf("%q does not fit", text[:n])
			}
			s.lines[s.row] = string(l[:min(s.column, len(l))]) + string(word) + string(l[min(s.column+len(word), len(l)):])
			s.column += len(word)
			text = text[n:]
		}
	}
	return len(p), nil
}

func (s *screen) String() string { return strings.Join(s.lines, "\n") }

// onScreen is a live display whose clock stands at ms after the beginning.
func onScreen(t *testing.T, height, width int) (*live, *screen, *time.Time) {
	now := begin
	s := &screen{t: t, height: height, width: width}
	return &live{out: s, colour: true, now: func() time.Time { return now }, size: func() (int, int) { return height, width }}, s, &now
}

func TestLive(t *testing.T) {
	l, s, now := onScreen(t, 24, 60)
	all := failing()
	for _, one := range all[:10] {
		l.Show(one)
	}
	*now = *at(1500)
	l.draw(false)
	want := `[+] Building 1.5s (2/5)
 => [internal] load build context                      0.0s
 => CACHED [a 1/3] FROM busybox                        0.0s
 => [a 2/3] RUN make             (file main.c changed) 1.4s
 => => # compiling
 => => # linking
 => [b 2/3] RUN check                                  1.3s
 => => # a test
`
	if got := s.String(); got != want {
		t.Errorf("got\n%s\nwanted\n%s", got, want)
	}
	for _, one := range all[10:] {
		l.Show(one)
	}
	*now = *at(12_600)
	l.End()
	want = `[+] Building 12.6s (4/5)
 => [internal] load build context                      0.0s
 => => transferring context: 1.23kB                    0.0s
 => CACHED [a 1/3] FROM busybox                        0.0s
 => [a 2/3] RUN make             (file main.c changed) 1.2s
 => ERROR [b 2/3] RUN check                           12.3s
 => => # a test
 => => # it failed
------
 > [b 2/3] RUN check:
0.050 a test
11.80 it failed
------
Dockerfile:7
--------------------
   6 |     FROM busybox AS b
   7 | >>> RUN check
--------------------
what to do

 1 warning found (berth build --check shows the lines):
 - MaintainerDeprecated: use a label (line 2)
`
	if got := s.String(); strings.TrimSpace(got) != strings.TrimSpace(want) {
		t.Errorf("got\n%q\nwanted\n%q", got, want)
	}
	if s.colours == 0 {
		t.Error("there is no colour")
	}
}

// many is a build of n steps at work, after n that are done, each of which has said something.
func many(n int) (all []*progress.Status) {
	for k := range 2 * n {
		v := &progress.Vertex{Digest: digest.Digest(fmt.Sprint(k)), Name: fmt.Sprintf("[stage %2d/%d] RUN a command that is rather long, number %d", k+1, 2*n, k), Started: at(k)}
		if k < n {
			v.Completed, v.Cached = at(k+1), k%2 == 0
		}
		all = append(all, vertexes(v), says(v.Digest, k, fmt.Sprintf("%d says something that is not short either\n", k)))
	}
	return all
}

// TestLiveFits draws builds of any size on terminals of any size: no line is too long and no picture too high, which the screen checks.
func TestLiveFits(t *testing.T) {
	for _, n := range []int{1, 3, 30} {
		for _, height := range []int{1, 2, 3, 5, 10, 50} {
			for _, width := range []int{5, 20, 80} {
				l, s, _ := onScreen(t, height, width)
				io.WriteString(s, "$\r\n")
				for _, one := range many(n) {
					l.Show(one)
				}
				if rows := len(strings.Split(strings.TrimSuffix(s.String(), "\n"), "\n")); rows-1 > max(height-1, 1) {
					t.Errorf("%d steps on %d lines: %d rows", n, height, rows)
				}
				if s.lines[0] != "$" {
					t.Errorf("what was there before is gone: %q", s.lines[0])
				}
				if t.Failed() {
					t.Fatalf("%d steps on %dx%d:\n%s", n, height, width, s)
				}
			}
		}
	}
	l, s, _ := onScreen(t, 10, 70)
	for _, one := range many(6) {
		l.Show(one)
	}
	if got := s.String(); !strings.Contains(got, " => 6 done before, 3 of them CACHED") {
		t.Errorf("nothing is folded:\n%s", got)
	}
}

// TestLiveSurvivesNarrowing makes the terminal narrower: it breaks the lines that are there, and the next picture begins where the first of them is.
func TestLiveSurvivesNarrowing(t *testing.T) {
	l, s, _ := onScreen(t, 40, 80)
	io.WriteString(s, "$\r\n")
	for _, one := range failing()[:10] {
		l.Show(one)
	}
	var broken []string
	for _, line := range s.lines[:len(s.lines)-1] {
		for len(line) > 30 {
			broken, line = append(broken, line[:30]), line[30:]
		}
		broken = append(broken, line)
	}
	s.lines, s.row, s.width = append(broken, ""), len(broken), 30
	l.size = func() (int, int) { return 40, 30 }
	l.draw(false)
	if got := s.String(); strings.Count(got, "[+] Building") != 1 || !strings.HasPrefix(got, "$\n[+]") || strings.Count(got, "RUN make") != 1 {
		t.Errorf("%s", got)
	}
}

// TestLiveOnATerminal takes a real one: the size is asked for anew, and the picture is whole at the end.
func TestLiveOnATerminal(t *testing.T) {
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	if err := pty.Setsize(slave, &pty.Winsize{Rows: 20, Cols: 50}); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 10_000)
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(lines)
		for read := bufio.NewScanner(master); read.Scan(); {
			lines <- read.Text()
		}
	})
	l := newDisplay("tty", slave, true).(*live)
	if h, w := terminal.Size(slave); h != 20 || w != 50 {
		t.Fatalf("%dx%d", h, w)
	}
	for k, one := range failing() {
		l.Show(one)
		if k == 8 {
			if err := pty.Setsize(slave, &pty.Winsize{Rows: 10, Cols: 40}); err != nil {
				t.Fatal(err)
			}
		}
	}
	l.End()
	fmt.Fprintln(slave, "END")
	slave.Close()
	all := ""
	for line := range lines {
		all += line + "\n"
		if line = strings.TrimSuffix(line, "\r"); line == "END" {
			break
		}
	}
	last := all[strings.LastIndex(all, "[+] Building"):]
	if !strings.Contains(last, "ERROR [b 2/3] RUN check") || !strings.Contains(last, "what to do") {
		t.Errorf("%q", last)
	}
	for _, bad := range []string{"\x1b[?25l", "\x1b[?7l", "\x1b[?1049h"} {
		if strings.Contains(all, bad) {
			t.Errorf("the terminal's state is changed: %q", bad)
		}
	}
	master.Close()
	reading.Wait()
}
