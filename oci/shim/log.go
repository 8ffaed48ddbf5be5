package shim

import (
	"bytes"
	"encoding/base64"
	"strconv"
	"time"

	"berth/internal/logtext"
)

// Docker's json-file format: one JSON object per line of output, lines cut
// after 16 KiB; a part that isn't the last of its line has no newline at its
// end, and all parts carry the time of the first.
const (
	maxLine   = 16 << 10
	logBuffer = 64 << 10 // bytes collected before a write, within one read of output
)

// Fields that Docker's format has not, and whose readers pass over them. Neither can stand inside a string, where quotes are escaped.
const (
	offsetKey = `,"offset":`
	rawKey    = `,"raw":"`
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

// appendRecord appends one line of the log to buf. attrs is a JSON object, "" for none, and offset the number of bytes logged before
// this file, which its first record tells; negative: not that one. Bytes that are no UTF-8 can't stand in JSON, so
// Docker writes U+FFFD for them; such a record has the line as it was beside that, in base64.
func appendRecord(buf []byte, stream string, line []byte, last bool, stamp []byte, attrs string, offset int64) []byte {
	buf = append(buf, `{"log":"`...)
	buf, whole := logtext.AppendEscaped(buf, line)
	if last {
		buf = append(buf, `\n`...)
	}
	buf = append(buf, `","stream":"`...)
	buf = append(buf, stream...)
	if attrs != "" {
		buf = append(append(buf, `","attrs":`...), attrs...)
		buf = append(buf, `,"time":"`...)
	} else {
		buf = append(buf, `","time":"`...)
	}
	buf = append(append(buf, stamp...), '"')
	if offset > 0 {
		buf = strconv.AppendInt(append(buf, offsetKey...), offset, 10)
	}
	if !whole {
		buf = append(buf, rawKey...)
		buf = appendBase64(buf, line, last)
		buf = append(buf, '"')
	}
	return append(buf, "}\n"...)
}

// appendBase64 encodes the line and its end.
func appendBase64(buf, line []byte, last bool) []byte {
	if !last {
		return base64.StdEncoding.AppendEncode(buf, line)
	}
	even := len(line) - len(line)%3
	buf = base64.StdEncoding.AppendEncode(buf, line[:even])
	var tail [3]byte
	return base64.StdEncoding.AppendEncode(buf, append(append(tail[:0], line[even:]...), '\n'))
}
