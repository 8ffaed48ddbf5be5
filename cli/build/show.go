package build

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"berth/build/progress"
	"berth/cli/session"
	"berth/cli/terminal"

	"github.com/spf13/pflag"
)

// showing is how a build is shown.
type showing struct {
	mode string
	why  bool
}

// modes are the ways to show a build.
var modes = []string{"auto", "none", "plain", "quiet", "rawjson", "tty"}

func (o *showing) flags(fs *pflag.FlagSet, s *session.Session) {
	mode := s.Env("BUILDKIT_PROGRESS")
	if mode == "" {
		mode = "auto"
	}
	fs.StringVar(&o.mode, "progress", mode, "Set type of progress output (\"auto\", \"none\", \"plain\", \"quiet\", \"rawjson\", \"tty\"): use plain to see all that programs say")
	fs.BoolVar(&o.why, "why", false, "Tell at the end of each step whether it was cached, or why not")
}

// display shows a build. Calls come one at a time.
type display interface {
	// Show takes what is new.
	Show(*progress.Status)
	// End is called once, after the last Show, and leaves the terminal as it was.
	End()
}

// open makes the display that the user wants. quiet is that of -q.
func (o *showing) open(s *session.Session, quiet bool) (display, error) {
	mode := o.mode
	switch {
	case !slices.Contains(modes, mode):
		return nil, fmt.Errorf("invalid progress mode %q: use one of %s", mode, strings.Join(modes, ", "))
	case quiet && mode != "auto" && mode != "quiet" && mode != "none":
		return nil, fmt.Errorf("progress=%s and quiet cannot be used together", mode)
	case quiet:
		mode = "quiet"
	case mode == "tty" && !terminal.Is(s.Err):
		return nil, fmt.Errorf("--progress=tty: stderr is not a terminal: use plain")
	case mode == "auto" && terminal.Is(s.Err) && s.Env("TERM") != "dumb":
		mode = "tty"
	}
	d := newDisplay(mode, s.Err, s.Env("NO_COLOR") == "")
	if o.why && mode != "rawjson" && mode != "quiet" && mode != "none" {
		d = &explained{display: d, out: s.Err}
	}
	return d, nil
}

func newDisplay(mode string, out io.Writer, colour bool) display {
	switch mode {
	case "quiet":
		return &quiet{out: out}
	case "none":
		return hidden{}
	case "rawjson":
		return raw{json.NewEncoder(out)}
	case "tty":
		l := &live{out: out, colour: colour, now: time.Now, size: func() (height, width int) { return terminal.Size(out) }}
		l.start()
		return l
	}
	return &plain{out: out}
}

// hidden shows nothing.
type hidden struct{}

// Show implements display.
func (hidden) Show(*progress.Status) {}

// End implements display.
func (hidden) End() {}

// quiet shows nothing but what an error comes from.
type quiet struct {
	out   io.Writer
	trace trace
}

// Show implements display.
func (q *quiet) Show(s *progress.Status) { q.trace.add(s, func(*vertex, any) {}) }

// End implements display.
func (q *quiet) End() { q.trace.failures(q.out) }

// raw shows statuses as they are, one a line.
type raw struct{ out *json.Encoder }

// Show implements display.
func (r raw) Show(s *progress.Status) { _ = r.out.Encode(s) } // stderr: nobody could be told

// End implements display.
func (raw) End() {}
