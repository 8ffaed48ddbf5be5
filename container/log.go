package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/docker/go-units"
)

// LogOptions select lines of a log.
type LogOptions struct {
	Stdout, Stderr bool
	Since, Until   time.Time // zero: no bound
	Tail           int       // lines from the end, before any other choice; negative: all
	From           int64     // with Tail negative: where an earlier reader was (Line.Next); 0: the beginning
	Follow         bool      // wait for more until Ended says that no more comes
	// Ended is closed when the container has ended and its log is complete. nil: ended already.
	Ended <-chan struct{}
}

// Line is one line of a log, its end of line included where it had one: lines of more than 16 KiB come in parts.
type Line struct {
	Time   time.Time
	Stream string // "stdout" or "stderr"
	Text   []byte
	Attrs  map[string]string // of --log-opt labels, env and tag
	// Next is where the log goes on behind this line, in bytes since its beginning, dropped ones included.
	Next int64
	// Skipped is 0 but for a line that is none of the log's: it tells that so many bytes of the log were dropped before they could be
	// read, in its text too.
	Skipped int64
}

// maxLine bounds one record on disk: 16 KiB of text, each byte escaped to six, once more in base64, its attributes and its frame.
const maxLine = 256 << 10

// Delays between looks at a log that stands still.
const (
	shortestPause = 4 * time.Millisecond
	longestPause  = 100 * time.Millisecond
)

const chunk = 64 << 10 // bytes read at a time

// LogReader reads the json-file log of one container, over its rotated and compressed files. It is for one goroutine. It never
// holds the writer up: what was dropped while it was elsewhere it tells of, see Line.Skipped.
type LogReader struct {
	path  string
	o     LogOptions
	files []*logFile // oldest first; the first one is being read
	fresh bool       // nothing of it was parsed yet
	buf   []byte     // read, not yet parsed; a part of store
	store []byte
	at    int64 // where buf begins in the log; negative: not known
	line  Line  // the last one given out
	pause time.Duration
	ended bool
}

// OpenLog opens the log at path, with path.1, path.2.gz … as its older parts. A log that does not
// exist is empty. The caller closes the reader.
func OpenLog(path string, o LogOptions) (*LogReader, error) {
	files, err := openLogFiles(path)
	if err != nil {
		return nil, err
	}
	r := &LogReader{path: path, o: o, files: files, fresh: true, at: -1, pause: shortestPause}
	switch {
	case o.Tail >= 0:
		err = r.seekTail(o.Tail)
	case o.From > 0:
		err = r.goTo(o.From)
	case !o.Since.IsZero():
		r.dropBefore(o.Since)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read log: %w", err), r.Close())
	}
	return r, nil
}

// seekTail drops the files, and positions in the oldest one kept, so that n lines are left: behind the end of the line before them.
func (r *LogReader) seekTail(n int) error {
	ends := n + 1
	for i := len(r.files) - 1; i >= 0; i-- {
		f := r.files[i]
		if f.size() == 0 {
			continue
		}
		if ends == n+1 {
			unfinished, err := f.unfinished()
			if err != nil {
				return err
			}
			if unfinished && ends > 1 {
				ends--
			}
		}
		found, err := f.seekBehind(ends)
		if err != nil {
			return err
		}
		if ends -= found; ends > 0 {
			continue
		}
		r.drop(i)
		r.fresh, r.at = false, f.start+f.pos
		return nil
	}
	return nil
}

// drop closes the first n files.
func (r *LogReader) drop(n int) {
	for _, f := range r.files[:n] {
		f.Close()
	}
	r.files = r.files[n:]
}

// dropBefore drops the files that are followed by one that begins before a time.
func (r *LogReader) dropBefore(since time.Time) {
	n := 0
	for i := 1; i < len(r.files); i++ {
		if first := r.files[i].first; !first.IsZero() && first.Before(since) {
			n = i
		}
	}
	r.drop(n)
}

// goTo passes over what lies before an offset. A log whose end does not reach so far has been begun anew since
// that was known, and is read from its beginning.
func (r *LogReader) goTo(offset int64) error {
	r.at, r.fresh = offset, true
	reached := false
	for _, f := range r.files {
		reached = reached || f.size() > 0 && f.end >= offset
	}
	if !reached {
		if len(r.files) > 0 && r.files[len(r.files)-1].size() == 0 {
			r.drop(len(r.files) - 1) // just begun, all before it is known
			return nil
		}
		r.at = -1
		return nil
	}
	for len(r.files) > 0 {
		f := r.files[0]
		if f.size() == 0 || f.start >= offset {
			return nil
		}
		if f.end > offset || len(r.files) == 1 {
			r.fresh = false
			return f.skip(min(offset, f.end) - f.start)
		}
		r.drop(1)
	}
	return nil
}

// Next returns the next line, io.EOF at the end. While following it waits for more, until ctx ends. The line is
// the reader's, and valid until the next call.
func (r *LogReader) Next(ctx context.Context) (*Line, error) {
	for {
		raw, err := r.raw()
		if err != nil {
			return nil, err
		}
		if raw == nil {
			if err := r.wait(ctx); err != nil {
				return nil, err
			}
			continue
		}
		r.pause = shortestPause
		if r.fresh {
			r.fresh = false
			start := offsetOf(raw)
			if start < 0 { // not ours: taken for seamless
				start = max(0, r.at)
			}
			if missing := start - r.at; r.at >= 0 && missing > 0 {
				r.buf, r.fresh, r.at = r.back(raw), true, start
				return r.notice(missing), nil
			}
			r.at = start
		}
		r.at += int64(len(raw)) + 1
		if !r.line.parse(raw) {
			continue // torn by a power cut
		}
		r.line.Next, r.line.Skipped = r.at, 0
		if !r.o.Until.IsZero() && r.line.Time.After(r.o.Until) {
			return nil, io.EOF
		}
		if r.line.Time.Before(r.o.Since) || r.line.Stream == "stdout" && !r.o.Stdout || r.line.Stream == "stderr" && !r.o.Stderr {
			continue
		}
		return &r.line, nil
	}
}

// back is the buffer before raw was taken off it.
func (r *LogReader) back(raw []byte) []byte {
	whole := len(raw) + 1 + len(r.buf)
	from := cap(r.store) - cap(raw)
	return r.store[from : from+whole]
}

// notice is the line that says what was missed.
func (r *LogReader) notice(missing int64) *Line {
	text := fmt.Appendf(nil, "berth: %d bytes of this log (%s) were dropped before they could be read here: the container writes faster than its log is read\n",
		missing, units.HumanSize(float64(missing)))
	return &Line{Time: time.Now(), Stream: "stderr", Text: text, Next: r.at, Skipped: missing}
}

// Pending tells whether Next returns at once, without a look at the files.
func (r *LogReader) Pending() bool { return bytes.IndexByte(r.buf, '\n') >= 0 }

// raw returns the next whole line on disk, nil when there is none at the moment.
func (r *LogReader) raw() ([]byte, error) {
	for {
		if i := bytes.IndexByte(r.buf, '\n'); i >= 0 {
			line := r.buf[:i]
			r.buf = r.buf[i+1:]
			return line, nil
		}
		if len(r.buf) > maxLine {
			r.at += int64(len(r.buf))
			r.buf = r.buf[:0] // not ours; look for the next end of line
		}
		n, err := r.fill()
		if n > 0 {
			continue
		}
		if err != nil && err != io.EOF && (len(r.files) <= 1 || r.files[0].gz == nil) {
			return nil, fmt.Errorf("read log: %w", err)
		}
		// A broken compressed part ends where it is broken.
		if len(r.files) <= 1 {
			return nil, nil
		}
		r.drop(1)
		r.fresh, r.buf = true, r.buf[:0]
	}
}

// fill reads on in the file at hand.
func (r *LogReader) fill() (int, error) {
	if len(r.files) == 0 {
		return 0, io.EOF
	}
	if cap(r.buf)-len(r.buf) < chunk {
		if len(r.buf)+chunk > len(r.store) {
			r.store = make([]byte, 2*len(r.buf)+2*chunk)
		}
		r.buf = r.store[:copy(r.store, r.buf)]
	}
	n, err := r.files[0].Read(r.buf[len(r.buf) : len(r.buf)+chunk])
	r.buf = r.buf[:len(r.buf)+n]
	return n, err
}

// wait returns nil when it is worth looking again, io.EOF at the end.
func (r *LogReader) wait(ctx context.Context) error {
	moved, err := r.follow()
	if err != nil || moved {
		return err
	}
	if !r.o.Follow || r.ended || r.o.Ended == nil {
		return io.EOF
	}
	pause := r.pause
	if !r.o.Until.IsZero() {
		left := time.Until(r.o.Until)
		if left <= 0 {
			return io.EOF
		}
		pause = min(pause, left+time.Millisecond)
	}
	r.pause = min(2*r.pause, longestPause)
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-r.o.Ended:
		r.ended = true // the log is complete: one more look
	case <-timer.C:
	}
	return nil
}

// follow opens what a rotation has put in the place of the file that was read to its end.
func (r *LogReader) follow() (moved bool, err error) {
	if len(r.files) > 0 {
		now, err := os.Stat(r.path)
		if errors.Is(err, os.ErrNotExist) {
			return false, nil // between a rotation's two renames, or removed
		}
		if err != nil {
			return false, err
		}
		if os.SameFile(now, r.files[0].info) {
			return now.Size() < r.files[0].pos, r.restart(now.Size())
		}
		// The file was renamed while it was read, so nothing is written to it any more: what it has
		// now is all.
		if n, err := r.fill(); n > 0 || err != nil && err != io.EOF {
			return n > 0, err
		}
	}
	files, err := openLogFiles(r.path)
	if err != nil || len(files) == 0 {
		return false, err
	}
	r.drop(len(r.files))
	r.files, r.buf, r.fresh = files, r.buf[:0], true
	if r.at >= 0 {
		err = r.goTo(r.at)
	}
	return len(r.files) > 1 || len(r.files) == 1 && r.files[0].size() > r.files[0].pos, err
}

// restart goes back to the beginning of the file at hand when somebody has cut it.
func (r *LogReader) restart(size int64) error {
	if f := r.files[0]; size < f.pos && f.gz == nil {
		r.at, r.fresh, r.buf = -1, true, r.buf[:0]
		f.pos = 0
		return f.skip(0)
	}
	return nil
}

// Close releases the files.
func (r *LogReader) Close() error {
	r.drop(len(r.files))
	return nil
}
