// Package forward sends the lines of a container's log to where its log driver says: journald, syslog, GELF, Fluentd.
//
// It never stands between a container and its output: the supervisor writes the log to local files whatever the driver,
// and this reads those, so that logs can be read with every driver and nothing is lost while the daemon or the destination is
// down, as long as the rotation keeps it. Invariant: a line is behind the recorded place only when it was sent, so each
// is sent at least once.
package forward

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"berth/container"
	"berth/internal/record"
)

// placeFile is the record of how far a container's log was sent, in the container's directory.
const placeFile = "forwarded.json"

// Pauses between attempts to reach a destination, and between two records of the place.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = time.Minute
	savePause  = time.Second
	farewell   = 10 * time.Second // for what a removed container has left
	batch      = 256              // lines between two flushes at most
)

// message is one line, or a part of one, on its way.
type message struct {
	time   time.Time
	stderr bool
	text   []byte // without the end of line
	// Of a line in parts: an ID that its parts share, counted from 1, and whether it is the last. Zero otherwise.
	partID string
	part   int
	last   bool
}

// destination is one connection. Errors mean that it is broken.
type destination interface {
	// send may keep a message back until flush, but not its text.
	send(m *message) error
	// flush returns when what was sent is with the other side, as far as the protocol can tell.
	flush() error
	Close() error
}

// Forwarder sends one container's log.
type Forwarder struct {
	info   Info
	driver driver
	log    *slog.Logger
	ended  <-chan struct{}
	cancel context.CancelFunc
	done   chan struct{}
	lines  *container.LogReader // opened in advance; nil: none

	place  place
	saved  time.Time
	parts  map[string]*message // by stream: the part before
	failed bool                // it was said that the destination can't be reached

	recording sync.Mutex // held while the place is written
	leaving   bool       // nothing is written any more: the container's directory is being removed
}

type place struct {
	Offset int64
}

// Start begins to send what was not sent yet and goes on until ended, which is closed at the end of the container's
// run (nil: it has ended), has happened and all is sent, or until ctx ends or Stop is called. It doesn't wait for the destination.
func Start(ctx context.Context, info Info, ended <-chan struct{}, log *slog.Logger) (*Forwarder, error) {
	d, ok := drivers()[info.Driver]
	if !ok {
		return nil, invalid("logger: no log driver named '%s' is registered", info.Driver)
	}
	tag, err := info.Tag()
	if err != nil {
		return nil, err
	}
	info.tag = tag
	if info.attrs, err = info.Attributes(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	f := &Forwarder{info: info, driver: d, log: log.With("container", info.Name(), "driver", info.Driver), cancel: cancel, done: make(chan struct{}), parts: map[string]*message{}}
	record.Load(f.placePath(), &f.place) // without one, all of the log is to be sent
	f.ended = ended
	f.lines, _ = f.open() // now: the files of a container that is removed meanwhile stay; what fails is tried again
	go func() {
		defer close(f.done)
		defer cancel()
		f.run(ctx)
	}()
	return f, nil
}

// Behind tells whether a log has something that was not sent.
func Behind(logPath string) bool {
	var p place
	if record.Load(filepath.Join(filepath.Dir(logPath), placeFile), &p) != nil {
		return true
	}
	r, err := container.OpenLog(logPath, container.LogOptions{Stdout: true, Stderr: true, Tail: -1, From: p.Offset})
	if err != nil {
		return false
	}
	defer r.Close()
	_, err = r.Next(context.Background())
	return err == nil
}

// Forget has a log that is begun anew sent from its beginning.
func Forget(logPath string) error {
	err := os.Remove(filepath.Join(filepath.Dir(logPath), placeFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// Stop ends the sending now; what is left is for the next Forwarder. It returns when that may start.
func (f *Forwarder) Stop() {
	f.cancel()
	<-f.done
}

// Leave lets a forwarder finish whose container is being removed: it has its files open, and a moment to send what they hold. It doesn't wait for that;
// when it returns nothing is written to the container's directory any more, which can be removed.
func (f *Forwarder) Leave() {
	f.recording.Lock()
	f.leaving = true
	f.recording.Unlock()
	timer := time.AfterFunc(farewell, f.cancel)
	go func() {
		<-f.done
		timer.Stop()
	}()
}

// Done is closed when all is sent or the forwarder was stopped.
func (f *Forwarder) Done() <-chan struct{} { return f.done }

func (f *Forwarder) placePath() string { return filepath.Join(filepath.Dir(f.info.LogPath), placeFile) }

// run sends, and begins again at the recorded place after a failure, with growing pauses.
func (f *Forwarder) run(ctx context.Context) {
	defer func() {
		if f.lines != nil {
			f.lines.Close()
		}
	}()
	pause := firstPause
	for {
		begun := f.place.Offset
		err := f.pump(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		if f.place.Offset > begun {
			pause = firstPause
		}
		if !f.failed {
			f.failed = true
			f.log.Warn("logs can't be forwarded; they are kept as long as the rotation allows, and sent when it is possible", "error", err)
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		pause = min(2*pause, lastPause)
	}
}

// open opens the log where the sending goes on.
func (f *Forwarder) open() (*container.LogReader, error) {
	return container.OpenLog(f.info.LogPath, container.LogOptions{
		Stdout: true, Stderr: true, Tail: -1, From: f.place.Offset, Follow: f.ended != nil, Ended: f.ended,
	})
}

// pump connects and sends until the log ends or something fails.
func (f *Forwarder) pump(ctx context.Context) (err error) {
	lines := f.lines
	if f.lines = nil; lines == nil {
		if lines, err = f.open(); err != nil {
			return err
		}
	}
	d, err := f.driver.dial(ctx, &f.info)
	if err != nil {
		f.lines = lines // nothing of it was read
		return err
	}
	defer lines.Close()
	defer d.Close()
	defer context.AfterFunc(ctx, func() { d.Close() })() // nobody waits for a destination that takes nothing
	if f.failed {
		f.failed = false
		f.log.Info("logs are forwarded again")
	}
	next := f.place.Offset
	for n := 1; ; n++ {
		line, err := lines.Next(ctx)
		if err != nil {
			return errors.Join(f.arrived(d, next, true), end(ctx, err))
		}
		if line.Skipped > 0 {
			f.log.Warn("a part of the log was dropped by the rotation before it could be forwarded", "bytes", line.Skipped)
		}
		if err := d.send(f.message(line)); err != nil {
			return err
		}
		next = line.Next
		if n%batch == 0 || !lines.Pending() {
			if err := f.arrived(d, next, false); err != nil {
				return err
			}
		}
	}
}

// end is nil for the end of a log.
func end(ctx context.Context, err error) error {
	if err == io.EOF || ctx.Err() != nil {
		return nil
	}
	return err
}

// arrived moves the place on when all up to it is sent.
func (f *Forwarder) arrived(d destination, next int64, now bool) error {
	if err := d.flush(); err != nil {
		return err
	}
	if next == f.place.Offset || !now && time.Since(f.saved) < savePause {
		return nil
	}
	f.place.Offset, f.saved = next, time.Now()
	f.recording.Lock()
	defer f.recording.Unlock()
	if f.leaving {
		return nil
	}
	if err := record.Put(f.placePath(), f.place); err != nil && !errors.Is(err, os.ErrNotExist) {
		f.log.Warn("the place up to which logs were forwarded can't be recorded", "error", err)
	}
	return nil
}

// partSize is that of the parts in which the supervisor cuts long lines.
const partSize = 16 << 10

// message makes one of a line. A line in parts keeps its ID over a new connection, as long as that one sees its beginning.
func (f *Forwarder) message(l *container.Line) *message {
	text, whole := bytes.CutSuffix(l.Text, []byte{'\n'})
	m := &message{time: l.Time, stderr: l.Stream == "stderr", text: text}
	before := f.parts[l.Stream]
	m.last = whole || len(text) < partSize
	if before == nil && m.last || l.Skipped > 0 {
		m.last = false
		return m
	}
	if before != nil {
		m.partID, m.part = before.partID, before.part+1
	} else {
		m.partID, m.part = fmt.Sprintf("%s-%d", f.info.ID(), l.Next), 1
	}
	f.parts[l.Stream] = m
	if m.last {
		delete(f.parts, l.Stream)
	}
	return m
}
