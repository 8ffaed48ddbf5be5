package format

import (
	"io"
	"strings"
	"unicode"
)

// Layout is how cells become columns.
type Layout struct{ Least, Gap int } // a column's least width, and the blanks between two

// Wide is the layout of tables: three blanks between columns that are at least ten wide.
var Wide = Layout{Least: 10, Gap: 3}

// Align writes text with its cells, which end in tabs, as columns. A column
// goes on over neighbouring lines that have it; what follows a line's last tab belongs to none.
// Widths are those on a terminal.
func Align(w io.Writer, text string, l Layout) error {
	var lines [][]string
	for _, line := range strings.SplitAfter(text, "\n") {
		lines = append(lines, strings.Split(line, "\t"))
	}
	l.block(lines, 0)
	var b strings.Builder
	for _, cells := range lines {
		for _, c := range cells {
			b.WriteString(c)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// block pads the cells of one column, run by run, and then those of the next column within each run.
func (l Layout) block(lines [][]string, column int) {
	for i := 0; i < len(lines); {
		if len(lines[i]) <= column+1 {
			i++
			continue
		}
		end, width := i, l.Least
		for end < len(lines) && len(lines[end]) > column+1 {
			width = max(width, Width(lines[end][column])+l.Gap)
			end++
		}
		for _, cells := range lines[i:end] {
			cells[column] += strings.Repeat(" ", width-Width(cells[column]))
		}
		l.block(lines[i:end], column+1)
		i = end
	}
}

// Printable makes what a foreign image or registry says fit for a terminal: nothing in it moves the cursor or changes
// what was written before. Lines stay; tabs become blanks, other characters that don't print question marks.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return r
		case r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// Width is how many columns a terminal takes for s.
func Width(s string) int {
	n := 0
	for _, r := range s {
		n += columns(r)
	}
	return n
}
