package forward

import (
	"context"
	"encoding/binary"
	"net"
	"strconv"
	"strings"
	"time"
)

const journalSocket = "/run/systemd/journal/socket"

// journald speaks systemd's native journal protocol: a datagram of fields for each message (systemd.io, "Native Journal Protocol").
// A line's parts have at most 16 KiB, so that a message with all its fields fits into a datagram.
type journald struct {
	net.Conn
	fields []byte // the same for all messages
	buf    []byte
}

func dialJournald(ctx context.Context, info *Info) (destination, error) {
	c, err := dial(ctx, "unixgram", journalSocket)
	if err != nil {
		return nil, err
	}
	return newJournald(c, info), nil
}

func newJournald(c net.Conn, info *Info) *journald {
	j := &journald{Conn: c}
	for _, f := range [][2]string{
		{"CONTAINER_ID", info.ID()}, {"CONTAINER_ID_FULL", info.ContainerID}, {"CONTAINER_NAME", info.Name()}, {"CONTAINER_TAG", info.tag},
		{"IMAGE_NAME", info.ContainerImageName}, {"SYSLOG_IDENTIFIER", info.tag},
	} {
		j.fields = appendField(j.fields, f[0], f[1])
	}
	for k, v := range info.attrs {
		j.fields = appendField(j.fields, fieldName(k), v)
	}
	return j
}

// appendField writes one field: as a line, or, when its value has several, with its length.
func appendField(b []byte, name, value string) []byte {
	if name == "" {
		return b
	}
	b = append(b, name...)
	if strings.IndexByte(value, '\n') < 0 {
		return append(append(append(b, '='), value...), '\n')
	}
	b = binary.LittleEndian.AppendUint64(append(b, '\n'), uint64(len(value)))
	return append(append(b, value...), '\n')
}

// fieldName makes a journal's field of a label: capitals, digits and underscores, the first one no underscore, as the journal keeps those to itself.
func fieldName(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, s)
	s = strings.TrimLeft(s, "_")
	if s != "" && s[0] <= '9' {
		s = "N" + s
	}
	return s[:min(64, len(s))]
}

func (j *journald) send(m *message) error {
	priority := "6"
	if m.stderr {
		priority = "3"
	}
	b := append(j.buf[:0], j.fields...)
	b = appendField(b, "PRIORITY", priority)
	b = appendField(b, "SYSLOG_TIMESTAMP", m.time.Format(time.RFC3339Nano))
	if m.part > 0 {
		b = appendField(b, "CONTAINER_PARTIAL_ID", m.partID)
		b = appendField(b, "CONTAINER_PARTIAL_ORDINAL", strconv.Itoa(m.part))
		b = appendField(b, "CONTAINER_PARTIAL_LAST", strconv.FormatBool(m.last))
		if !m.last {
			b = appendField(b, "CONTAINER_PARTIAL_MESSAGE", "true")
		}
	}
	j.buf = appendField(b, "MESSAGE", string(m.text))
	j.Conn.SetWriteDeadline(time.Now().Add(sendTimeout))
	_, err := j.Conn.Write(j.buf)
	return err
}

func (j *journald) flush() error { return nil }
