package shim

import (
	"encoding/base64"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"berth/fault"
)

// decode reads the JSON document data into what into points to.
//
// The JSON package would do, but it keeps tables of every type that can be reached, which for
// a runtime-spec with all its operating systems is a quarter of a megabyte, a third of an idle supervisor. This one keeps nothing.
// It knows what the engine sends: names are matched exactly, types that read themselves (but time.Time) and interfaces are not supported,
// and unknown fields are skipped.
func decode(data []byte, into any) error {
	d := decoder{data: data}
	d.value(reflect.ValueOf(into).Elem(), 0)
	if d.space(); d.err == nil && d.at < len(data) {
		d.fail("more after its end")
	}
	return d.err
}

const maxDepth = 64

type decoder struct {
	data []byte
	at   int
	err  error // the first one; from then on everything is skipped
}

func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = fault.New(fault.Corrupt, "document: %s at byte %d", what, d.at)
	}
	d.at = len(d.data)
}

func (d *decoder) space() {
	for d.at < len(d.data) {
		switch d.data[d.at] {
		case ' ', '\t', '\n', '\r':
			d.at++
		default:
			return
		}
	}
}

// next is the first byte of the next token, 0 at the end.
func (d *decoder) next() byte {
	d.space()
	if d.at < len(d.data) {
		return d.data[d.at]
	}
	return 0
}

func (d *decoder) take(c byte) bool {
	if d.next() != c {
		return false
	}
	d.at++
	return true
}

func (d *decoder) word(w string) bool {
	if !strings.HasPrefix(string(d.data[d.at:min(len(d.data), d.at+len(w))]), w) {
		return false
	}
	d.at += len(w)
	return true
}

// value reads any value into v; an invalid v skips it.
func (d *decoder) value(v reflect.Value, depth int) {
	c := d.next()
	if depth > maxDepth {
		d.fail("too deep")
		return
	}
	if c == 'n' && d.word("null") {
		if v.IsValid() {
			v.SetZero()
		}
		return
	}
	for v.IsValid() && v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		v = v.Elem()
	}
	switch c {
	case '{':
		d.object(v, depth)
	case '[':
		d.array(v, depth)
	case '"':
		d.setString(v, d.str())
	case 't', 'f':
		d.boolean(v)
	default:
		d.number(v)
	}
}

func (d *decoder) object(v reflect.Value, depth int) {
	isMap := v.IsValid() && v.Kind() == reflect.Map
	switch {
	case isMap && v.Type().Key().Kind() != reflect.String, !isMap && v.IsValid() && v.Kind() != reflect.Struct:
		d.fail("an object for " + v.Type().String())
		return
	case isMap && v.IsNil():
		v.Set(reflect.MakeMap(v.Type()))
	}
	d.at++
	if d.take('}') {
		return
	}
	for d.err == nil {
		if d.next() != '"' {
			d.fail("no name")
			return
		}
		name := d.str()
		if !d.take(':') {
			d.fail("no colon")
			return
		}
		switch {
		case isMap:
			e := reflect.New(v.Type().Elem()).Elem()
			d.value(e, depth+1)
			v.SetMapIndex(reflect.ValueOf(name).Convert(v.Type().Key()), e)
		case v.IsValid():
			d.value(field(v, name), depth+1)
		default:
			d.value(v, depth+1)
		}
		if d.take('}') {
			return
		}
		if !d.take(',') {
			d.fail("no comma")
		}
	}
}

// field finds the field that the JSON package would call name; none is the invalid Value.
func field(v reflect.Value, name string) reflect.Value {
	t := v.Type()
	for i := range t.NumField() {
		f := t.Field(i)
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case tag == "-":
		case f.Anonymous && tag == "" && f.Type.Kind() == reflect.Struct:
			if inner := field(v.Field(i), name); inner.IsValid() {
				return inner
			}
		case f.IsExported() && (tag == name || tag == "" && f.Name == name):
			return v.Field(i)
		}
	}
	return reflect.Value{}
}

func (d *decoder) array(v reflect.Value, depth int) {
	if v.IsValid() && v.Kind() != reflect.Slice {
		d.fail("an array for " + v.Type().String())
		return
	}
	if v.IsValid() {
		v.Set(reflect.MakeSlice(v.Type(), 0, 0))
	}
	d.at++
	if d.take(']') {
		return
	}
	for n := 0; d.err == nil; n++ {
		var e reflect.Value
		if v.IsValid() {
			v.Grow(1)
			v.SetLen(n + 1)
			e = v.Index(n)
			e.SetZero()
		}
		d.value(e, depth+1)
		if d.take(']') {
			return
		}
		if !d.take(',') {
			d.fail("no comma")
		}
	}
}

func (d *decoder) setString(v reflect.Value, s string) {
	switch {
	case !v.IsValid() || d.err != nil:
	case v.Kind() == reflect.String:
		v.SetString(s)
	case v.Type() == reflect.TypeFor[time.Time]():
		at, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			d.fail(err.Error())
			return
		}
		v.Set(reflect.ValueOf(at))
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Uint8:
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			d.fail(err.Error())
			return
		}
		v.SetBytes(b)
	default:
		d.fail("a string for " + v.Type().String())
	}
}

// str reads a string; the opening quote is next.
func (d *decoder) str() string {
	d.at++
	start := d.at
	var text []byte // what had to be changed, so far
	for d.at < len(d.data) {
		switch c := d.data[d.at]; {
		case c == '"':
			text = append(text, d.data[start:d.at]...)
			d.at++
			return strings.ToValidUTF8(string(text), "\ufffd")
		case c < 0x20:
			d.fail("a control character in a string")
			return ""
		case c == '\\':
			text = append(text, d.data[start:d.at]...)
			text = d.escape(text)
			start = d.at
		default:
			d.at++
		}
	}
	d.fail("an unfinished string")
	return ""
}

func (d *decoder) escape(text []byte) []byte {
	if d.at++; d.at >= len(d.data) {
		d.fail("an unfinished string")
		return text
	}
	c := d.data[d.at]
	d.at++
	if i := strings.IndexByte(`"\/bfnrt`, c); i >= 0 {
		return append(text, "\"\\/\b\f\n\r\t"[i])
	}
	if c != 'u' {
		d.fail("an unknown escape")
		return text
	}
	r := d.hex4()
	if utf16.IsSurrogate(r) {
		before := d.at
		pair := utf8.RuneError
		if d.word(`\u`) {
			pair = utf16.DecodeRune(r, d.hex4())
		}
		if r = pair; r == utf8.RuneError {
			d.at = before // the second half stands for itself
		}
	}
	return utf8.AppendRune(text, r)
}

func (d *decoder) hex4() rune {
	if d.at+4 > len(d.data) {
		d.fail("an unfinished escape")
		return utf8.RuneError
	}
	n, err := strconv.ParseUint(string(d.data[d.at:d.at+4]), 16, 32)
	if err != nil {
		d.fail("an unknown escape")
		return utf8.RuneError
	}
	d.at += 4
	return rune(n)
}

func (d *decoder) boolean(v reflect.Value) {
	is := d.word("true")
	switch {
	case !is && !d.word("false"):
		d.fail("an unknown word")
	case !v.IsValid():
	case v.Kind() == reflect.Bool:
		v.SetBool(is)
	default:
		d.fail("a boolean for " + v.Type().String())
	}
}

func (d *decoder) number(v reflect.Value) {
	start := d.at
	for d.at < len(d.data) && strings.IndexByte("+-.0123456789eE", d.data[d.at]) >= 0 {
		d.at++
	}
	text := string(d.data[start:d.at])
	var err error
	switch {
	case !v.IsValid():
		_, err = strconv.ParseFloat(text, 64)
	case v.CanInt():
		var n int64
		n, err = strconv.ParseInt(text, 10, v.Type().Bits())
		v.SetInt(n)
	case v.CanUint():
		var n uint64
		n, err = strconv.ParseUint(text, 10, v.Type().Bits())
		v.SetUint(n)
	case v.CanFloat():
		var n float64
		n, err = strconv.ParseFloat(text, v.Type().Bits())
		v.SetFloat(n)
	default:
		d.fail("a number for " + v.Type().String())
	}
	if err != nil {
		d.fail("no number")
	}
}
