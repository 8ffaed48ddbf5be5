package container

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"
)

// LogOptions select lines of a log.
type LogOptions struct {
	Stdout, Stderr bool
	Since, Until   time.Time // zero: no bound
	Tail           int       // lines from the end, before any other choice; negative: all
	Follow         bool      // wait for more until Ended says that no more comes
	// Ended is closed when the container has ended and its log is complete. nil: ended already.
	Ended <-chan struct{}
}

// Line is one line of a log, its end of line included where it had one.
type Line struct {
	Time   time.Time
	Stream string // "stdout" or "stderr"
	Text   []byte
	Attrs  map[string]string // of --log-opt labels and env
}

// maxLine bounds one line on disk: 16 KiB of text, each byte escaped to six, and its frame.
const maxLine = 256 << 10

// Delays between looks at a log that stands still.
const (
	shortestPause = 4 * time.Millisecond
	longestPause  = 100 * time.Millisecond
)

// LogReader reads the json-file log of one container, over its rotated files. It is for one goroutine.
type LogReader struct {
	path  string
	o     LogOptions
	files []*logFile // oldest first; the first one is being read
	buf   []byte     // read, not yet parsed; a part of store
	store []byte
	after time.Time // skip lines up to this one: read before
	last  time.Time
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
	r := &LogReader{path: path, o: o, files: files, pause: shortestPause}
	if o.Tail >= 0 {
		if err := r.seekTail(o.Tail); err != nil {
			return nil, errors.Join(err, r.Close())
		}
	}
	return r, nil
}

// seekTail drops the files, and positions in the oldest one kept, so that n lines are left.
func (r *LogReader) seekTail(n int) error {
	for i := len(r.files) - 1; i >= 0; i-- {
		found, err := r.files[i].seekTail(n)
		if err != nil {
			return err
		}
		if n -= found; n <= 0 {
			for _, f := range r.files[:i] {
				f.Close()
			}
			r.files = r.files[i:]
			return nil
		}
	}
	return nil
}

// Next returns the next line, io.EOF at the end. While following it waits for more, until ctx ends.
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
		line, ok := parseLine(raw)
		if !ok || !line.Time.After(r.after) {
			continue // torn by a power cut, or read before a rotation
		}
		r.last = line.Time
		if !r.o.Until.IsZero() && line.Time.After(r.o.Until) {
			return nil, io.EOF
		}
		if line.Time.Before(r.o.Since) || line.Stream == "stdout" && !r.o.Stdout || line.Stream == "stderr" && !r.o.Stderr {
			continue
		}
		return line, nil
	}
}

// raw returns the next whole line on disk, nil when there is none at the moment.
func (r *LogReader) raw() ([]byte, error) {
	for {
		if i := bytes.IndexByte(r.buf, '\n'); i >= 0 {
			line := r.buf[:i]
			r.buf = r.buf[i+1:]
			return line, nil
		}
		if len(r.buf) > maxLine {
			r.buf = r.buf[:0] // not ours; look for the next end of line
		}
		n, err := r.fill()
		if n > 0 {
			continue
		}
		if err != nil && err != io.EOF {
			return nil, err
		}
		if len(r.files) <= 1 {
			return nil, nil
		}
		r.files[0].Close()
		r.files, r.buf = r.files[1:], r.buf[:0]
	}
}

// fill reads on in the file at hand.
func (r *LogReader) fill() (int, error) {
	if len(r.files) == 0 {
		return 0, io.EOF
	}
	const chunk = 32 << 10
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
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil // between a rotation's two renames, or removed
		}
		if err != nil || os.SameFile(now, r.files[0].info) {
			return false, err
		}
		// The file was renamed while it was read, so nothing is written to it any more: what it has
		// now is all.
		if n, err := r.fill(); n > 0 || err != nil && err != io.EOF {
			return n > 0, err
		}
	}
	files, err := openLogFiles(r.path)
	if err != nil {
		return false, err
	}
	newer := files
	for i, f := range files {
		if len(r.files) > 0 && os.SameFile(f.info, r.files[0].info) {
			newer = files[i+1:]
			for _, old := range files[:i+1] {
				old.Close()
			}
		}
	}
	if len(newer) == len(files) {
		r.after = r.last // ours was compressed or dropped meanwhile: skip by time
	}
	if len(newer) == 0 {
		return false, nil
	}
	for _, f := range r.files {
		f.Close()
	}
	r.files, r.buf = newer, r.buf[:0]
	return true, nil
}

// Close releases the files.
func (r *LogReader) Close() error {
	var err error
	for _, f := range r.files {
		err = errors.Join(err, f.Close())
	}
	r.files = nil
	return err
}

// entry is a line as Docker's json-file driver writes it.
type entry struct {
	Log    string            `json:"log"`
	Stream string            `json:"stream"`
	Attrs  map[string]string `json:"attrs"`
	Time   time.Time         `json:"time"`
}

// parseLine reads one line of a log file; false when it is none.
func parseLine(raw []byte) (*Line, bool) {
	var e entry
	if err := json.Unmarshal(raw, &e); err != nil || e.Stream != "stdout" && e.Stream != "stderr" {
		return nil, false
	}
	return &Line{Time: e.Time, Stream: e.Stream, Text: []byte(e.Log), Attrs: e.Attrs}, true
}
