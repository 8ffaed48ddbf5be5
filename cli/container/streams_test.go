package container

import (
	"fmt"
	"io"
	"testing"
)

func TestDetachKeys(t *testing.T) {
	for in, want := range map[string]string{
		"":                "1011",
		"ctrl-@,ctrl-[,a": "001b61",
		"ctrl-":           "error: invalid detach keys (ctrl-): unknown character: 'ctrl-'; use a letter or ctrl- and a letter, with commas between",
	} {
		k, err := parseKeys(in)
		got := fmt.Sprintf("%x", k)
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != want {
			t.Errorf("%q:\n got  %s\n want %s", in, got, want)
		}
	}
}

func TestKeyReader(t *testing.T) {
	for _, c := range []struct {
		in, out string
		err     error
	}{
		{"abc", "abc", nil},
		{"a\x10\x11b", "a", errDetached},
		{"a\x10b\x10\x10\x11", "a\x10b\x10", errDetached},
		{"a\x10", "a\x10", nil},
	} {
		for _, size := range []int{1, 2, 100} {
			k := &keyReader{r: &pieces{c.in, size}, keys: []byte{0x10, 0x11}}
			got, err := io.ReadAll(k)
			if string(got) != c.out || err != c.err {
				t.Errorf("%q by %d: got %q, %v", c.in, size, got, err)
			}
		}
	}
}

// pieces reads a string in pieces of n bytes.
type pieces struct {
	s string
	n int
}

func (p *pieces) Read(b []byte) (int, error) {
	if p.s == "" {
		return 0, io.EOF
	}
	n := copy(b, p.s[:min(p.n, len(p.s))])
	p.s = p.s[n:]
	return n, nil
}

func FuzzDetachKeys(f *testing.F) {
	for _, s := range []string{"ctrl-a,b", "ctrl-", "ctrl-@,ctrl-[", ",", "é"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, v string) {
		if k, err := parseKeys(v); err == nil && len(k) == 0 {
			t.Errorf("%q: no keys, and no error", v)
		}
	})
}
