package shim

import (
	"encoding/base64"
	"reflect"
	"strconv"
	"strings"
	"time"

	"berth/internal/logtext"
)

// encode writes what v points to, plain data, as JSON: the counterpart of decode, and without tables for the same reason. It knows
// what a supervisor sends and records: no maps, no types that write themselves but time.Time.
func encode(v any) []byte { return appendValue(nil, reflect.ValueOf(v)) }

func appendValue(b []byte, v reflect.Value) []byte {
	if at, ok := reflect.TypeAssert[time.Time](v); ok {
		return append(at.AppendFormat(append(b, '"'), time.RFC3339Nano), '"')
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return append(b, "null"...)
		}
		return appendValue(b, v.Elem())
	case reflect.Struct:
		return appendStruct(b, v)
	case reflect.Slice:
		if v.IsNil() {
			return append(b, "null"...)
		}
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return append(base64.StdEncoding.AppendEncode(append(b, '"'), v.Bytes()), '"')
		}
		b = append(b, '[')
		for i := range v.Len() {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendValue(b, v.Index(i))
		}
		return append(b, ']')
	case reflect.String:
		b, _ = logtext.AppendEscaped(append(b, '"'), []byte(v.String()))
		return append(b, '"')
	case reflect.Bool:
		return strconv.AppendBool(b, v.Bool())
	}
	switch {
	case v.CanInt():
		return strconv.AppendInt(b, v.Int(), 10)
	case v.CanUint():
		return strconv.AppendUint(b, v.Uint(), 10)
	}
	panic("encode: " + v.Type().String() + " is not supported")
}

func appendStruct(b []byte, v reflect.Value) []byte {
	b = append(b, '{')
	t := v.Type()
	first := true
	for i := range t.NumField() {
		f := t.Field(i)
		name, option, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || name == "-" || option == "omitempty" && empty(v.Field(i)) {
			continue
		}
		if name == "" {
			name = f.Name
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(append(append(b, '"'), name...), '"', ':')
		b = appendValue(b, v.Field(i))
	}
	return append(b, '}')
}

// empty is what omitempty leaves out.
func empty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Struct:
		return false
	case reflect.Slice:
		return v.Len() == 0
	}
	return v.IsZero()
}
