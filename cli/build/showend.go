package build

import (
	"fmt"
	"io"
	"strings"
	"time"

	"berth/build/progress"
	"berth/cli/format"
)

// failures prints the last output of what failed, and the lines of the Dockerfile that it comes from.
func (t *trace) failures(out io.Writer) {
	for _, v := range t.begun {
		if !v.failed() {
			continue
		}
		fmt.Fprintf(out, "------\n > %s:\n", v.Name)
		for _, l := range v.log.lines {
			fmt.Fprintln(out, l)
		}
		fmt.Fprintln(out, "------")
	}
	for _, q := range t.quotes {
		const rule = "--------------------\n"
		fmt.Fprintf(out, "%s:%d\n%s%s%s", q.File, q.Line, rule, q.Text, rule)
		if q.Hint != "" {
			fmt.Fprintln(out, q.Hint)
		}
	}
}

// found prints what the checks found.
func (t *trace) found(out io.Writer) {
	if len(t.warnings) == 0 {
		return
	}
	fmt.Fprintf(out, "\n %s found (berth build --check shows the lines):\n", format.Count(int64(len(t.warnings)), "warning"))
	for _, w := range t.warnings {
		fmt.Fprintf(out, " - %s\n", w.Short)
	}
}

// why prints a table of the steps: cached, or why not.
func (t *trace) why(out io.Writer) error {
	lines := [][]string{}
	for _, v := range t.begun {
		if strings.HasPrefix(v.Name, "[internal]") || !strings.HasPrefix(v.Name, "[") {
			continue
		}
		word := v.Reason
		switch {
		case v.Cached:
			word = "cached"
		case word == "" && strings.Contains(v.Name, "] FROM "):
			word = "base image"
		case word == "":
			word = "not built before"
		}
		if v.failed() {
			word += " (failed)"
		}
		lines = append(lines, []string{format.Ellipsis(v.Name, 60), word, fmt.Sprintf("%.1fs", v.spent(time.Now()).Seconds())})
	}
	if len(lines) == 0 {
		return nil
	}
	fmt.Fprintln(out)
	return format.Columns(out, []string{"STEP", "CACHED OR WHY NOT", "TIME"}, lines)
}

// explained is a display that ends with the table of reasons.
type explained struct {
	display
	trace trace
	out   io.Writer
}

// Show implements display.
func (e *explained) Show(s *progress.Status) {
	e.trace.add(s, func(*vertex, any) {})
	e.display.Show(s)
}

// End implements display.
func (e *explained) End() {
	e.display.End()
	_ = e.trace.why(e.out) // stderr: nobody could be told
}
