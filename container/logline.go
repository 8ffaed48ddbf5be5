package container

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"time"

	"berth/internal/logtext"
)

// entry is a line as Docker's json-file driver writes it, with the field that we have beside: a line that is no UTF-8, as it was.
type entry struct {
	Log    string            `json:"log"`
	Stream string            `json:"stream"`
	Attrs  map[string]string `json:"attrs"`
	Time   time.Time         `json:"time"`
	Raw    []byte            `json:"raw"`
}

// parse reads one record of a log file; false when it is none.
func (l *Line) parse(record []byte) bool {
	if l.parseOwn(record) {
		return true
	}
	var e entry
	if err := json.Unmarshal(record, &e); err != nil || e.Stream != "stdout" && e.Stream != "stderr" {
		return false
	}
	l.Time, l.Stream, l.Text, l.Attrs = e.Time, e.Stream, append(l.Text[:0], e.Log...), e.Attrs
	if e.Raw != nil {
		l.Text = append(l.Text[:0], e.Raw...)
	}
	return true
}

// parseOwn reads a record as Docker and we write them, many times faster than the JSON package; it leaves all others alone.
func (l *Line) parseOwn(record []byte) bool {
	s, ok := bytes.CutPrefix(record, []byte(`{"log":"`))
	if !ok {
		return false
	}
	if l.Text, s, ok = logtext.Unescape(l.Text[:0], s); !ok {
		return false
	}
	if s, ok = bytes.CutPrefix(s, []byte(`,"stream":"std`)); !ok {
		return false
	}
	stream, s, _ := bytes.Cut(s, []byte{'"'})
	switch string(stream) {
	case "out":
		l.Stream = "stdout"
	case "err":
		l.Stream = "stderr"
	default:
		return false
	}
	l.Attrs = nil
	at := bytes.LastIndex(s, []byte(timeKey))
	if at < 0 {
		return false
	}
	if attrs, ok := bytes.CutPrefix(s[:at], []byte(`,"attrs":`)); ok {
		if json.Unmarshal(attrs, &l.Attrs) != nil {
			return false
		}
	} else if at > 0 {
		return false
	}
	stamp, s, _ := bytes.Cut(s[at+len(timeKey):], []byte{'"'})
	var err error
	if l.Time, err = time.Parse(time.RFC3339Nano, string(stamp)); err != nil {
		return false
	}
	_, raw, found := bytes.Cut(s, []byte(`,"raw":"`))
	if !found {
		return true
	}
	raw, _, found = bytes.Cut(raw, []byte{'"'})
	l.Text, err = base64.StdEncoding.AppendDecode(l.Text[:0], raw)
	return found && err == nil
}

const timeKey = `,"time":"`

// offsetOf is what the first record of a file tells of the bytes before it; negative when it doesn't. It stands behind the
// time, where nothing of a user's does.
func offsetOf(record []byte) int64 {
	at := bytes.LastIndex(record, []byte(timeKey))
	if at < 0 {
		return -1
	}
	_, digits, found := bytes.Cut(record[at+len(timeKey):], []byte(`","offset":`))
	end := bytes.IndexAny(digits, ",}")
	if !found || end < 0 {
		return -1
	}
	offset, err := strconv.ParseInt(string(digits[:end]), 10, 64)
	if err != nil {
		return -1
	}
	return offset
}
