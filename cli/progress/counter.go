package progress

import (
	"fmt"
	"io"
	"time"

	"berth/cli/format"
	"berth/cli/terminal"
)

// Counter counts what is read through it, and shows it where out is a terminal.
type Counter struct {
	io.Reader
	what  string
	out   io.Writer // nil: nothing is shown
	bytes int64
	shown time.Time
	meter meter
}

// Count makes a counter of r; what names the work. Nothing is shown unless out is a terminal.
func Count(out io.Writer, what string, r io.Reader) *Counter {
	c := &Counter{Reader: r, what: what}
	if terminal.Is(out) {
		now := time.Now()
		c.out, c.shown, c.meter = out, now, meter{began: sample{now, 0}}
	}
	return c
}

// often is how much time lies between two figures on the screen.
const often = 100 * time.Millisecond

// Read reads and counts.
func (c *Counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.bytes += int64(n)
	if c.out == nil {
		return n, err
	}
	if now := time.Now(); now.Sub(c.shown) >= often {
		c.shown = now
		c.meter.pass(sample{now, c.bytes})
		speed := ""
		if rate := c.meter.rate(); rate > 0 {
			speed = "  " + format.Size(rate) + "/s"
		}
		fmt.Fprintf(c.out, "\r\x1b[K%s  %s%s", c.what, format.FineSize(c.bytes), speed)
	}
	return n, err
}

// Done takes the figures off the screen.
func (c *Counter) Done() {
	if c.out != nil {
		fmt.Fprint(c.out, "\r\x1b[K")
	}
}
