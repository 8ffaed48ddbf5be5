package container

import (
	"context"
	"errors"
	"time"
)

// LogOptions select lines of a log.
type LogOptions struct {
	Stdout, Stderr bool
	Since, Until   time.Time // zero: no bound
	Tail           int       // lines from the end; negative: all
	Follow         bool      // wait for more until Ended says that no more comes
	// Ended is closed when the container has ended and its log is complete. nil: ended already.
	Ended <-chan struct{}
}

// Line is one line of a log, its end of line included where it had one.
type Line struct {
	Time   time.Time
	Stream string // "stdout" or "stderr"
	Text   []byte // valid until the next call
	Attrs  map[string]string
}

// LogReader reads the json-file log of one container, over its rotated files.
type LogReader struct{}

// OpenLog opens the log at path, with path.1, path.2.gz … as its older parts. A log that does not
// exist is empty. The caller closes the reader.
func OpenLog(path string, o LogOptions) (*LogReader, error) {
	return nil, errors.New("not written yet")
}

// Next returns the next line, io.EOF at the end. While following it waits for more, until ctx ends.
func (r *LogReader) Next(ctx context.Context) (*Line, error) {
	return nil, errors.New("not written yet")
}

// Close releases the files.
func (r *LogReader) Close() error { return nil }
