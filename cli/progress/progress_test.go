package progress

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/jsonstream"
)

// screen is a terminal of some lines: what has left it at the top can't be changed any more.
type screen struct {
	t      *testing.T
	height int
	lines  []string // all ever, the last height of them on the screen
	row    int      // of the cursor, among all
	column int
}

func (s *screen) top() int { return max(len(s.lines)-s.height, 0) }

func (s *screen) print(text string) {
	for i := 0; i < len(text); {
		for len(s.lines) <= s.row {
			s.lines = append(s.lines, "")
		}
		switch {
		case strings.HasPrefix(text[i:], "\x1b["):
			end := i + strings.IndexAny(text[i:], "ABJK")
			n, _ := strconv.Atoi(text[i+2 : end])
			switch text[end] {
			case 'A':
				if s.row-n < s.top() {
					s.t.Errorf("the cursor is moved up out of the screen: %d from row %d, the top is %d", n, s.row, s.top())
				}
				s.row = max(s.row-n, s.top())
			case 'B':
				s.row = min(s.row+n, len(s.lines)-1)
			case 'J':
				s.lines = append(s.lines[:s.row], "")
			case 'K':
				s.lines[s.row] = ""
			}
			i = end + 1
		case text[i] == '\r':
			s.column = 0
			i++
		case text[i] == '\n':
			if s.row++; s.row == len(s.lines) {
				s.lines = append(s.lines, "")
			}
			i++
		default:
			n := strings.IndexAny(text[i:], "\r\n\x1b")
			if n < 0 {
				n = len(text) - i
			}
			word := text[i : i+n]
			rest := ""
			if s.column+len(word) < len(s.lines[s.row]) {
				rest = s.lines[s.row][s.column+len(word):]
			}
			s.lines[s.row] = s.lines[s.row][:s.column] + word + rest
			s.column += len(word)
			i += n
		}
	}
}

func (s *screen) all() []string {
	return slices.DeleteFunc(slices.Clone(s.lines), func(l string) bool { return l == "" })
}

func onScreen(t *testing.T, height, width int) (*View, *screen, *time.Time) {
	now := time.Unix(1000, 0)
	s := &screen{t: t, height: height}
	return &View{terminal: true, meters: map[string]*meter{}, now: func() time.Time { return now }, size: func() (int, int) { return height, width }}, s, &now
}

func status(id, text string) jsonstream.Message {
	return jsonstream.Message{ID: id, Status: text, Progress: &jsonstream.Progress{}}
}

func TestLinesAreRewrittenInPlace(t *testing.T) {
	v, s, now := onScreen(t, 24, 120)
	for _, m := range []jsonstream.Message{
		{ID: "latest", Status: "Pulling from library/x"}, status("aaa", "Pulling fs layer"), status("bbb", "Pulling fs layer"),
		{ID: "aaa", Status: "Downloading", Progress: &jsonstream.Progress{Current: 1_000_000, Total: 4_000_000}},
	} {
		s.print(v.render(m))
	}
	*now = now.Add(2 * time.Second)
	s.print(v.render(jsonstream.Message{ID: "aaa", Status: "Downloading", Progress: &jsonstream.Progress{Current: 2_000_000, Total: 4_000_000}}))
	want := []string{"latest: Pulling from library/x", "aaa: Downloading [=========================>                         ]      2MB/4MB  500kB/s  4s", "bbb: Pulling fs layer"}
	if got := s.all(); !slices.Equal(got, want) {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
	s.print(v.render(status("aaa", "Pull complete")))
	s.print(v.render(status("bbb", "Retrying in 12 seconds")))
	s.print(v.render(jsonstream.Message{Status: "Digest: sha256:x"}))
	s.print(v.render(status("aaa", "Another block")))
	want = []string{"latest: Pulling from library/x", "aaa: Pull complete", "bbb: Retrying in 12 seconds", "Digest: sha256:x", "aaa: Another block"}
	if got := s.all(); !slices.Equal(got, want) {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
}

// TestMoreLayersThanLines shows that each layer is seen, and nothing off the screen is touched.
func TestMoreLayersThanLines(t *testing.T) {
	for _, height := range []int{3, 5, 8, 60} {
		v, s, _ := onScreen(t, height, 40)
		s.print("$ berth pull x\r\n")
		s.print(v.render(jsonstream.Message{ID: "latest", Status: "Pulling from x"}))
		const layers = 40
		id := func(i int) string { return fmt.Sprintf("layer%02d", i) }
		for i := range layers {
			s.print(v.render(status(id(i), "Pulling fs layer")))
		}
		if on := s.row - s.top(); on >= height {
			t.Errorf("the cursor is at row %d of %d", on, height)
		}
		for _, i := range []int{3, 1, 0, 2, 39, 17} {
			s.print(v.render(jsonstream.Message{ID: id(i), Status: "Downloading", Progress: &jsonstream.Progress{Current: 5, Total: 10}}))
			s.print(v.render(status(id(i), "Pull complete")))
		}
		for i := range layers {
			s.print(v.render(status(id(i), "Pull complete")))
		}
		s.print(v.render(jsonstream.Message{Status: "Status: done"}))
		got := s.all()
		if len(got) != layers+3 || got[0] != "$ berth pull x" || got[len(got)-1] != "Status: done" {
			t.Errorf("height %d: %d lines:\n%s", height, len(got), strings.Join(got, "\n"))
		}
		for i := range layers {
			if !slices.Contains(got, id(i)+": Pull complete") {
				t.Errorf("height %d: %s is missing:\n%s", height, id(i), strings.Join(got, "\n"))
			}
		}
	}
}

func TestLinesAreHarmlessAndFit(t *testing.T) {
	v, _, _ := onScreen(t, 24, 20)
	if got := v.render(jsonstream.Message{Status: "a\x1b]0;title\x07\u009b2Jb and much more text"}); got != "\x1b[2Ka?]0;title??2Jb an…\r\n" {
		t.Errorf("got %q", got)
	}
	if got := v.render(jsonstream.Message{Status: "層を読み込んでいます"}); got != "\x1b[2K層を読み込んでいま…\r\n" {
		t.Errorf("characters of two columns: %q", got)
	}
	plain := &View{}
	if got := plain.render(jsonstream.Message{ID: "a", Status: "b\x1b[2J"}); got != "a: b?[2J\n" {
		t.Errorf("got %q", got)
	}
	if got := plain.render(jsonstream.Message{ID: "a", Status: "Downloading", Progress: &jsonstream.Progress{Current: 1, Total: 2}}); got != "" {
		t.Errorf("without a terminal: %q", got)
	}
}

func TestWaitsAreSaidOnceWithoutATerminal(t *testing.T) {
	v := &View{}
	got := ""
	for _, text := range []string{"Retrying in 3s: too many", "Retrying in 2s: too many", "Retrying in 1s: too many", "Retrying in 6s: too many", "Retrying in 5s: too many", "Retrying in 5 seconds", "Retrying in 4 seconds"} {
		got += v.render(jsonstream.Message{ID: "host", Status: text})
	}
	if want := "host: Retrying in 3s: too many\nhost: Retrying in 6s: too many\nhost: Retrying in 5 seconds\nhost: Retrying in 4 seconds\n"; got != want {
		t.Errorf("got %q", got)
	}
}

// TestRateIsThatOfTheLastSeconds stops a fast download: its rate falls, though the whole was fast.
func TestRateIsThatOfTheLastSeconds(t *testing.T) {
	now := time.Unix(0, 0)
	m := &meter{began: sample{now, 0}}
	bytes := int64(0)
	for range 100 {
		now = now.Add(100 * time.Millisecond)
		bytes += 1_000_000
		m.pass(sample{now, bytes})
	}
	if r := m.rate(); r < 9_000_000 || r > 11_000_000 {
		t.Errorf("10 MB each second: %d", r)
	}
	for range 60 {
		now = now.Add(100 * time.Millisecond)
		bytes += 1_000
		m.pass(sample{now, bytes})
	}
	if r := m.rate(); r > 20_000 {
		t.Errorf("10 kB each second: %d", r)
	}
}
