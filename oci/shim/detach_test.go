package shim

import (
	"bytes"
	"testing"
)

func TestDetector(t *testing.T) {
	for _, c := range []struct {
		keys, in, out string
		detached      bool
	}{
		{"pq", "abc", "abc", false},
		{"pq", "apqz", "a", true},
		{"pq", "pppq", "pp", true},
		{"pq", "pxpy", "pxpy", false},
		{"pq", "xp", "xp", false}, // held until the end
		{"aab", "aaab", "a", true},
		{"abab", "ababab", "", true},
		{"abac", "ababac", "ab", true},
		{"p", "xpy", "x", true},
		{"", "pq", "pq", false},
	} {
		for step := 1; step <= len(c.in); step++ {
			d := newDetector([]byte(c.keys))
			var out []byte
			detached := false
			for in := c.in; in != "" && !detached; {
				n := min(step, len(in))
				out, detached = d.feed(out, []byte(in[:n]))
				in = in[n:]
			}
			out = append(out, d.held()...)
			if string(out) != c.out || detached != c.detached {
				t.Errorf("keys %q in %q by %d: %q, %v", c.keys, c.in, step, out, detached)
			}
		}
	}
}

// FuzzDetector compares it with a search in the whole input.
func FuzzDetector(f *testing.F) {
	f.Add([]byte("\x10\x11"), []byte("hello\x10\x10\x11rest"), uint8(3))
	f.Add([]byte("aab"), []byte("aaaab"), uint8(1))
	f.Fuzz(func(t *testing.T, keys, in []byte, step uint8) {
		d := newDetector(keys)
		var out []byte
		detached := false
		for rest := in; len(rest) > 0 && !detached; {
			n := min(len(rest), int(step)+1)
			out, detached = d.feed(out, rest[:n])
			rest = rest[n:]
		}
		if len(d.held()) >= max(1, len(keys)) {
			t.Errorf("holds %d bytes back of %d keys", len(d.held()), len(keys))
		}
		out = append(out, d.held()...)
		want := in
		i := bytes.Index(in, keys)
		if found := i >= 0 && len(keys) > 0; found != detached {
			t.Fatalf("detached %v", detached)
		} else if found {
			want = in[:i]
		}
		if !bytes.Equal(out, want) {
			t.Errorf("passed on %q, want %q", out, want)
		}
	})
}
