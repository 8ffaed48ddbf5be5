package progress

import (
	"fmt"
	"slices"
	"strings"
)

// line is what is known of one id.
type line struct {
	id, text string
	finished bool
}

// block is the lines at the foot of a terminal that are rewritten in place; the cursor stands below them.
// Lines that don't fit wait until others have finished, which then move up and out of it, for good.
type block struct {
	shown, waiting []line
	gone           map[string]bool // ids that have moved out
	drawn          int             // rows on the screen
}

// set puts a line in its place and gives the bytes that draw that; rows is how many lines there is room for.
func (b *block) set(l line, rows int) string {
	if i := index(b.shown, l.id); i >= 0 {
		if b.shown[i] == l {
			return ""
		}
		b.shown[i] = l
		if !l.finished || len(b.waiting) == 0 {
			up := b.drawn - i
			return fmt.Sprintf("\x1b[%dA\x1b[2K\r%s\r\x1b[%[1]dB", up, l.text)
		}
		return b.make(rows)
	}
	if i := index(b.waiting, l.id); i >= 0 {
		b.waiting[i] = l
		return ""
	}
	if b.gone[l.id] {
		return ""
	}
	if b.waiting = append(b.waiting, l); len(b.waiting) == 1 && len(b.shown) < rows {
		b.shown, b.waiting = append(b.shown, l), nil
		b.drawn++
		return "\x1b[2K" + l.text + "\r\n"
	}
	return b.make(rows)
}

func index(all []line, id string) int {
	return slices.IndexFunc(all, func(l line) bool { return l.id == id })
}

// make lets waiting lines in where others have finished or there is room, and draws the block anew.
func (b *block) make(rows int) string {
	var out []line
	for len(b.waiting) > 0 {
		if len(b.shown) >= rows {
			i := slices.IndexFunc(b.shown, func(l line) bool { return l.finished })
			if i < 0 {
				break
			}
			out = append(out, b.shown[i])
			if b.gone == nil {
				b.gone = map[string]bool{}
			}
			b.gone[b.shown[i].id] = true
			b.shown = slices.Delete(b.shown, i, i+1)
		}
		b.shown, b.waiting = append(b.shown, b.waiting[0]), b.waiting[1:]
	}
	return b.draw(out)
}

// draw writes lines that stay as they are, and below them the block, over what was drawn before.
func (b *block) draw(before []line) string {
	var s strings.Builder
	if b.drawn > 0 {
		fmt.Fprintf(&s, "\x1b[%dA\r", b.drawn)
	}
	s.WriteString("\x1b[J")
	for _, l := range append(before, b.shown...) {
		s.WriteString(l.text + "\r\n")
	}
	b.drawn = len(b.shown)
	if n := len(b.waiting); n > 0 {
		fmt.Fprintf(&s, "(%d more)\r\n", n)
		b.drawn++
	}
	return s.String()
}

// end makes all lines stay as they are: what follows begins a block of its own.
func (b *block) end() string {
	s := ""
	if len(b.waiting) > 0 {
		b.shown, b.waiting = append(b.shown, b.waiting...), nil
		s = b.draw(nil)
	}
	*b = block{}
	return s
}
