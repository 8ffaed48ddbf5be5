package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"syscall"
)

// object is a JSON object whose members keep their order and their text.
type object []member

type member struct {
	key   string
	value json.RawMessage
}

// UnmarshalJSON reads an object; null is an empty one.
func (o *object) UnmarshalJSON(text []byte) error {
	*o = nil
	if bytes.Equal(bytes.TrimSpace(text), []byte("null")) {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil {
		return err
	} else if t != json.Delim('{') {
		return errors.New("it is no JSON object")
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return err
		}
		o.set(key.(string), value) // an object's keys are strings
	}
	_, err := d.Token()
	return err
}

// MarshalJSON writes the object.
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		key, err := json.Marshal(m.key)
		if err != nil {
			return nil, err
		}
		b.Write(key)
		b.WriteByte(':')
		b.Write(m.value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

func (o object) get(key string) (json.RawMessage, bool) {
	if i := slices.IndexFunc(o, func(m member) bool { return m.key == key }); i >= 0 {
		return o[i].value, true
	}
	return nil, false
}

func (o *object) set(key string, value json.RawMessage) {
	if i := slices.IndexFunc(*o, func(m member) bool { return m.key == key }); i >= 0 {
		(*o)[i].value = value
		return
	}
	*o = append(*o, member{key, value})
}

func (o *object) delete(key string) bool {
	n := len(*o)
	*o = slices.DeleteFunc(*o, func(m member) bool { return m.key == key })
	return len(*o) < n
}

// keepOwner gives f the owner that i has, where that is allowed.
func keepOwner(f *os.File, i os.FileInfo) {
	if s, ok := i.Sys().(*syscall.Stat_t); ok {
		f.Chown(int(s.Uid), int(s.Gid))
	}
}
