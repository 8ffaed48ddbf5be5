package dockerfile

import (
	"fmt"
	"strings"
)

// around is how many lines a quotation shows before and after those that are meant.
const around = 2

// Quote shows lines of a Dockerfile, numbered from 1, with those around them: ">>>" is at those from from to to.
func Quote(data []byte, from, to int) string { return quote(data, from, to, 0, 0, 0) }

// quote is Quote with a mark below a word of width bytes.
func quote(data []byte, from, to, line, column, width int) string {
	all := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	var b strings.Builder
	for n := max(from-around, 1); n <= min(to+around, len(all)); n++ {
		mark := "   "
		if n >= from && n <= to {
			mark = ">>>"
		}
		fmt.Fprintf(&b, "%4d | %s %s\n", n, mark, strings.TrimSuffix(all[n-1], "\r"))
		if n == line {
			before := strings.Map(func(r rune) rune {
				if r == '\t' {
					return r
				}
				return ' '
			}, all[n-1][:column-1])
			fmt.Fprintf(&b, "     |     %s%s\n", before, strings.Repeat("^", width))
		}
	}
	return b.String()
}
