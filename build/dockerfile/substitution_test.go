package dockerfile

import (
	"os/exec"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// variables are what the words of FuzzSubstitution see.
var variables = map[string]string{"s": "set", "n": "", "f": "/a.b/c.d/e.tar.gz", "w": "two words"}

// word makes a word of variables and what may stand around them out of any bytes, one that means the same to a shell in double quotes.
func word(data []byte, depth int) (text string, rest []byte) {
	next := func(choices ...string) string {
		if len(data) == 0 {
			return choices[0]
		}
		c := choices[int(data[0])%len(choices)]
		data = data[1:]
		return c
	}
	for len(data) > 0 && len(text) < 200 {
		name := next("s", "n", "f", "w", "u")
		switch form := next("plain", "name", "braces", "default", "prefix", "end"); form {
		case "plain":
			text += next("x", "/", ".", "-", "_", ":")
		case "name":
			text += "$" + name + next("/", ".", "-")
		case "braces":
			text += "${" + name + "}"
		case "default":
			inner := next("d", "", "a.b")
			if depth < 3 && next("flat", "deep") == "deep" {
				inner, data = word(data, depth+1)
			}
			text += "${" + name + next(":-", "-", ":+", "+") + inner + "}"
		case "prefix":
			pattern := ""
			for range 1 + len(data)%3 {
				pattern += next("*", "/", ".", "?", "a", "t", "e", "*/", ".*")
			}
			text += "${" + name + next("#", "##", "%", "%%") + pattern + "}"
		case "end":
			if depth > 0 {
				return text, data
			}
		}
	}
	return text, data
}

// FuzzSubstitution compares what comes of a word with what a shell makes of it.
func FuzzSubstitution(f *testing.F) {
	for _, s := range []string{"", "\x02\x04\x00\x01", "\x00\x03\x00\x01\x00\x01\x03\x00", "\x02\x04\x06\x08\x01\x02\x04\x00\x02\x03", "abcdefghijklmnop", "0123456789"} {
		f.Add([]byte(s))
	}
	sh, err := exec.LookPath("sh")
	if err != nil {
		f.Skip("there is no sh to compare with")
	}
	env := newEnvironment(nil)
	var environ []string
	for k, v := range variables {
		env.set(k, v)
		environ = append(environ, k+"="+v)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		text, _ := word(data, 0)
		got, _, err := shell.NewLex('\\').ProcessWord(text, env)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		cmd := exec.Command(sh, "-c", `printf %s "`+text+`"`)
		cmd.Env = environ
		want, err := cmd.Output()
		if err != nil {
			t.Fatalf("sh takes %q otherwise: %v", text, err)
		}
		if got != string(want) {
			t.Errorf("%q gives %q, and %q of a shell", text, got, want)
		}
	})
}

// FuzzWord gives the lexer words of any kind: it takes or refuses them.
func FuzzWord(f *testing.F) {
	for _, s := range []string{"${a:-${b}}", "${f//a/b}", "${f/#x/y}", `"a $s" 'b $s' \$s`, "${s:?m}", "${", "$", "${f%%}", "${s##[}", "\\"} {
		f.Add(s)
	}
	env := newEnvironment(nil)
	for k, v := range variables {
		env.set(k, v)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, escape := range []rune{'\\', '`'} {
			one, _, err := shell.NewLex(escape).ProcessWord(text, env)
			if err == nil && utf8.ValidString(text) && !strings.ContainsAny(text, "$'\"\\`") && one != text {
				t.Errorf("%q has nothing to replace, and becomes %q", text, one)
			}
		}
	})
}
