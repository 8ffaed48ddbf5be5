// Package logtext writes output as the inside of a JSON string, as the json-file log has it, and reads that back.
//
// It is not the log: a supervisor writes that (oci/shim), and container reads it, each by the part that it needs.
// Invariant: what is UTF-8 comes back byte for byte.
package logtext

import (
	"bytes"
	"strconv"
	"unicode/utf8"
)

// AppendEscaped appends s as the inside of a JSON string as Docker does: also <, > and & are escaped, and tabs by number. whole is
// false when s is not UTF-8 and so can't be had back.
func AppendEscaped(buf, s []byte) (_ []byte, whole bool) {
	whole = true
	const hex = "0123456789abcdef"
	start := 0
	for i := 0; i < len(s); {
		b := s[i]
		if b < utf8.RuneSelf {
			if b >= 0x20 && b != '\\' && b != '"' && b != '<' && b != '>' && b != '&' {
				i++
				continue
			}
			buf = append(buf, s[start:i]...)
			switch b {
			case '\\', '"':
				buf = append(buf, '\\', b)
			case '\n':
				buf = append(buf, '\\', 'n')
			case '\r':
				buf = append(buf, '\\', 'r')
			default:
				buf = append(buf, '\\', 'u', '0', '0', hex[b>>4], hex[b&0xf])
			}
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRune(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			buf = append(append(buf, s[start:i]...), `\ufffd`...)
			whole = false
		case r == '\u2028' || r == '\u2029':
			buf = append(append(buf, s[start:i]...), '\\', 'u', '2', '0', '2', hex[r&0xf])
		default:
			i += size
			continue
		}
		i += size
		start = i
	}
	return append(buf, s[start:]...), whole
}

// Unescape appends to text the content of a JSON string, whose opening quote has been read, and gives what follows the closing one. ok is
// false for what AppendEscaped doesn't write, which is for encoding/json.
func Unescape(text, s []byte) (_, rest []byte, ok bool) {
	for {
		i := bytes.IndexAny(s, `"\`)
		if i < 0 || i+1 >= len(s) {
			return text, nil, false
		}
		text = append(text, s[:i]...)
		if s[i] == '"' {
			return text, s[i+1:], true
		}
		escape := s[i+1]
		s = s[i+2:]
		switch escape {
		case 'n':
			text = append(text, '\n')
		case 'r':
			text = append(text, '\r')
		case '"', '\\':
			text = append(text, escape)
		case 'u':
			if len(s) < 4 {
				return text, nil, false
			}
			n, err := strconv.ParseUint(string(s[:4]), 16, 16)
			if err != nil || n >= 0xd800 && n < 0xe000 { // half of a pair: not ours
				return text, nil, false
			}
			text = utf8.AppendRune(text, rune(n))
			s = s[4:]
		default:
			return text, nil, false
		}
	}
}
