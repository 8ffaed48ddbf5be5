package create

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// Shell prints the command as a user types it, one option a line when it is long. What no option can say follows as comments.
func (o *Origin) Shell(program string) string {
	c := o.Command()
	options := c.Options
	if o.Detached() {
		options = slices.Insert(slices.Clone(options), 0, []string{"--detach"})
	}
	groups := [][]string{{program, "run"}}
	groups = append(groups, options...)
	groups = append(groups, append([]string{c.Image}, c.Args...))
	var lines []string
	length := 0
	for _, g := range groups {
		line := Quoted(g)
		lines = append(lines, line)
		length += len(line) + 1
	}
	separator := " "
	if length > 80 {
		separator = " \\\n  "
	}
	text := strings.Join(lines, separator) + "\n"
	for _, l := range c.Lost {
		text += "# not said above: " + oneLine(l) + "\n"
	}
	return text
}

// oneLine keeps a comment a comment.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}

// Quoted joins words so that a shell reads the same words again: sh(1) for printable text and line
// breaks; other control characters are written in the form $'\033' of bash, zsh, ksh and POSIX.1-2024, as no terminal should get them as they are.
func Quoted(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = quote(w)
	}
	return strings.Join(quoted, " ")
}

// plain are the characters that no shell gives a meaning, anywhere in a word but "=" in the first one and "~" which is left out.
const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-"

func quote(w string) string {
	if w != "" && strings.Trim(w, plain) == "" {
		return w
	}
	special := strings.ContainsFunc(w, func(r rune) bool {
		return r == unicode.ReplacementChar || !unicode.IsPrint(r) && r != '\n' && r != '\t'
	})
	if !special {
		return "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
	}
	var b strings.Builder
	b.WriteString("$'")
	for i := 0; i < len(w); i++ {
		switch ch := w[i]; {
		case ch == '\'' || ch == '\\':
			b.WriteByte('\\')
			b.WriteByte(ch)
		case ch == '\n':
			b.WriteString(`\n`)
		case ch < ' ' || ch > '~':
			fmt.Fprintf(&b, `\%03o`, ch)
		default:
			b.WriteByte(ch)
		}
	}
	b.WriteByte('\'')
	return b.String()
}
