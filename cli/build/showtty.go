package build

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"berth/build/progress"
	"berth/cli/format"
)

// live shows a build in place: a line for each thing that is done, below those at work what they say last.
//
// Nothing of the terminal's state is changed but the colour within a line, so that the program may end at any moment.
type live struct {
	out    io.Writer
	size   func() (height, width int)
	colour bool
	now    func() time.Time

	mu     sync.Mutex
	trace  trace
	began  time.Time
	offset time.Duration // of this machine's clock to the daemon's
	drawn  []int         // the width of each row on the screen
	stop   chan struct{}
	ended  sync.WaitGroup
}

// often is how much time lies between two pictures while nothing new comes.
const often = 100 * time.Millisecond

// start keeps the times on the screen going, until End.
func (l *live) start() {
	l.stop = make(chan struct{})
	l.ended.Go(func() {
		tick := time.NewTicker(often)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				l.mu.Lock()
				l.draw(false)
				l.mu.Unlock()
			case <-l.stop:
				return
			}
		}
	})
}

// Show implements display.
func (l *live) Show(s *progress.Status) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trace.add(s, func(v *vertex, _ any) {
		if l.began.IsZero() && v.Started != nil {
			l.began, l.offset = *v.Started, l.now().Sub(*v.Started)
		}
	})
	if l.stop == nil { // nobody else draws
		l.draw(false)
	}
}

// End implements display.
func (l *live) End() {
	if l.stop != nil {
		close(l.stop)
		l.ended.Wait()
	}
	l.draw(true)
	l.trace.failures(l.out)
	l.trace.found(l.out)
}

// draw draws the picture over the one before. The last one stays: it is whole, however long.
func (l *live) draw(last bool) {
	height, width := l.size()
	if height <= 0 || width <= 0 {
		height, width = 24, 80
	}
	if l.began.IsZero() || height < 2 && !last {
		return
	}
	up := 0
	for _, w := range l.drawn { // where the terminal has become narrower, it has broken what was there into several rows
		up += max((w+width-1)/width, 1)
	}
	var b strings.Builder
	if up = min(up, height-1); up > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", up)
	}
	b.WriteString("\r")
	l.drawn = l.drawn[:0]
	for _, r := range l.picture(height, width, last) {
		text := r.text(width)
		l.drawn = append(l.drawn, format.Width(text))
		if code := r.kind.colour(); l.colour && code != "" {
			text = "\x1b[" + code + "m" + text + "\x1b[0m"
		}
		b.WriteString(text + "\x1b[K\r\n")
	}
	b.WriteString("\x1b[J")
	io.WriteString(l.out, b.String())
}

// row is one line of a picture.
type row struct {
	kind  kind
	left  string
	right string // at the other end of the line; it goes first where there is no room for both
}

// kind says how a row looks.
type kind byte

const (
	usual kind = iota
	finished
	failed
	canceled
	said
)

// colour is the terminal's own name of it (ECMA-48, select graphic rendition).
func (k kind) colour() string {
	switch k {
	case finished:
		return "34"
	case failed:
		return "31"
	case canceled:
		return "33"
	case said:
		return "2"
	}
	return ""
}

// text is the row in at most width-1 columns: a full line would move the cursor of some terminals.
func (r row) text(width int) string {
	room := width - 1
	if room <= 0 {
		return ""
	}
	gap := room - format.Width(r.right)
	if r.right == "" || gap < 12 {
		return format.Ellipsis(r.left, room)
	}
	left := format.Ellipsis(r.left, gap-1)
	return left + strings.Repeat(" ", max(gap-format.Width(left), 1)) + r.right
}

// picture is what is seen now.
func (l *live) picture(height, width int, last bool) []row {
	now := l.now()
	done, total := 0, 0
	for _, v := range l.trace.all {
		total++
		if v.done() {
			done++
		}
	}
	head := fmt.Sprintf("[+] Building %.1fs (%d/%d)", now.Sub(l.began.Add(l.offset)).Seconds(), done, total)
	if last && done == total {
		head += " FINISHED"
	}
	rows := []row{{left: head}}
	if last {
		return append(rows, l.whole(now)...)
	}
	return append(rows, l.fitting(now, height-2)...)
}

// whole is all that was done.
func (l *live) whole(now time.Time) (all []row) {
	for _, v := range l.trace.begun {
		all = append(all, l.step(v, now))
		all = append(all, l.parts(v, now)...)
		if v.failed() || !v.done() {
			for _, text := range v.log.last(5) {
				all = append(all, row{kind: said, left: " => => # " + text})
			}
		}
	}
	return all
}

// fitting is what fits into room lines: what is at work first, with the last that it says, then what has ended last. What has ended before is folded
// into one line.
func (l *live) fitting(now time.Time, room int) (all []row) {
	var over, working []*vertex
	for _, v := range l.trace.begun {
		if v.done() {
			over = append(over, v)
		} else {
			working = append(working, v)
		}
	}
	if room <= 0 {
		return nil
	}
	if hidden := len(working) - room; hidden > 0 {
		for _, v := range working[:room-1] {
			all = append(all, l.step(v, now))
		}
		return append(all, row{left: fmt.Sprintf(" => and %d more at work", hidden+1)})
	}
	free := room - len(working)
	fold := min(1, len(over), free) // a line for what has ended
	free -= fold
	below := map[*vertex][]row{}
	for _, v := range working { // the figures of what is fetched count as what a program says
		rows := l.parts(v, now)
		n := min(len(rows), free)
		below[v] = rows[len(rows)-n:]
		free -= n
	}
	for k, v := range working {
		n := min(5, free/(len(working)-k))
		for _, text := range v.log.last(n) {
			below[v] = append(below[v], row{kind: said, left: " => => # " + text})
			free--
		}
	}
	free += fold
	shown := over
	if len(over) > free {
		if free == 0 {
			shown = nil
		} else {
			shown = over[len(over)-free+1:]
			all = append(all, folded(over[:len(over)-free+1]))
		}
	}
	keep := map[*vertex]bool{}
	for _, v := range shown {
		keep[v] = true
	}
	for _, v := range l.trace.begun {
		if !v.done() || keep[v] {
			all = append(all, l.step(v, now))
			all = append(all, below[v]...)
		}
	}
	return all
}

func folded(list []*vertex) row {
	cached := 0
	for _, v := range list {
		if v.Cached {
			cached++
		}
	}
	r := row{kind: finished, left: fmt.Sprintf(" => %d done before", len(list))}
	if cached > 0 {
		r.left += fmt.Sprintf(", %d of them CACHED", cached)
	}
	return r
}

// step is the line of a vertex.
func (l *live) step(v *vertex, now time.Time) row {
	spent := v.spent(now.Add(-l.offset))
	if spent < 50*time.Millisecond {
		spent = 0
	}
	r := row{left: v.Name, right: fmt.Sprintf("%.1fs", spent.Seconds())}
	if v.done() {
		r.kind = finished
	}
	switch {
	case v.canceled():
		r.kind, r.left = canceled, "CANCELED "+r.left
	case v.failed():
		r.kind, r.left = failed, "ERROR "+r.left
	case v.Cached:
		r.left = "CACHED " + r.left
	}
	if why := v.Why(); why != "" {
		r.right = "(" + visible([]byte(why)) + ") " + r.right
	}
	r.left = " => " + strings.ReplaceAll(visible([]byte(r.left)), "\t", " ")
	return r
}

func (l *live) parts(v *vertex, now time.Time) (all []row) {
	for _, p := range v.parts {
		r := row{left: " => => " + p.ID + amount(p)}
		if p.Started != nil {
			end := now.Add(-l.offset)
			if p.Completed != nil {
				r.kind, end = finished, *p.Completed
			}
			r.right = fmt.Sprintf("%.1fs", max(end.Sub(*p.Started), 0).Seconds())
		}
		all = append(all, r)
	}
	return all
}
