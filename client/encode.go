package client

import (
	"encoding"
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
)

// encode writes a request's body as JSON. Fields without a value are left out,
// which means the same to every daemon. It exists because encoding/json takes a third of a
// millisecond to learn the hundred fields of a container, for one use in a process's life.
// What it doesn't know, it leaves to encoding/json.
func encode(v any) ([]byte, error) {
	b, ok := appendJSON(make([]byte, 0, 512), reflect.ValueOf(v))
	if !ok {
		return json.Marshal(v)
	}
	return b, nil
}

// appendJSON appends v; ok is false when v has something that this encoder doesn't know.
func appendJSON(b []byte, v reflect.Value) (_ []byte, ok bool) {
	if !v.IsValid() {
		return append(b, "null"...), true
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return append(b, "null"...), true
		}
	}
	switch m := v.Interface().(type) {
	case json.Marshaler:
		return marshaled(b, v.Interface())
	case encoding.TextMarshaler:
		text, err := m.MarshalText()
		return appendString(b, string(text)), err == nil
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		return appendJSON(b, v.Elem())
	case reflect.String:
		return appendString(b, v.String()), true
	case reflect.Bool:
		return strconv.AppendBool(b, v.Bool()), true
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return strconv.AppendInt(b, v.Int(), 10), true
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return strconv.AppendUint(b, v.Uint(), 10), true
	case reflect.Struct:
		b = append(b, '{')
		start := len(b)
		b, ok = appendFields(b, v, start)
		return append(b, '}'), ok
	case reflect.Map:
		return appendMap(b, v)
	case reflect.Slice, reflect.Array:
		return appendList(b, v)
	}
	return b, false
}

func marshaled(b []byte, v any) ([]byte, bool) {
	text, err := json.Marshal(v)
	return append(b, text...), err == nil
}

// appendFields appends a struct's fields that have a value, those of embedded structs among them.
func appendFields(b []byte, v reflect.Value, start int) (_ []byte, ok bool) {
	t := v.Type()
	for i := range t.NumField() {
		f, value := t.Field(i), v.Field(i)
		tag, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if strings.Contains(options, "string") {
			return b, false
		}
		if f.Anonymous && tag == "" {
			if value.Kind() == reflect.Pointer {
				if value.IsNil() {
					continue
				}
				value = value.Elem()
			}
			if value.Kind() != reflect.Struct {
				return b, false
			}
			if b, ok = appendFields(b, value, start); !ok {
				return b, false
			}
			continue
		}
		// An empty list is not the same as none: it takes a default away.
		if !f.IsExported() || tag == "-" || value.IsZero() || value.Kind() == reflect.Map && value.Len() == 0 {
			continue
		}
		if tag == "" {
			tag = f.Name
		}
		if len(b) > start {
			b = append(b, ',')
		}
		b = append(appendString(b, tag), ':')
		if b, ok = appendJSON(b, value); !ok {
			return b, false
		}
	}
	return b, true
}

func appendMap(b []byte, v reflect.Value) (_ []byte, ok bool) {
	b = append(b, '{')
	start := len(b)
	for entries := v.MapRange(); entries.Next(); {
		if len(b) > start {
			b = append(b, ',')
		}
		key := entries.Key()
		if m, isText := key.Interface().(encoding.TextMarshaler); isText {
			text, err := m.MarshalText()
			if err != nil {
				return b, false
			}
			b = appendString(b, string(text))
		} else if key.Kind() == reflect.String {
			b = appendString(b, key.String())
		} else {
			return b, false
		}
		if b, ok = appendJSON(append(b, ':'), entries.Value()); !ok {
			return b, false
		}
	}
	return append(b, '}'), true
}

func appendList(b []byte, v reflect.Value) (_ []byte, ok bool) {
	if v.Type().Elem().Kind() == reflect.Uint8 {
		return b, false // bytes travel as base64
	}
	if v.Kind() == reflect.Slice && v.IsNil() {
		return append(b, "null"...), true
	}
	b = append(b, '[')
	for i := range v.Len() {
		if i > 0 {
			b = append(b, ',')
		}
		if b, ok = appendJSON(b, v.Index(i)); !ok {
			return b, false
		}
	}
	return append(b, ']'), true
}

func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, _ := json.Marshal(s) // a string always encodes
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}
