package cli

import (
	"errors"
	"fmt"
	"strings"

	"berth/cli/flag"
	"berth/cli/session"

	"github.com/spf13/pflag"
)

// longOptions takes "-name x" as "--name x", as old releases did. It leaves alone
// what has a meaning as short options, and then warns where that is hardly what was meant.
func longOptions(fs *pflag.FlagSet, args []string, interspersed bool) (out, warnings []string) {
	for i := 0; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "--":
			return append(out, args[i:]...), warnings
		case len(a) < 2 || a[0] != '-':
			if !interspersed {
				return append(out, args[i:]...), warnings
			}
			out = append(out, a)
			continue
		case a[1] != '-':
			long, _, _ := strings.Cut(a[1:], "=")
			if f := fs.Lookup(long); f != nil && len(long) > 1 {
				if fs.ShorthandLookup(a[1:2]) == nil {
					warnings = append(warnings, fmt.Sprintf("'-%s' is an old spelling; use '--%s'", long, long))
					a = "-" + a
				} else if short := fs.ShorthandLookup(a[1:2]); short.NoOptDefVal == "" {
					warnings = append(warnings, fmt.Sprintf("'%s' means '-%s %s'; did you mean '--%s'?", a, a[1:2], a[2:], long))
				}
			}
		}
		out = append(out, a)
		if i+1 < len(args) && takesNext(fs, a) {
			i++
			out = append(out, args[i])
		}
	}
	return out, warnings
}

// takesNext tells whether the option in a has its value in the next argument.
func takesNext(fs *pflag.FlagSet, a string) bool {
	if long, ok := strings.CutPrefix(a, "--"); ok {
		f := fs.Lookup(long)
		return f != nil && f.NoOptDefVal == ""
	}
	for i := 1; i < len(a); i++ {
		f := fs.ShorthandLookup(a[i : i+1])
		if f == nil {
			return false
		}
		if f.NoOptDefVal == "" {
			return i == len(a)-1
		}
	}
	return false
}

// suggestFlag adds to an error about an unknown option what was probably meant.
func suggestFlag(fs *pflag.FlagSet, err error) string {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return err.Error()
	}
	said := unknown.GetSpecifiedName()
	message := err.Error()
	if !strings.HasPrefix(message, "unknown flag") {
		return message
	}
	shorts := len(said) > 0
	for i := range len(said) {
		shorts = shorts && said[i] < 0x80 && fs.ShorthandLookup(said[i:i+1]) != nil
	}
	if shorts {
		return message + "; did you mean -" + said + "?"
	}
	known := map[string]bool{}
	fs.VisitAll(func(f *pflag.Flag) { known[f.Name] = !f.Hidden })
	if near := nearest(said, known); near != "" {
		return message + "; did you mean --" + near + "?"
	}
	return message
}

// nearest finds the one word that differs from said by at most two edits; "" when there is none.
func nearest(said string, words map[string]bool) string {
	best, least := "", 3
	if len(said) < 3 {
		least = 2
	}
	for w, ok := range words {
		if d := distance(said, w); ok && (d < least || d == least && best != "" && w < best) {
			best, least = w, d
		}
	}
	return best
}

// distance counts the letters to insert, delete, replace or swap with a neighbour to make b of a.
func distance(a, b string) int {
	before := []int{}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next := make([]int, len(b)+1)
		next[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}

// deprecated warns about old options that were given.
func deprecated(s *session.Session, fs *pflag.FlagSet) {
	fs.Visit(func(f *pflag.Flag) {
		if len(f.Annotations[flag.Deprecated]) > 0 {
			fmt.Fprintf(s.Err, "Flag --%s has been deprecated, %s\n", f.Name, f.Annotations[flag.Deprecated][0])
		}
	})
}
