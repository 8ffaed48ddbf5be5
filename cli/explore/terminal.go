package explore

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"unicode/utf8"

	"berth/cli/terminal"
	"berth/client"
)

// Keys splits what a terminal sent into keys: characters, and names such as "up", "enter" or "ctrl-c". rest is an
// unfinished character. A lone escape is the key "esc".
func Keys(in []byte) (keys []string, rest []byte) {
	for len(in) > 0 {
		key, n := next(in)
		if n == 0 {
			return keys, in
		}
		if in = in[n:]; key != "" {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

// sequence names a key that terminals in the style of xterm send as several bytes after ESC (ECMA-48; xterm's "ctlseqs").
func sequence(s string) string {
	switch s {
	case "[A", "OA":
		return "up"
	case "[B", "OB":
		return "down"
	case "[C", "OC":
		return "right"
	case "[D", "OD":
		return "left"
	case "[H", "OH", "[1~", "[7~":
		return "home"
	case "[F", "OF", "[4~", "[8~":
		return "end"
	case "[5~":
		return "pgup"
	case "[6~":
		return "pgdn"
	case "[Z":
		return "tab"
	}
	return ""
}

// next takes one key; "" for what means nothing, 0 for what is not whole.
func next(in []byte) (key string, n int) {
	switch c := in[0]; {
	case c == 0x1b:
		return escaped(in)
	case c == '\r' || c == '\n':
		return "enter", 1
	case c == '\t':
		return "tab", 1
	case c == 0x7f || c == 8:
		return "backspace", 1
	case c == 3:
		return "ctrl-c", 1
	case c < ' ':
		return "", 1
	}
	if !utf8.FullRune(in) {
		return "", 0
	}
	r, n := utf8.DecodeRune(in)
	if r == utf8.RuneError {
		return "", n
	}
	return string(r), n
}

func escaped(in []byte) (string, int) {
	if len(in) == 1 || in[1] != '[' && in[1] != 'O' {
		return "esc", 1
	}
	for n := 2; n < len(in); n++ { // parameters, then one final byte
		if in[n] >= 0x40 && in[n] <= 0x7e {
			return sequence(string(in[1 : n+1])), n + 1
		}
	}
	return "", len(in)
}

// code is the terminal's for a style (ECMA-48, SGR).
func code(s Style) string {
	text := "0"
	switch s &^ Chosen {
	case Bold:
		text = "0;1"
	case Dim:
		text = "0;2"
	case Green:
		text = "0;32"
	case Yellow:
		text = "0;33"
	case Red:
		text = "0;31"
	}
	if s&Chosen != 0 {
		text += ";7"
	}
	return "\x1b[" + text + "m"
}

// paint writes the screen from its first line on.
func paint(lines []Line) string {
	var b strings.Builder
	b.WriteString("\x1b[H")
	for i, l := range lines {
		if i > 0 {
			b.WriteString("\r\n")
		}
		for _, s := range l {
			b.WriteString(code(s.Style) + s.Text)
		}
		b.WriteString("\x1b[0m\x1b[K")
	}
	b.WriteString("\x1b[J")
	return b.String()
}

// The other screen, without a cursor, and back (xterm's "ctlseqs": DECSET 1049, DECTCEM).
const (
	enter = "\x1b[?1049h\x1b[?25l"
	leave = "\x1b[0m\x1b[?25h\x1b[?1049l"
)

// Fetch brings the files of a view.
type Fetch func(ctx context.Context, v View) ([]client.LayerFile, error)

// answer is what a Fetch brought.
type answer struct {
	View
	files []client.LayerFile
	err   error
}

// Run lets the user browse on a terminal until he leaves. A signal that ends it comes back as *terminal.Interrupt.
func Run(ctx context.Context, in, out *os.File, b *Browser, fetch Fetch) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(ends)
	restore, err := terminal.Raw(in)
	if err != nil {
		return err
	}
	defer restore()
	if _, err := out.WriteString(enter); err != nil {
		return err
	}
	defer func() {
		if _, e := out.WriteString(leave); err == nil {
			err = e
		}
	}()
	sizes := make(chan [2]int)
	stop := terminal.FollowSize(out, func(height, width int) error {
		select {
		case sizes <- [2]int{height, width}:
		case <-ctx.Done():
		}
		return nil
	})
	defer stop()
	typed := make(chan []string)
	go read(ctx, in, typed)
	return browse(ctx, b, fetch, out, ends, sizes, typed)
}

// read tells of keys until the input ends; then the channel is closed.
func read(ctx context.Context, in *os.File, typed chan<- []string) {
	defer close(typed)
	buf := make([]byte, 4096)
	var rest []byte
	for {
		n, err := in.Read(buf)
		keys, left := Keys(append(rest, buf[:n]...))
		rest = append([]byte{}, left...)
		select {
		case typed <- keys:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// asker fetches one view at a time, the latest that was asked for.
type asker struct {
	fetch   Fetch
	answers chan answer
	asked   *View // nil: nothing is on its way
	cancel  context.CancelFunc
}

func (a *asker) ask(ctx context.Context, v View) {
	if a.asked != nil && *a.asked == v {
		return
	}
	a.stop()
	ctx, a.cancel = context.WithCancel(ctx)
	a.asked = &v
	go func() {
		files, err := a.fetch(ctx, v)
		select {
		case a.answers <- answer{v, files, err}:
		case <-ctx.Done():
		}
	}()
}

func (a *asker) stop() {
	if a.asked != nil {
		a.cancel()
		a.asked = nil
	}
}

func browse(ctx context.Context, b *Browser, fetch Fetch, out *os.File, ends <-chan os.Signal, sizes <-chan [2]int, typed <-chan []string) error {
	a := &asker{fetch: fetch, answers: make(chan answer)}
	defer a.stop()
	for !b.Done() {
		if v, wants := b.Wants(); wants {
			a.ask(ctx, v)
		}
		if _, err := out.WriteString(paint(b.Lines())); err != nil {
			return err
		}
		select {
		case got := <-a.answers:
			if a.stop(); got.err != nil {
				b.Fail(got.View, got.err)
			} else {
				b.Show(got.View, got.files)
			}
		case s := <-sizes:
			b.Resize(s[1], s[0])
		case keys, ok := <-typed:
			if !ok {
				return errors.New("the terminal has gone")
			}
			for _, k := range keys {
				b.Press(k)
			}
		case s := <-ends:
			return &terminal.Interrupt{Signal: s}
		}
	}
	return nil
}
