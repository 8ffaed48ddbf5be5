package shim

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"berth/fault"
)

// logger is a container's log: a file, and the older ones. A log that can't be written costs its lines, never the
// container. It is not for use by several at once: mu, which is its owner's, is held by whoever calls.
//
// Each file's first record tells how many bytes were logged before that file, so that a reader
// knows where it is whatever the files are called by now, and how much was dropped before it came.
type logger struct {
	Log
	mu      sync.Locker
	idle    func()   // called without mu when a helper has ended
	packing *packing // the helper at work; nil: none
	settled bool     // nothing is packed any more: the files are the next run's
	file    *os.File
	size    int64 // of file
	offset  int64 // bytes logged before file
	buf     []byte
	lines   uint64 // in buf
	lost    uint64
	at      time.Time // of the last line, and how it is written: lines come in bunches
	stamp   []byte
}

// openLog continues or begins a log; nil without an error means that none is kept.
func openLog(l Log) (*logger, error) {
	switch {
	case l.Driver == LogNone || l.Driver == "" && l.Path == "":
		return nil, nil
	case l.Driver != LogJSONFile && l.Driver != "":
		return nil, fault.New(fault.Unsupported, "log driver %q is not known; use %s or %s", l.Driver, LogJSONFile, LogNone)
	}
	f, err := os.OpenFile(l.Path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	size, err := mend(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open log: %w", err)
	}
	log := &logger{Log: l, mu: new(sync.Mutex), idle: func() {}, file: f, size: size}
	log.tidy()
	if size > 0 {
		log.offset = firstOffset(f)
	} else {
		log.offset = log.endOf(1)
	}
	return log, nil
}

// share gives the log the lock that its owner holds over all use of it, and puts it to work.
func (l *logger) share(mu sync.Locker, idle func()) {
	l.mu, l.idle = mu, idle
	mu.Lock()
	defer mu.Unlock()
	l.pack()
}

// mend cuts off an unfinished record that a killed supervisor left, and returns the file's size.
func mend(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return 0, err
	}
	block := make([]byte, 4<<10)
	for end := info.Size(); end > 0; {
		from := max(0, end-int64(len(block)))
		tail := block[:end-from]
		if _, err := f.ReadAt(tail, from); err != nil {
			return 0, err
		}
		if i := bytes.LastIndexByte(tail, '\n'); i >= 0 {
			size := from + int64(i) + 1
			if size == info.Size() {
				return size, nil
			}
			return size, f.Truncate(size)
		}
		end = from
	}
	return 0, f.Truncate(0)
}

// add appends a line; flush writes it.
func (l *logger) add(stream string, line []byte, last bool, at time.Time) {
	if at != l.at {
		l.at, l.stamp = at, appendStamp(l.stamp[:0], at)
	}
	before := len(l.buf)
	l.record(stream, line, last)
	if l.MaxSize > 0 && l.size+int64(len(l.buf)) > l.MaxSize && l.size+int64(before) > 0 {
		l.buf = l.buf[:before]
		l.flush()
		l.rotate()
		l.record(stream, line, last)
	}
	l.lines++
	if len(l.buf) >= logBuffer {
		l.flush()
	}
}

func (l *logger) record(stream string, line []byte, last bool) {
	offset := int64(-1)
	if l.size == 0 && len(l.buf) == 0 {
		offset = l.offset
	}
	l.buf = appendRecord(l.buf, stream, line, last, l.stamp, l.Attrs, offset)
}

// flush writes what add collected. What finds no room is lost and counted,
// and the file still ends with a whole record.
func (l *logger) flush() {
	if len(l.buf) == 0 {
		return
	}
	n, err := l.file.Write(l.buf)
	if err != nil {
		n = max(n, 0)
		whole := bytes.LastIndexByte(l.buf[:n], '\n') + 1
		l.lost += l.lines - uint64(bytes.Count(l.buf[:whole], []byte{'\n'}))
		if whole < n {
			// Making a file shorter needs no room. Should it fail all the same, the broken record stays: readers pass over it.
			if l.file.Truncate(l.size+int64(whole)) == nil {
				n = whole
			}
		}
	}
	l.size += int64(n)
	l.buf, l.lines = l.buf[:0], 0
}

// rest gives a large buffer back until the next output.
func (l *logger) rest() {
	if cap(l.buf) > 4<<10 {
		l.buf = nil
	}
}

// rotate begins a new file. With MaxFiles below 2 the old one goes, and stays whole for those who read it; otherwise the
// older ones move up by one, and the last goes. When that fails, the log goes on where it is.
func (l *logger) rotate() {
	if last := l.MaxFiles - 1; last > 0 {
		os.Remove(l.name(last))
		os.Remove(l.packed(last))
		for i := last; i > 0; i-- {
			if !moved(l.name(i-1), l.name(i)) || i > 1 && !moved(l.packed(i-1), l.packed(i)) {
				return
			}
		}
		l.packing.moveUp(l.MaxFiles)
	}
	if l.begin() == nil {
		l.pack()
	}
}

// moved renames a file if there is one.
func moved(from, to string) bool {
	err := os.Rename(from, to)
	return err == nil || errors.Is(err, os.ErrNotExist)
}

// begin makes a new file the current one.
func (l *logger) begin() error {
	f, err := os.OpenFile(l.Path+newSuffix, os.O_RDWR|os.O_APPEND|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), l.Path); err != nil {
		f.Close()
		return err
	}
	if info, err := l.file.Stat(); err == nil { // somebody may have cut it
		l.size = min(l.size, info.Size())
	}
	l.file.Close()
	l.file, l.offset, l.size = f, l.offset+l.size, 0
	return nil
}

// clear drops all that is logged. Offsets go on.
func (l *logger) clear() error {
	l.flush()
	if err := l.begin(); err != nil {
		return fmt.Errorf("clear log: %w", err)
	}
	l.packing.moveUp(0)
	for i := 1; i < l.MaxFiles; i++ {
		os.Remove(l.name(i))
		os.Remove(l.packed(i))
	}
	return nil
}

// name is that of the i-th file, 0 being the current one.
func (l *logger) name(i int) string {
	if i == 0 {
		return l.Path
	}
	return l.Path + "." + strconv.Itoa(i)
}

// packed is the name of the i-th file when it is compressed.
func (l *logger) packed(i int) string { return l.name(i) + packedSuffix }

func (l *logger) close() error {
	l.flush()
	return l.file.Close()
}
