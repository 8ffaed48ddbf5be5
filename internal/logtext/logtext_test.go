package logtext

import (
	"bytes"
	"encoding/json"
	"testing"
)

// FuzzRoundTrip compares with encoding/json, and with itself.
func FuzzRoundTrip(f *testing.F) {
	for _, s := range []string{"", "plain", "a\tb\r\n\"\\<>&", "\u2028é\x00", "\xff\xfe"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, s []byte) {
		line, whole := AppendEscaped([]byte{'"'}, s)
		line = append(line, '"')
		var want string
		if err := json.Unmarshal(line, &want); err != nil {
			t.Fatalf("%q is no JSON: %v", line, err)
		}
		got, rest, ok := Unescape(nil, append(line[1:], ",more"...))
		if !ok || string(got) != want || string(rest) != ",more" {
			t.Errorf("%q: %q, %q, %v; want %q", s, got, rest, ok, want)
		}
		if whole != bytes.Equal(got, s) && !bytes.Contains(s, []byte("\ufffd")) {
			t.Errorf("%q comes back as %q, and whole is %v", s, got, whole)
		}
	})
}
