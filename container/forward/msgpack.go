package forward

import (
	"bufio"
	"encoding/binary"
	"io"
	"time"

	"berth/fault"
)

// The few forms of MessagePack (msgpack.org, the specification) that Fluentd's protocol needs.

// packString writes a string, whatever its bytes.
func packString(b []byte, s string) []byte {
	switch n := len(s); {
	case n < 32:
		b = append(b, 0xa0|byte(n))
	case n < 1<<8:
		b = append(b, 0xd9, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0xda), uint16(n))
	default:
		b = binary.BigEndian.AppendUint32(append(b, 0xdb), uint32(n))
	}
	return append(b, s...)
}

// packMap writes a map of strings, keys and values in turn.
func packMap(b []byte, pairs ...string) []byte {
	if n := len(pairs) / 2; n < 16 {
		b = append(b, 0x80|byte(n))
	} else {
		b = binary.BigEndian.AppendUint16(append(b, 0xde), uint16(n))
	}
	for _, s := range pairs {
		b = packString(b, s)
	}
	return b
}

// packTime writes seconds, or, when it is to be finer, Fluentd's EventTime (extension type 0).
func packTime(b []byte, t time.Time, fine bool) []byte {
	if !fine {
		return binary.BigEndian.AppendUint64(append(b, 0xd3), uint64(t.Unix()))
	}
	b = binary.BigEndian.AppendUint32(append(b, 0xd7, 0), uint32(t.Unix()))
	return binary.BigEndian.AppendUint32(b, uint32(t.Nanosecond()))
}

// longest is what an answer's strings may have.
const longest = 4 << 10

// unpackMap reads a map of strings.
func unpackMap(r *bufio.Reader) (map[string]string, error) {
	head, err := r.ReadByte()
	if err != nil {
		return nil, err
	}
	if head&0xf0 != 0x80 {
		return nil, fault.New(fault.Corrupt, "an answer of the kind %#x, not a map", head)
	}
	m := map[string]string{}
	for range head & 0x0f {
		k, err := unpackString(r)
		if err != nil {
			return nil, err
		}
		if m[k], err = unpackString(r); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func unpackString(r *bufio.Reader) (string, error) {
	head, err := r.ReadByte()
	if err != nil {
		return "", err
	}
	size, more := 0, 0
	switch {
	case head&0xe0 == 0xa0:
		size = int(head & 0x1f)
	case head == 0xd9 || head == 0xc4:
		more = 1
	case head == 0xda || head == 0xc5:
		more = 2
	default:
		return "", fault.New(fault.Corrupt, "an answer with a value of the kind %#x, not a string", head)
	}
	for range more {
		b, err := r.ReadByte()
		if err != nil {
			return "", err
		}
		size = size<<8 | int(b)
	}
	if size > longest {
		return "", fault.New(fault.Corrupt, "an answer with a string of %d bytes", size)
	}
	text := make([]byte, size)
	_, err = io.ReadFull(r, text)
	return string(text), err
}
