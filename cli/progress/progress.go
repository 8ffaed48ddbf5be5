// Package progress shows the messages of an engine's long work as people know them.
//
// It knows no command and no request. Invariant: a line on a terminal is never longer than the terminal is wide and
// the lines that are rewritten never more than it is high, as they could not be rewritten.
package progress

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"berth/cli/format"
	"berth/cli/terminal"
	"berth/client"

	"github.com/moby/moby/api/types/jsonstream"
)

// View shows messages: on a terminal one line for each id, rewritten in place, else one line for each message.
type View struct {
	// Kept is said when the user gives up: what is left for the next try.
	Kept string
	// Raw: a stream's text is a program's own output, and is shown as it is.
	Raw bool

	out      io.Writer
	terminal bool
	block    block
	size     func() (height, width int)
	meters   map[string]*meter
	pauses   map[string]time.Duration // by id, what is left of a wait
	now      func() time.Time
}

// New makes a view on out.
func New(out io.Writer) *View {
	return &View{
		out: out, terminal: terminal.Is(out), meters: map[string]*meter{}, now: time.Now,
		size: func() (height, width int) { return terminal.Size(out) },
	}
}

// Show prints all messages until the stream ends, and hands those with out-of-band data to aux.
// A signal that asks the program to end closes the stream, which ends the work; it comes back as *terminal.Interrupt.
func (v *View) Show(p *client.Progress, aux func(jsonstream.Message)) error {
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGINT, syscall.SIGTERM)
	ended := make(chan error, 1)
	go func() { ended <- v.all(p, aux) }()
	select {
	case err := <-ended:
		signal.Stop(caught)
		return errors.Join(err, p.Close())
	case sig := <-caught:
		signal.Stop(caught) // the next one ends this process at once
		p.Stop()
		<-ended
		p.Close() // the connection is gone
		if v.terminal {
			io.WriteString(v.out, "\r\n") // below the ^C
		}
		return &terminal.Interrupt{Signal: sig, Note: v.Kept}
	}
}

func (v *View) all(p *client.Progress, aux func(jsonstream.Message)) error {
	for {
		m, err := p.Next()
		if err != nil {
			if _, writeErr := io.WriteString(v.out, v.block.end()); writeErr != nil {
				return writeErr
			}
			if errors.Is(err, io.EOF) {
				return nil
			}
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
	if m.Stream != "" && v.Raw {
		return v.block.end() + m.Stream
	}
	if m.Stream != "" {
		return v.block.end() + format.Printable(m.Stream)
	}
	text := m.Status
	if m.ID != "" {
		text = m.ID + ": " + text
	}
	text = strings.ReplaceAll(format.Printable(text), "\n", " ")
	if !v.terminal {
		if v.countsDown(m) {
			return ""
		}
		return text + "\n"
	}
	height, width := v.size()
	if height <= 0 || width <= 0 {
		height, width = 24, 80
	}
	if bar := v.bar(m, width); bar != "" {
		text += " " + bar
	}
	text = format.Ellipsis(text, max(width-1, 1))
	if m.ID == "" {
		return v.block.end() + "\x1b[2K" + text + "\r\n"
	}
	return v.block.set(line{m.ID, text, finished(m)}, max(height-2, 1))
}

// countsDown tells a message that only says how much shorter a wait has become: without a terminal the first one is enough.
func (v *View) countsDown(m jsonstream.Message) bool {
	rest, ok := strings.CutPrefix(m.Status, "Retrying in ")
	text, _, _ := strings.Cut(rest, ":")
	pause, err := time.ParseDuration(text)
	if !ok || err != nil {
		return false
	}
	before := v.pauses[m.ID]
	if v.pauses == nil {
		v.pauses = map[string]time.Duration{}
	}
	v.pauses[m.ID] = pause
	return pause < before
}

// finished tells whether a message is the last one about its id.
func finished(m jsonstream.Message) bool {
	if p := m.Progress; p == nil {
		return true // it is about no work of its own
	} else if p.Current != 0 || p.Total != 0 {
		return false
	}
	switch m.Status {
	case "Pull complete", "Already exists", "Pushed", "Layer already exists", "Skipped", "Skipped foreign layer", "Loaded", "Complete":
		return true
	}
	return strings.HasPrefix(m.Status, "Mounted from ")
}

// bar draws how far a work is, with the bytes and, where there is room, how fast it goes and the time that is left.
func (v *View) bar(m jsonstream.Message, width int) string {
	p := m.Progress
	if p == nil || p.Current <= 0 && p.Total <= 0 {
		return ""
	}
	bytes := p.Units == "" || p.Units == "bytes"
	count := func(n int64) string {
		if !bytes {
			return fmt.Sprintf("%d %s", n, p.Units)
		}
		return format.FineSize(n)
	}
	key := m.ID + m.Status
	w := v.meters[key]
	if w == nil {
		w = &meter{began: sample{v.now(), p.Current}}
		v.meters[key] = w
	}
	w.pass(sample{v.now(), p.Current})
	speed := ""
	if rate := w.rate(); bytes && rate > 0 {
		speed = "  " + format.Size(rate) + "/s"
	}
	if p.Total <= 0 || p.Current > p.Total {
		return fmt.Sprintf("%8v", count(p.Current)) + speed
	}
	var b strings.Builder
	if width > 110 {
		done := int(float64(p.Current) / float64(p.Total) * 50)
		fmt.Fprintf(&b, "[%s>%s] ", strings.Repeat("=", done), strings.Repeat(" ", max(50-done, 0)))
	}
	if !p.HideCounts {
		fmt.Fprintf(&b, "%8v/%v", count(p.Current), count(p.Total))
	}
	if width <= 50 || p.Current <= 0 || p.Current >= p.Total {
		return b.String()
	}
	return b.String() + speed + w.left(p.Total)
}

// sample is how much was done at a moment.
type sample struct {
	at    time.Time
	bytes int64
}

// meter tells how fast a work goes.
type meter struct {
	began       sample
	older, old  sample // two moments of the past, at least a second apart
	last        sample
	overMoments bool // older and old are set
}

// pass takes note of how much is done.
func (m *meter) pass(s sample) {
	if m.old.at.IsZero() {
		m.old = m.began
	}
	if s.at.Sub(m.old.at) >= 2*time.Second {
		m.older, m.old, m.overMoments = m.old, s, true
	}
	m.last = s
}

// rate is bytes per second over the last seconds; 0 while that is a guess.
func (m *meter) rate() int64 {
	from := m.began
	if m.overMoments {
		from = m.older
	}
	spent := m.last.at.Sub(from.at)
	if spent < time.Second {
		return 0
	}
	return int64(float64(m.last.bytes-from.bytes) / spent.Seconds())
}

// left guesses how long the rest takes, from how long it all took up to now.
func (m *meter) left(total int64) string {
	spent := m.last.at.Sub(m.began.at)
	done := m.last.bytes - m.began.bytes
	if spent < time.Second || done <= 0 {
		return ""
	}
	left := time.Duration(float64(spent) / float64(done) * float64(total-m.last.bytes)).Round(time.Second)
	if left <= 0 {
		return ""
	}
	return "  " + left.String()
}
