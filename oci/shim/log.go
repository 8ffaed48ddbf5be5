package shim

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"
	"unicode/utf8"

	"berth/fault"
)

// Docker's json-file format: one JSON object per line of output, lines cut
// after 16 KiB; a part that isn't the last of its line has no newline at its
// end, and all parts carry the time of the first.
const (
	maxLine   = 16 << 10
	logBuffer = 64 << 10 // bytes collected before a write, within one read of output
	maxRecord = 6*maxLine + 256
)

// splitter cuts one stream into the lines of a log.
type splitter struct {
	pending []byte    // the unfinished line, shorter than maxLine
	since   time.Time // of the line's first part, when an earlier part is out already
}

// feed takes output that was read at the given time. emit gets every line, newline taken off, or
// part of a line; it may not keep the slice.
func (s *splitter) feed(data []byte, at time.Time, emit func(line []byte, last bool, at time.Time)) {
	for len(data) > 0 {
		window := data[:min(maxLine-len(s.pending), len(data))]
		end := bytes.IndexByte(window, '\n')
		last := end >= 0
		line := window
		if last {
			line = window[:end]
			data = data[end+1:]
		} else {
			data = data[len(window):]
		}
		if len(s.pending) > 0 || !last && len(line) < maxLine {
			s.pending = append(s.pending, line...)
			line = s.pending
		}
		if !last && len(line) < maxLine {
			return
		}
		s.emit(line, last, at, emit)
	}
}

// flush gives out an unfinished line at the end of the stream, as a part.
func (s *splitter) flush(at time.Time, emit func(line []byte, last bool, at time.Time)) {
	if len(s.pending) > 0 {
		s.emit(s.pending, false, at, emit)
	}
}

func (s *splitter) emit(line []byte, last bool, at time.Time, emit func([]byte, bool, time.Time)) {
	if !s.since.IsZero() {
		at = s.since
	}
	emit(line, last, at)
	s.since = time.Time{}
	if !last {
		s.since = at
	}
	if s.pending = s.pending[:0]; cap(s.pending) > 1<<10 {
		s.pending = nil // an idle container shall not hold 16 KiB
	}
}

// appendStamp appends a time as a record has it.
func appendStamp(buf []byte, at time.Time) []byte {
	return at.UTC().AppendFormat(buf, time.RFC3339Nano)
}

// appendRecord appends one line of the log to buf.
func appendRecord(buf []byte, stream string, line []byte, last bool, stamp []byte) []byte {
	buf = append(buf, `{"log":"`...)
	buf = appendEscaped(buf, line)
	if last {
		buf = append(buf, `\n`...)
	}
	buf = append(buf, `","stream":"`...)
	buf = append(buf, stream...)
	buf = append(buf, `","time":"`...)
	buf = append(buf, stamp...)
	return append(buf, "\"}\n"...)
}

// appendEscaped writes s as the inside of a JSON string as Docker does: also <, > and & are escaped, and tabs by number.
func appendEscaped(buf, s []byte) []byte {
	const hex = "0123456789abcdef"
	start := 0
	for i := 0; i < len(s); {
		b := s[i]
		if b < utf8.RuneSelf {
			if b >= 0x20 && b != '\\' && b != '"' && b != '<' && b != '>' && b != '&' {
				i++
				continue
			}
			buf = append(buf, s[start:i]...)
			switch b {
			case '\\', '"':
				buf = append(buf, '\\', b)
			case '\n':
				buf = append(buf, '\\', 'n')
			case '\r':
				buf = append(buf, '\\', 'r')
			default:
				buf = append(buf, '\\', 'u', '0', '0', hex[b>>4], hex[b&0xf])
			}
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRune(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			buf = append(append(buf, s[start:i]...), `\ufffd`...)
		case r == '\u2028' || r == '\u2029':
			buf = append(append(buf, s[start:i]...), '\\', 'u', '2', '0', '2', hex[r&0xf])
		default:
			i += size
			continue
		}
		i += size
		start = i
	}
	return append(buf, s[start:]...)
}

// logger is a container's log file. A log that can't be written costs its lines, never the container. It is
// not for use by several at once.
type logger struct {
	Log
	file  *os.File
	size  int64
	buf   []byte
	lines uint64 // in buf
	lost  uint64
	at    time.Time // of the last line, and how it is written: lines come in bunches
	stamp []byte
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
	return &logger{Log: l, file: f, size: size}, nil
}

// mend cuts off an unfinished record that a killed supervisor left, and returns the file's size.
func mend(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return 0, err
	}
	tail := make([]byte, min(info.Size(), maxRecord))
	from := info.Size() - int64(len(tail))
	if _, err := f.ReadAt(tail, from); err != nil {
		return 0, err
	}
	end := bytes.LastIndexByte(tail, '\n') + 1
	if end == len(tail) {
		return info.Size(), nil
	}
	size := from + int64(end)
	return size, f.Truncate(size)
}

// add appends a line; flush writes it.
func (l *logger) add(stream string, line []byte, last bool, at time.Time) {
	if l.MaxSize > 0 && l.size+int64(len(l.buf)) >= l.MaxSize {
		l.flush()
		l.rotate()
	}
	if at != l.at {
		l.at, l.stamp = at, appendStamp(l.stamp[:0], at)
	}
	l.buf = appendRecord(l.buf, stream, line, last, l.stamp)
	l.lines++
	if len(l.buf) >= logBuffer {
		l.flush()
	}
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

// rotate begins a new file. With MaxFiles below 2 that is the same one, emptied; otherwise the older ones move
// up by one, and the last goes. When that fails, the log goes on where it is.
func (l *logger) rotate() {
	if l.MaxFiles < 2 {
		if l.file.Truncate(0) == nil {
			l.size = 0
		}
		return
	}
	for i := l.MaxFiles - 1; i > 0; i-- {
		if err := os.Rename(l.name(i-1), l.name(i)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return
		}
	}
	f, err := os.OpenFile(l.Path, os.O_RDWR|os.O_APPEND|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return
	}
	l.file.Close()
	l.file, l.size = f, 0
}

// name is that of the i-th file, 0 being the current one.
func (l *logger) name(i int) string {
	if i == 0 {
		return l.Path
	}
	return l.Path + "." + strconv.Itoa(i)
}

// snapshot opens what is logged up to now, oldest first. Rotation and later lines don't change
// what the readers give; the caller closes the files.
func (l *logger) snapshot() (files []*os.File, parts []io.Reader) {
	if l == nil {
		return nil, nil
	}
	for i := max(l.MaxFiles, 1) - 1; i >= 0; i-- {
		f, err := os.Open(l.name(i))
		if err != nil {
			continue
		}
		files = append(files, f)
		if i > 0 {
			parts = append(parts, f)
		} else {
			parts = append(parts, io.LimitReader(f, l.size))
		}
	}
	return files, parts
}

func (l *logger) close() error {
	l.flush()
	return l.file.Close()
}
