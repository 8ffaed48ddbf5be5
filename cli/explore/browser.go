// Package explore is the browser for what is in an image: its layers on the left, their files on the right.
//
// It asks no engine: what it wants to show is brought to it. Invariant: Browser is a state machine without a terminal (keys go in,
// lines come out), and Run gives the terminal back as it was, however it ends.
package explore

import (
	"strings"

	"berth/client"
)

// View is a list of files that the browser shows.
type View struct {
	Layer  int
	Merged bool // all that is there with that layer on top; else what the layer does
}

// Browser is what is seen and chosen. It is for one goroutine.
type Browser struct {
	image  string
	report client.LayerReport
	width  int
	height int

	view    View // chosen
	have    View // of tree
	tree    *item
	failure string
	rows    []*item
	hide    string
	search  string
	bySize  bool

	inFiles bool // the files have the keys
	typing  bool // the search is being typed
	page    page
	pageTop int // first line of a page that is longer than the screen
	row     int // chosen in the files
	rowTop  int // first that is seen
	top     int // first layer that is seen
	done    bool
}

// page is what is shown instead of layers and files.
type page uint8

const (
	noPage page = iota
	helpPage
	weightPage
)

// New shows the layers of an image from the deepest on.
func New(image string, r client.LayerReport, width, height int) *Browser {
	return &Browser{image: image, report: r, width: width, height: height}
}

// Resize changes the size of the screen, in characters.
func (b *Browser) Resize(width, height int) { b.width, b.height = width, height }

// Done tells whether the user has left.
func (b *Browser) Done() bool { return b.done }

// Wants gives the view that is to be brought, by Show or Fail; false: none.
func (b *Browser) Wants() (View, bool) {
	return b.view, len(b.report.Layers) > 0 && b.failure == "" && (b.tree == nil || b.have != b.view)
}

// Show brings the files of a view.
func (b *Browser) Show(v View, files []client.LayerFile) {
	if v != b.view {
		return
	}
	at := ""
	if b.tree != nil && b.row < len(b.rows) {
		at = b.rows[b.row].Path
	}
	b.tree, b.have, b.failure = grow(files, v.Merged), v, ""
	const few = 200
	b.tree.unfold(b.tree.count() <= few)
	b.tree.order(b.bySize)
	b.refresh(at)
}

// Fail says that a view can't be brought.
func (b *Browser) Fail(v View, err error) {
	if v == b.view {
		b.failure = err.Error()
	}
}

// refresh lists the files anew, with the path at chosen.
func (b *Browser) refresh(at string) {
	b.rows, b.row = nil, 0
	if b.tree == nil {
		return
	}
	b.rows = b.tree.rows(sieve{b.hide, strings.ToLower(b.search)})
	b.row = max(find(b.rows, at), 0)
}

func (b *Browser) chosen() *item {
	if b.row < len(b.rows) && b.have == b.view {
		return b.rows[b.row]
	}
	return nil
}

// Press takes a key: a character, or the name of a key as Keys gives it.
func (b *Browser) Press(key string) {
	switch {
	case key == "ctrl-c":
		b.done = true
	case b.typing:
		b.typed(key)
	case b.page != noPage:
		b.turn(key)
	default:
		b.command(key)
	}
}

// typed takes a key of the search.
func (b *Browser) typed(key string) {
	switch key {
	case "enter", "tab", "down":
		b.typing = false
		return
	case "esc":
		b.typing, b.search = false, ""
	case "backspace":
		if r := []rune(b.search); len(r) > 0 {
			b.search = string(r[:len(r)-1])
		}
	default:
		if len([]rune(key)) != 1 {
			return
		}
		b.search += key
	}
	b.refresh("")
}

// turn takes a key of a page.
func (b *Browser) turn(key string) {
	switch key {
	case "up", "k":
		b.pageTop--
	case "down", "j":
		b.pageTop++
	case "pgup":
		b.pageTop -= b.body()
	case "pgdn", " ":
		b.pageTop += b.body()
	case "q", "esc", "?", "w", "enter":
		b.page = noPage
	}
}

func (b *Browser) command(key string) {
	switch key {
	case "q":
		b.done = true
	case "esc":
		if b.search != "" {
			b.search = ""
			b.keep()
		}
	case "?":
		b.page, b.pageTop = helpPage, 0
	case "w":
		b.page, b.pageTop = weightPage, 0
	case "tab":
		b.inFiles = !b.inFiles
	case "m":
		b.choose(View{b.view.Layer, !b.view.Merged})
	case "[", "]":
		b.move(map[string]int{"[": -1, "]": 1}[key])
	case "/":
		b.typing, b.inFiles = true, true
	case "s":
		b.bySize = !b.bySize
		if b.tree != nil {
			b.tree.order(b.bySize)
			b.keep()
		}
	case "A", "C", "D", "U":
		if strings.Contains(b.hide, key) {
			b.hide = strings.ReplaceAll(b.hide, key, "")
		} else {
			b.hide += key
		}
		b.keep()
	case "+", "-":
		if b.tree != nil {
			b.tree.unfold(key == "+")
			b.keep()
		}
	default:
		b.walk(key)
	}
}

// keep lists the files anew and stays where it was, or at what holds it now.
func (b *Browser) keep() {
	n := b.chosen()
	b.refresh("")
	for ; n != nil && n.parent != nil; n = n.parent {
		if at := find(b.rows, n.Path); at >= 0 {
			b.row = at
			return
		}
	}
}

// walk takes the keys that move.
func (b *Browser) walk(key string) {
	step := 0
	switch key {
	case "up", "k":
		step = -1
	case "down", "j":
		step = 1
	case "pgup":
		step = -b.body()
	case "pgdn":
		step = b.body()
	case "home", "g":
		step = -1 << 30
	case "end", "G":
		step = 1 << 30
	default:
		if b.inFiles {
			b.fold(key)
		} else if key == "right" || key == "enter" || key == "l" {
			b.inFiles = true
		}
		return
	}
	if b.inFiles {
		b.row = max(min(b.row+step, len(b.rows)-1), 0)
	} else {
		b.move(step)
	}
}

// move chooses another layer.
func (b *Browser) move(step int) {
	b.choose(View{max(min(b.view.Layer+step, len(b.report.Layers)-1), 0), b.view.Merged})
}

func (b *Browser) choose(v View) {
	if v != b.view {
		b.view, b.failure = v, ""
	}
}

// fold opens and closes directories, and goes up and down with them.
func (b *Browser) fold(key string) {
	n := b.chosen()
	if n == nil {
		if key == "left" || key == "h" {
			b.inFiles = false
		}
		return
	}
	switch key {
	case "enter", " ":
		n.open = n.dir && !n.open
	case "right", "l":
		if n.open && b.row+1 < len(b.rows) {
			b.row++
			return
		}
		n.open = n.dir
	case "left", "h":
		switch {
		case n.open:
			n.open = false
		case n.parent.parent != nil:
			b.row = max(find(b.rows, n.parent.Path), 0)
			return
		default:
			b.inFiles = false
			return
		}
	default:
		return
	}
	b.keep()
}
