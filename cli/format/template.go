package format

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/template"
	"unicode"
)

// functions are those that templates may call beside text/template's own.
func functions() template.FuncMap {
	return template.FuncMap{
		"json":     plainJSON,
		"split":    strings.Split,
		"join":     join,
		"title":    title,
		"lower":    strings.ToLower,
		"upper":    strings.ToUpper,
		"pad":      pad,
		"truncate": truncate,
		"println":  fmt.Sprintln,
	}
}

func plainJSON(v any) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return strings.TrimSpace(b.String()), err
}

// headings are the functions while a table's first line is made: a column's name stays as it is.
func headings() template.FuncMap {
	same := func(v string) string { return v }
	return template.FuncMap{
		"json": func(v any) any { return v }, "title": same, "lower": same, "upper": same,
		"truncate": func(v string, _ int) string { return v },
		"split":    func(v, _ string) []string { return []string{v} },
		"join":     join,
		"pad":      pad,
		"println":  fmt.Sprintln,
	}
}

// join accepts lists of any kind: a template's data may come from raw JSON.
func join(list any, sep string) (string, error) {
	switch l := list.(type) {
	case []string:
		return strings.Join(l, sep), nil
	case []any:
		s := make([]string, len(l))
		for i, v := range l {
			s[i] = fmt.Sprint(v)
		}
		return strings.Join(s, sep), nil
	case string:
		return l, nil
	case nil:
		return "", nil
	}
	return "", fmt.Errorf("join: %T is not a list of strings", list)
}

func title(s string) string {
	previous := ' '
	return strings.Map(func(r rune) rune {
		defer func() { previous = r }()
		if unicode.IsLetter(previous) || unicode.IsDigit(previous) || previous == '_' || previous == '\'' {
			return r
		}
		return unicode.ToTitle(r)
	}, s)
}

func pad(s string, before, after int) string {
	if s == "" {
		return s
	}
	return strings.Repeat(" ", max(before, 0)) + s + strings.Repeat(" ", max(after, 0))
}

func truncate(s string, n int) string {
	if r := []rune(s); n >= 0 && len(r) > n {
		return string(r[:n])
	}
	return s
}

// Parse makes a template of a --format argument; \t and \n in it are a tab and a new line.
func Parse(text string) (*template.Template, error) {
	text = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(text)
	t, err := template.New("").Funcs(functions()).Parse(text)
	if err != nil {
		return nil, fmt.Errorf("template parsing error: %w", err)
	}
	return t, nil
}

// Table says how rows of type R are printed.
type Table[R any] struct {
	Columns []string         // the headings of the default table
	Cells   func(R) []string // the default table's cells of one row
	Heading R                // a row that holds each field's heading, for templates
	Quiet   func(R) string   // what --quiet prints of a row
}

// Print writes rows as format says: "" or "table" is the default table, "table TEMPLATE" a
// table of one's own, "json" one object a line, and anything else a template for each row.
func (t *Table[R]) Print(w io.Writer, format string, quiet bool, rows []R) error {
	custom, isTable := strings.CutPrefix(format, "table")
	custom = strings.TrimSpace(custom)
	switch {
	case quiet && t.Quiet != nil && (format == "" || format == "table"):
		for _, r := range rows {
			if _, err := fmt.Fprintln(w, t.Quiet(r)); err != nil {
				return err
			}
		}
		return nil
	case format == "" || isTable && custom == "":
		return t.plain(w, rows)
	case format == "json":
		format = "{{json .}}"
	}
	text := format
	if isTable {
		text = custom
	}
	tmpl, err := Parse(text)
	if err != nil {
		return err
	}
	tmpl.Funcs(template.FuncMap{"json": rowJSON[R]})
	if !isTable {
		if len(rows) == 0 { // a mistake in the template is one all the same
			return lines(io.Discard, tmpl, []R{t.Heading})
		}
		return lines(w, tmpl, rows)
	}
	head, err := tmpl.Clone()
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := lines(&b, head.Funcs(headings()), []R{t.Heading}); err != nil {
		return err
	}
	if err := lines(&b, tmpl, rows); err != nil {
		return err
	}
	return Align(w, b.String(), Wide)
}

// rowJSON is the function json where rows are printed: a whole row is escaped for HTML, as it has always been.
func rowJSON[R any](v any) (string, error) {
	if _, ok := v.(R); ok {
		b, err := json.Marshal(v)
		return string(b), err
	}
	return plainJSON(v)
}

func lines[R any](w io.Writer, tmpl *template.Template, rows []R) error {
	var b bytes.Buffer
	for _, r := range rows {
		if err := tmpl.Execute(&b, r); err != nil {
			return fmt.Errorf("template parsing error: %w", err)
		}
		b.WriteByte('\n')
	}
	_, err := b.WriteTo(w)
	return err
}

func (t *Table[R]) plain(w io.Writer, rows []R) error {
	lines := make([][]string, len(rows))
	for i, r := range rows {
		lines[i] = t.Cells(r)
	}
	return Columns(w, t.Columns, lines)
}

// Columns writes a heading and lines of cells as a table.
func Columns(w io.Writer, heading []string, lines [][]string) error {
	var b strings.Builder
	for _, cells := range append([][]string{heading}, lines...) {
		b.WriteString(strings.Join(cells, "\t") + "\n")
	}
	return Align(w, b.String(), Wide)
}

// Object writes one object by a template, or as "json". typed is tried
// first; where its Go names don't fit, the raw JSON is, whose names the API's documents use.
func Object(w io.Writer, format string, typed any, raw json.RawMessage) error {
	if format == "json" {
		format = "{{json .}}"
	}
	t, err := Parse(format)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	first := errNoType
	if typed != nil {
		first = t.Execute(&b, typed)
	}
	if first != nil {
		b.Reset()
		var v any
		d := json.NewDecoder(bytes.NewReader(raw))
		d.UseNumber()
		if err := d.Decode(&v); err != nil {
			return err
		}
		if err := t.Option("missingkey=error").Execute(&b, v); err != nil {
			if first != errNoType {
				err = first
			}
			return fmt.Errorf("template parsing error: %w", err)
		}
	}
	b.WriteByte('\n')
	_, err = b.WriteTo(w)
	return err
}

var errNoType = fmt.Errorf("no typed object")
