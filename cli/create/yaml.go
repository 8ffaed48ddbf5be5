package create

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// mapping is a YAML mapping in the order in which it was made. Its values are
// strings, bools, numbers, lists of these or of mappings, and mappings; nil is null.
type mapping struct {
	keys   []string
	values []any
}

// set adds a key. What is empty is left out.
func (m *mapping) set(key string, value any) {
	switch v := value.(type) {
	case string:
		if v == "" {
			return
		}
	case bool:
		if !v {
			return
		}
	case int64:
		if v == 0 {
			return
		}
	case []string:
		if len(v) == 0 {
			return
		}
		list := make([]any, len(v))
		for i, s := range v {
			list[i] = s
		}
		value = list
	case []any:
		if len(v) == 0 {
			return
		}
	case map[string]string:
		if len(v) == 0 {
			return
		}
		value = textMapping(v)
	case *mapping:
		if v == nil || len(v.keys) == 0 {
			return
		}
	}
	m.put(key, value)
}

// put adds a key with what is given, empty or not.
func (m *mapping) put(key string, value any) {
	m.keys, m.values = append(m.keys, key), append(m.values, value)
}

func textMapping(v map[string]string) *mapping {
	m := &mapping{}
	for _, k := range slices.Sorted(maps.Keys(v)) {
		m.put(k, v[k])
	}
	return m
}

func (m *mapping) write(b *strings.Builder, indent string) {
	for i, k := range m.keys {
		b.WriteString(indent + yamlText(k) + ":")
		writeValue(b, indent, m.values[i])
	}
}

// writeValue writes what stands behind "key:" or "-", with the line's end.
func writeValue(b *strings.Builder, indent string, value any) {
	switch v := value.(type) {
	case *mapping:
		if len(v.keys) == 0 {
			b.WriteString(" {}\n")
			return
		}
		b.WriteString("\n")
		v.write(b, indent+"  ")
	case []any:
		if len(v) == 0 {
			b.WriteString(" []\n")
			return
		}
		b.WriteString("\n")
		for _, item := range v {
			if m, ok := item.(*mapping); ok && len(m.keys) > 0 {
				var inner strings.Builder
				m.write(&inner, indent+"    ")
				b.WriteString(indent + "  - " + strings.TrimPrefix(inner.String(), indent+"    "))
				continue
			}
			b.WriteString(indent + "  -")
			writeValue(b, indent+"  ", item)
		}
	case nil:
		b.WriteString("\n")
	case string:
		b.WriteString(" " + yamlText(strings.ReplaceAll(v, "$", "$$")) + "\n") // compose replaces $NAME
	default:
		fmt.Fprintf(b, " %v\n", v)
	}
}

// yamlText is a scalar that every YAML reader takes for this very text: plain where nothing can be mistaken,
// else in double quotes (YAML 1.2, 7.3.1 and 5.7).
func yamlText(s string) string {
	if isPlain(s) {
		return s
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '"' || r == '\\':
			b.WriteString(`\` + string(r))
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case unicode.IsPrint(r) && (r != utf8.RuneError || size > 1):
			b.WriteRune(r)
		case r <= 0xff:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
		i += size
	}
	b.WriteByte('"')
	return b.String()
}

// isPlain tells whether a text can stand without quotes: it begins with a letter or a slash, has nothing that separates
// or comments, and is no word or number of YAML 1.1 or 1.2.
func isPlain(s string) bool {
	if s == "" || strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-") != "" {
		return false
	}
	if c := s[0]; c != '/' && !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z') {
		return false
	}
	switch strings.ToLower(s) {
	case "y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf", "infinity":
		return false
	}
	_, err := strconv.ParseFloat(s, 64)
	return err != nil
}
