package shim

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"io"

	"berth/internal/logtext"
)

// replay writes the log's lines, then the unfinished ones, under the lock that attach took.
func (c *client) replay(log io.Reader, rest map[byte][]byte) {
	if !c.Logs {
		return
	}
	out := make([]byte, 0, chunkSize)
	flush := func(room int) {
		if len(out) > 0 && cap(out)-len(out) < room {
			c.putRaw(out)
			out = out[:0]
		}
	}
	lines := bufio.NewReaderSize(log, chunkSize)
	var long []byte
	for !c.gone {
		line, err := lines.ReadSlice('\n')
		if err == bufio.ErrBufferFull {
			long = append(long, line...)
			continue
		}
		if err != nil { // the end, or a file that a disk lost: what was read is all there is
			break
		}
		if len(long) > 0 {
			long = append(long, line...)
			line = long
			long = long[:0]
		}
		flush(frameHeader + len(line))
		out = c.appendLine(out, line)
	}
	for _, number := range []byte{streamOut, streamErr} {
		if text := rest[number]; len(text) > 0 && c.wants(number) {
			from := len(out)
			out = append(append(out, make([]byte, c.header())...), text...)
			c.seal(out[from:], number)
		}
	}
	flush(cap(out) + 1)
}

// header is how many bytes stand before each piece of output.
func (c *client) header() int {
	if c.Frames {
		return frameHeader
	}
	return 0
}

// seal fills a frame's header in.
func (c *client) seal(frame []byte, stream byte) {
	if c.Frames {
		frame[0] = stream
		binary.BigEndian.PutUint32(frame[4:], uint32(len(frame)-frameHeader))
	}
}

// appendLine appends one line of the log as the client wants it, if it does.
func (c *client) appendLine(out, line []byte) []byte {
	from := len(out)
	out = append(out, make([]byte, c.header())...)
	out, stream, ok := appendText(out, line)
	if !ok || !c.wants(stream) {
		return out[:from]
	}
	c.seal(out[from:], stream)
	return out
}

// putRaw writes what is framed already.
func (c *client) putRaw(data []byte) {
	if _, err := c.Conn.Write(data); err != nil {
		c.broken()
	}
}

// appendText appends the text of one record of a log. Records that are not as appendRecord writes them are left to the
// JSON package; ok is false for what is no record, as a full disk may leave.
func appendText(out, record []byte) (text []byte, stream byte, ok bool) {
	if text, stream, ok = appendOwn(out, record); ok {
		return text, stream, true
	}
	var entry struct {
		Log    string `json:"log"`
		Stream string `json:"stream"`
		Raw    []byte `json:"raw"`
	}
	if json.Unmarshal(record, &entry) != nil {
		return out, 0, false
	}
	if stream = streamOut; entry.Stream == "stderr" {
		stream = streamErr
	}
	if entry.Raw != nil {
		return append(out, entry.Raw...), stream, true
	}
	return append(out, entry.Log...), stream, true
}

// appendOwn is appendText for records of our own (and Docker's) making.
func appendOwn(out, record []byte) (text []byte, stream byte, ok bool) {
	s, ok := bytes.CutPrefix(record, []byte(`{"log":"`))
	if !ok {
		return out, 0, false
	}
	text, s, ok = logtext.Unescape(out, s)
	switch {
	case !ok:
		return out, 0, false
	case bytes.HasPrefix(s, []byte(`,"stream":"stdout","`)):
		stream = streamOut
	case bytes.HasPrefix(s, []byte(`,"stream":"stderr","`)):
		stream = streamErr
	default:
		return out, 0, false
	}
	if _, raw, found := bytes.Cut(ownFields(s), []byte(rawKey)); found {
		end := bytes.IndexByte(raw, '"')
		if end < 0 {
			return out, 0, false
		}
		var err error
		if text, err = base64.StdEncoding.AppendDecode(text[:len(out)], raw[:end]); err != nil {
			return out, 0, false
		}
	}
	return text, stream, true
}

// ownFields is what stands behind the time in a record, where nothing of the user's does.
func ownFields(record []byte) []byte {
	const key = `"time":"`
	i := bytes.LastIndex(record, []byte(key))
	if i < 0 {
		return nil
	}
	_, rest, _ := bytes.Cut(record[i+len(key):], []byte{'"'})
	return rest
}
