package explore

import (
	"fmt"
	"strings"

	"berth/cli/format"
	"berth/client"
)

// Style is how a piece of a line looks.
type Style uint8

// The styles; Chosen is added to another one.
const (
	Plain Style = iota
	Bold
	Dim
	Green        // what is added
	Yellow       // what is changed
	Red          // what is removed
	Chosen Style = 1 << 7
)

// Span is a piece of a line.
type Span struct {
	Text  string
	Style Style
}

// Line is a line of the screen.
type Line []Span

func (l Line) String() string {
	var b strings.Builder
	for _, s := range l {
		b.WriteString(s.Text)
	}
	return b.String()
}

// clean is format.Printable in one line.
func clean(s string) string { return strings.ReplaceAll(format.Printable(s), "\n", " ") }

// fit makes s exactly width columns wide.
func fit(s string, width int) string {
	s = format.Ellipsis(s, width)
	return s + strings.Repeat(" ", max(width-format.Width(s), 0))
}

// right puts s at the right end of width columns.
func right(s string, width int) string {
	return strings.Repeat(" ", max(width-format.Width(s), 0)) + s
}

// The lines that are always there: title, headings; what is chosen, totals, keys.
const around = 5

// body is how many lines there are for lists.
func (b *Browser) body() int { return max(b.height-around, 1) }

// Lines draws the screen: exactly as many lines as it has, none wider than it is.
func (b *Browser) Lines() []Line {
	const least = 20
	width := max(b.width, least)
	lines := []Line{{{fit(b.title(width), width), Bold | Chosen}}}
	switch b.page {
	case helpPage:
		lines = append(lines, b.paged(width, helpText())...)
	case weightPage:
		lines = append(lines, b.paged(width, b.weights(width))...)
	default:
		lines = append(lines, b.lists(width)...)
	}
	lines = append(lines, Line{{fit(b.totals(), width), Bold}}, Line{{fit(b.keys(), width), b.keyStyle()}})
	for i := range lines {
		if b.width < least {
			lines[i] = Line{{fit(lines[i].String(), max(b.width, 0)), Plain}}
		}
	}
	return lines[:min(len(lines), max(b.height, 0))]
}

func (b *Browser) title(width int) string {
	p := b.report.Platform
	platform := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		platform += "/" + p.Variant
	}
	s := " " + clean(b.image) + "  " + format.ShortID(b.report.ID) + "  " + clean(platform)
	return fit(s, width)
}

func (b *Browser) totals() string {
	r := &b.report
	return fmt.Sprintf(" %s  %s  shown %s in %s  hidden %s  efficiency %s", format.Count(int64(len(r.Layers)), "layer"), format.Size(r.Unpacked), format.Size(r.Shown.Bytes), format.Count(r.Shown.Files, "file"),
		format.Size(r.Hidden), Percent(r.Efficiency))
}

// Percent writes a share; only all of it is 100 %.
func Percent(share float64) string {
	if share < 1 {
		return fmt.Sprintf("%.1f %%", min(share*100, 99.9))
	}
	return "100 %"
}

func (b *Browser) keys() string {
	switch {
	case b.typing:
		return " search: " + clean(b.search) + "█"
	case b.failure != "":
		return " " + clean(b.failure)
	case b.page != noPage:
		return " ↑↓ scroll  esc back"
	}
	return " tab switch  m merged  / search  s size  ACDU filter  w weights  ? help  q quit"
}

func (b *Browser) keyStyle() Style {
	switch {
	case b.typing:
		return Plain
	case b.failure != "":
		return Red
	}
	return Dim
}

// paged shows a page of text.
func (b *Browser) paged(width int, text []string) []Line {
	n := b.body() + 2
	b.pageTop = max(min(b.pageTop, len(text)-n), 0)
	lines := make([]Line, n)
	for i := range lines {
		s := ""
		if at := b.pageTop + i; at < len(text) {
			s = text[at]
		}
		lines[i] = Line{{fit(s, width), Plain}}
	}
	return lines
}

// lists draws headings, layers, files, and the line about what is chosen.
func (b *Browser) lists(width int) []Line {
	const leastLeft, mostLeft = 28, 60
	left := max(min(width*2/5, mostLeft), min(leastLeft, width/2))
	rest := width - left - 1
	heading := fmt.Sprintf(" layer %d", b.view.Layer)
	if b.view.Merged {
		heading = fmt.Sprintf(" layers 0 to %d", b.view.Layer)
	}
	if b.search != "" && !b.typing {
		heading += "  /" + clean(b.search)
	}
	if b.hide != "" {
		heading += "  without " + strings.Join(strings.Split(b.hide, ""), " ")
	}
	if b.bySize {
		heading += "  by size"
	}
	edge := Span{"│", Dim}
	lines := []Line{{{fit("    SIZE  HIDDEN  CREATED BY", left), b.headStyle(!b.inFiles)}, edge, {fit(heading, rest), b.headStyle(b.inFiles)}}}
	n := b.body()
	b.top = scroll(b.top, b.view.Layer, n, len(b.report.Layers))
	b.rowTop = scroll(b.rowTop, b.row, n, len(b.rows))
	for i := range n {
		line := Line{b.layerRow(b.top+i, left), edge}
		lines = append(lines, append(line, b.fileRow(b.rowTop+i, i, rest)...))
	}
	return append(lines, Line{{fit(b.about(), width), Plain}})
}

func (b *Browser) headStyle(here bool) Style {
	if here {
		return Bold
	}
	return Dim
}

// scroll gives the first line to be seen so that line `at` of n is among the `lines` on the screen.
func scroll(top, at, lines, n int) int {
	top = min(top, at)
	top = max(top, at-lines+1)
	return max(min(top, n-lines), 0)
}

func (b *Browser) layerRow(i, width int) Span {
	if i >= len(b.report.Layers) {
		return Span{strings.Repeat(" ", width), Plain}
	}
	l := &b.report.Layers[i]
	hidden := ""
	if l.Hidden > 0 {
		hidden = format.Size(l.Hidden)
	}
	s := Span{fit(right(format.Size(l.Unpacked), 8)+right(hidden, 8)+"  "+Command(l.CreatedBy), width), Plain}
	if i == b.view.Layer {
		s.Style = Chosen
		if !b.inFiles {
			s.Style |= Bold
		}
	}
	return s
}

// Command shortens a line of an image's history to what its Dockerfile said.
func Command(createdBy string) string {
	s := strings.TrimSpace(clean(createdBy))
	shell := strings.HasPrefix(s, "/bin/sh -c ")
	s = strings.TrimPrefix(s, "/bin/sh -c ")
	if rest, ok := strings.CutPrefix(s, "#(nop) "); ok {
		return strings.TrimSpace(rest)
	}
	if shell {
		s = "RUN " + s
	}
	s = strings.TrimSuffix(s, " # buildkit")
	s = strings.Replace(s, "RUN /bin/sh -c ", "RUN ", 1)
	if s == "" {
		return "(nobody says)"
	}
	return s
}

func changeStyle(change string) Style {
	switch change {
	case "A":
		return Green
	case "C":
		return Yellow
	case "D":
		return Red
	}
	return Plain
}

func (b *Browser) fileRow(i, line, width int) Line {
	if i >= len(b.rows) || b.have != b.view {
		note := ""
		switch {
		case line > 0 || b.failure != "":
		case len(b.report.Layers) == 0:
			note = " the image has no layers"
		case b.tree == nil || b.have != b.view:
			note = " reading…"
		case len(b.rows) == 0 && (b.hide != "" || b.search != ""):
			note = " nothing that the filter shows"
		case len(b.rows) == 0:
			note = " no files"
		}
		return Line{{fit(note, width), Dim}}
	}
	n := b.rows[i]
	fold := "  "
	if n.dir {
		fold = "▸ "
		if n.open || b.search != "" {
			fold = "▾ "
		}
	}
	name := strings.Repeat("  ", n.depth) + fold + clean(n.name)
	if n.dir {
		name += "/"
	} else if n.Link != "" {
		name += " → " + clean(n.Link)
	}
	mark := n.Change
	if mark == "" && n.touch {
		mark = "·"
	}
	style := changeStyle(n.Change)
	if n.Change == "" && n.touch {
		style = Yellow
	}
	if i == b.row {
		style |= Chosen
	}
	return Line{{fit(fit(mark, 1)+right(format.Size(n.total), 8)+"  "+name, width), style}}
}

// about says more of what is chosen.
func (b *Browser) about() string {
	if n := b.chosen(); b.inFiles && n != nil {
		s := fmt.Sprintf(" %s %d:%d %s", Mode(n.Mode), n.UID, n.GID, clean(n.Path))
		if n.Link != "" {
			s += " → " + clean(n.Link)
		}
		if n.Change == "C" && !n.dir {
			s += fmt.Sprintf(" (was %s)", format.Size(n.Was))
		}
		return s
	}
	if len(b.report.Layers) == 0 {
		return ""
	}
	l := &b.report.Layers[b.view.Layer]
	return fmt.Sprintf(" A %s  C %s  D %s  %s", count(l.Added), count(l.Changed), count(l.Removed), Command(l.CreatedBy))
}

func count(s client.FileSum) string { return fmt.Sprintf("%d (%s)", s.Files, format.Size(s.Bytes)) }

// Mode writes type and permissions as ls does.
func Mode(mode uint32) string {
	kinds := map[uint32]byte{0o140000: 's', typeLink: 'l', 0o100000: '-', 0o060000: 'b', typeDir: 'd', 0o020000: 'c', 0o010000: 'p'}
	kind := kinds[mode&typeMask]
	if kind == 0 {
		kind = '?'
	}
	text := []byte{kind}
	for i := 8; i >= 0; i-- {
		c := byte('-')
		if mode>>i&1 != 0 {
			c = "xwr"[i%3]
		}
		text = append(text, c)
	}
	for at, letters := range map[int]string{3: "sS", 6: "sS", 9: "tT"} { // set-user-ID, set-group-ID, sticky
		switch {
		case mode&(0o10000>>(at/3)) == 0:
		case text[at] == 'x':
			text[at] = letters[0]
		default:
			text[at] = letters[1]
		}
	}
	return string(text)
}

// weights answers why the image is large.
func (b *Browser) weights(width int) []string {
	text := []string{" The largest files", ""}
	row := func(w client.PathWeight) string {
		return fit(fmt.Sprintf("%s  layer %-3d %s", right(format.Size(w.Bytes), 10), w.Layer, clean(w.Path)), width)
	}
	for _, w := range b.report.Largest {
		text = append(text, row(w))
	}
	text = append(text, "", " What later layers hide: it takes room, and no container sees it", "")
	for _, w := range b.report.Wasteful {
		text = append(text, row(w))
	}
	if len(b.report.Wasteful) == 0 {
		text = append(text, right("nothing", 10))
	}
	return text
}

func helpText() []string {
	return []string{
		" Layers on the left, the deepest at the top; files of the chosen one on the right.",
		"",
		"   tab          go to the other side",
		"   ↑ ↓ k j      up and down; page up and down, home and end",
		"   [ ]          the layer before, the next layer",
		"   m            what the layer changes, or all that is there with it on top",
		"   enter → ←    open and close a directory",
		"   + -          open and close all directories",
		"   /            search by name; esc ends it",
		"   s            sort by size, or by name",
		"   A C D U      hide or show what is added, changed, deleted, unchanged",
		"   w            the largest files, and what later layers hide",
		"   q            quit",
		"",
		" A added, C changed, D deleted by this layer; · something below was.",
		" hidden: bytes of a layer that a later layer changes or removes.",
		" efficiency: of all paths, the smallest size that each has in any layer (0 when",
		" removed), summed up, as a share of all sizes of all paths.",
	}
}
