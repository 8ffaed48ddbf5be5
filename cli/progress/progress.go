// Package progress shows the messages of an engine's long work as people know them.
//
// It knows no command and no request. Invariant: a line on a terminal is never longer than the terminal is wide, as it could not be rewritten.
package progress

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"berth/cli/format"
	"berth/cli/terminal"
	"berth/client"

	"github.com/moby/moby/api/types/jsonstream"
	"golang.org/x/term"
)

// View shows the messages of a daemon's long work: on a terminal one line
// for each id, rewritten in place, else one line for each message.
type View struct {
	out      io.Writer
	terminal bool
	width    int
	lines    map[string]int // an id's line, counted from the first
	started  map[string]time.Time
	now      func() time.Time
}

// New makes a view on out.
func New(out io.Writer) *View {
	v := &View{out: out, lines: map[string]int{}, started: map[string]time.Time{}, now: time.Now, width: 200}
	if terminal.Is(out) {
		v.terminal = true
		if w, _, err := term.GetSize(int(terminal.File(out).Fd())); err == nil && w > 0 {
			v.width = w
		}
	}
	return v
}

// Show prints all messages until the stream ends, and hands those with out-of-band data to aux.
func (v *View) Show(p *client.Progress, aux func(jsonstream.Message)) error {
	defer p.Close()
	for {
		m, err := p.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if m.Aux != nil {
			if aux != nil {
				aux(m)
			}
			continue
		}
		if _, err := io.WriteString(v.out, v.render(m)); err != nil {
			return err
		}
	}
}

// render gives the bytes to print for one message.
func (v *View) render(m jsonstream.Message) string {
	if !v.terminal && m.Progress != nil && (m.Progress.Current != 0 || m.Progress.Total != 0) {
		return ""
	}
	if m.Stream != "" {
		return m.Stream
	}
	text := m.Status
	if m.ID != "" {
		text = m.ID + ": " + text
	}
	if !v.terminal {
		return text + "\n"
	}
	if bar := v.bar(m); bar != "" {
		text += " " + bar
	}
	// A bar is only as good as it keeps to one line: a wrapped one couldn't be rewritten.
	if r := []rune(text); len(r) >= v.width {
		text = string(r[:max(v.width-1, 1)])
	}
	if m.ID == "" || m.Progress == nil {
		// Lines of their own end the block: further ids begin below.
		if _, known := v.lines[m.ID]; !known {
			if m.ID == "" {
				clear(v.lines)
			} else {
				v.lines[m.ID] = len(v.lines)
			}
			return "\x1b[2K" + text + "\r\n"
		}
	}
	line, known := v.lines[m.ID]
	if !known {
		v.lines[m.ID] = len(v.lines)
		return "\x1b[2K" + text + "\r\n"
	}
	up := len(v.lines) - line
	return fmt.Sprintf("\x1b[%dA\x1b[2K\r%s\r\x1b[%dB", up, text, up)
}

// bar draws how far a work is, with the bytes and, where there is room, the time that is left.
func (v *View) bar(m jsonstream.Message) string {
	p := m.Progress
	if p == nil || p.Current <= 0 && p.Total <= 0 {
		return ""
	}
	count := func(n int64) string {
		if p.Units != "" && p.Units != "bytes" {
			return fmt.Sprintf("%d %s", n, p.Units)
		}
		return format.FineSize(n)
	}
	if p.Total <= 0 || p.Current > p.Total {
		return fmt.Sprintf("%8v", count(p.Current))
	}
	var b strings.Builder
	if v.width > 110 {
		done := int(float64(p.Current) / float64(p.Total) * 50)
		fmt.Fprintf(&b, "[%s>%s] ", strings.Repeat("=", done), strings.Repeat(" ", max(50-done, 0)))
	}
	if !p.HideCounts {
		fmt.Fprintf(&b, "%8v/%v", count(p.Current), count(p.Total))
	}
	return b.String() + v.left(m.ID+m.Status, p)
}

// left guesses how long the rest takes.
func (v *View) left(key string, p *jsonstream.Progress) string {
	if v.width <= 50 || p.Current <= 0 || p.Current >= p.Total {
		return ""
	}
	began, known := v.started[key]
	if !known {
		v.started[key] = v.now()
		return ""
	}
	spent := v.now().Sub(began)
	left := time.Duration(float64(spent) / float64(p.Current) * float64(p.Total-p.Current)).Round(time.Second)
	if spent < time.Second || left <= 0 {
		return ""
	}
	return "  " + left.String()
}
