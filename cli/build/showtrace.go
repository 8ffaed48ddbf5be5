package build

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"berth/build/progress"

	"github.com/opencontainers/go-digest"
)

// trace is what is known of a build.
type trace struct {
	all      map[digest.Digest]*vertex
	begun    []*vertex // in the order in which they began
	warnings []*progress.Warning
	quotes   []*progress.Quote
}

// vertex is one thing that is done.
type vertex struct {
	progress.Vertex
	parts []*progress.Part
	log   tail
	plain plainVertex
}

// canceledWords end the error of what was given up as something else failed.
const canceledWords = "context canceled"

func (v *vertex) done() bool     { return v.Completed != nil }
func (v *vertex) canceled() bool { return strings.HasSuffix(v.Error, canceledWords) }
func (v *vertex) failed() bool   { return v.Error != "" && !v.canceled() }

// spent is how long v took until end, or takes until now.
func (v *vertex) spent(now time.Time) time.Duration {
	switch {
	case v.Started == nil:
		return 0
	case v.Completed != nil:
		now = *v.Completed
	}
	return max(now.Sub(*v.Started), 0)
}

// add takes what is new and calls changed with each vertex that it concerns and that has begun, and what is new of it.
func (t *trace) add(s *progress.Status, changed func(v *vertex, what any)) {
	if t.all == nil {
		t.all = map[digest.Digest]*vertex{}
	}
	for _, n := range s.Vertexes {
		v := t.all[n.Digest]
		if v == nil {
			v = &vertex{}
			t.all[n.Digest] = v
		}
		began := v.Started == nil && n.Started != nil
		if v.Started != nil && n.Started == nil {
			continue // told again by one who doesn't know
		}
		v.Vertex = *n
		if began {
			t.begun = append(t.begun, v)
		}
		if v.done() {
			v.log.finish()
		}
		if v.Started != nil {
			changed(v, n)
		}
	}
	for _, p := range s.Statuses {
		if v := t.all[p.Vertex]; v != nil {
			v.setPart(p)
			changed(v, p)
		}
	}
	for _, l := range s.Logs {
		if v := t.all[l.Vertex]; v != nil {
			at := time.Duration(0)
			if v.Started != nil {
				at = l.Timestamp.Sub(*v.Started)
			}
			v.log.add(l.Data, at)
			changed(v, l)
		}
	}
	for _, w := range s.Warnings {
		t.warnings = append(t.warnings, w)
		if v := t.all[w.Vertex]; v != nil {
			changed(v, w)
		}
	}
	t.quotes = append(t.quotes, s.Quotes...)
}

func (v *vertex) setPart(p *progress.Part) {
	for k, old := range v.parts {
		if old.ID == p.ID {
			v.parts[k] = p
			return
		}
	}
	v.parts = append(v.parts, p)
}

// amount is how much of a part is done, with a space before it; "" when nothing is known.
func amount(p *progress.Part) string {
	switch {
	case p.Total != 0:
		return " " + bytesText(p.Current) + " / " + bytesText(p.Total)
	case p.Current != 0:
		return " " + bytesText(p.Current)
	}
	return ""
}

// bytesText is a size with two decimals, in decimal units.
func bytesText(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%dB", n)
	}
	f, unit := float64(n), 0
	for f >= 1000 && unit < 5 {
		f, unit = f/1000, unit+1
	}
	return fmt.Sprintf("%.2f%cB", f, " kMGTP"[unit])
}

// seconds are a time within a vertex: the longer, the coarser.
func seconds(d time.Duration) string {
	s := d.Seconds()
	switch {
	case s < 10:
		return fmt.Sprintf("%.3f", s)
	case s < 100:
		return fmt.Sprintf("%.2f", s)
	}
	return fmt.Sprintf("%.1f", s)
}

// maxTail is how many lines of output are kept for what failed, and maxLine how many bytes of one.
const (
	maxTail = 20
	maxLine = 4 << 10
)

// tail is the last lines of a program's output, as they look on a terminal: escape sequences left out, and what a carriage return overwrites.
type tail struct {
	lines []line
	open  []byte // of the line that has no end yet
	at    time.Duration
	state escapeState
	back  bool // a carriage return came: what follows begins the line anew
	count int  // of all lines ever
}

// line is one line and when it came.
type line struct {
	text string
	at   time.Duration
}

func (l line) String() string { return seconds(l.at) + " " + l.text }

// escapeState is where in an escape sequence a text is (ECMA-48).
type escapeState byte

// The states: in plain text, after ESC, in a control sequence, in a string that BEL or ESC \ ends, and after an ESC in that.
const (
	plainText escapeState = iota
	escaped
	control
	command
	commandEscaped
)

// add takes output that came at a time since the vertex began.
func (t *tail) add(data []byte, at time.Duration) {
	for _, b := range data {
		if t.state != plainText {
			t.state = t.state.next(b)
			continue
		}
		switch {
		case b == '\n':
			t.end(at)
			continue
		case b == '\r':
			t.back = true
			continue
		case b == 0x1b:
			t.state = escaped
			continue
		case b == '\b':
			if _, n := utf8.DecodeLastRune(t.open); n > 0 {
				t.open = t.open[:len(t.open)-n]
			}
			continue
		case b == '\t':
			b = ' '
		case b < 0x20 || b == 0x7f:
			continue
		}
		if t.back {
			t.open, t.back = t.open[:0], false
		}
		if len(t.open) == 0 {
			t.at = at
		}
		if len(t.open) < maxLine {
			t.open = append(t.open, b)
		}
	}
}

// next is the state after one more byte.
func (s escapeState) next(b byte) escapeState {
	switch s {
	case escaped:
		switch {
		case b == '[':
			return control
		case b == ']' || b == 'P' || b == 'X' || b == '^' || b == '_':
			return command
		case b >= 0x20 && b <= 0x2f: // an intermediate byte: more follows
			return escaped
		}
		return plainText
	case control:
		if b >= 0x40 && b <= 0x7e {
			return plainText
		}
		return control
	case command:
		switch b {
		case 7:
			return plainText
		case 0x1b:
			return commandEscaped
		}
		return command
	case commandEscaped:
		if b == '\\' {
			return plainText
		}
		return command
	}
	return plainText
}

func (t *tail) end(at time.Duration) {
	if len(t.open) == 0 {
		t.at = at
	}
	t.lines = append(t.lines, line{visible(t.open), t.at})
	if len(t.lines) > maxTail {
		t.lines = t.lines[len(t.lines)-maxTail:]
	}
	t.open, t.back, t.count = t.open[:0], false, t.count+1
}

// finish ends a line that never got its end.
func (t *tail) finish() {
	if len(t.open) > 0 {
		t.end(t.at)
	}
}

// last gives the newest lines, the open one with them.
func (t *tail) last(n int) (all []string) {
	for _, l := range t.lines {
		all = append(all, l.text)
	}
	if len(t.open) > 0 {
		all = append(all, visible(t.open))
	}
	return all[max(len(all)-n, 0):]
}

// visible leaves out what a terminal could take for a command: bytes that are no UTF-8, and the control characters above ASCII.
func visible(b []byte) string {
	return strings.Map(func(r rune) rune {
		if r >= 0x80 && r <= 0x9f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(string(b), "\uFFFD"))
}
