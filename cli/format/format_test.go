package format

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

func TestDuration(t *testing.T) {
	const day = 24 * time.Hour
	for d, want := range map[time.Duration]string{
		-time.Hour: "Less than a second", 0: "Less than a second", 999 * time.Millisecond: "Less than a second", time.Second: "1 second", 59 * time.Second: "59 seconds",
		time.Minute: "About a minute", 119 * time.Second: "About a minute", 2 * time.Minute: "2 minutes", 59 * time.Minute: "59 minutes", time.Hour: "About an hour",
		89 * time.Minute: "About an hour", 90 * time.Minute: "2 hours", 47 * time.Hour: "47 hours", 2 * day: "2 days", 13 * day: "13 days", 14 * day: "2 weeks", 59 * day: "8 weeks",
		60 * day: "2 months", 729 * day: "24 months", 731 * day: "2 years",
	} {
		if got := Duration(d); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
}

func TestSizes(t *testing.T) {
	for n, want := range map[int64]string{0: "0B", 999: "999B", 1000: "1kB", 1_234_567: "1.23MB", 116_500_000: "116MB", 99_999_999_999: "100GB", 1 << 62: "4.61EB"} {
		if got := Size(n); got != want {
			t.Errorf("%d: got %q, want %q", n, got, want)
		}
	}
	if got := BinarySize(25_233_408_000); got != "23.5GiB" {
		t.Errorf("got %q", got)
	}
	if got := FineSize(12_345_678); got != "12.35MB" {
		t.Errorf("got %q", got)
	}
}

func TestParseSize(t *testing.T) {
	for in, want := range map[string]int64{"0": 0, "32": 32, "32b": 32, "32B": 32, "1k": 1024, "1kb": 1024, "1KiB": 1024, "1.5g": 3 << 29, "10 m": 10 << 20, "1p": 1 << 50, ".5k": 512} {
		if got, err := ParseSize(in); err != nil || got != want {
			t.Errorf("%q: got %d, %v", in, got, err)
		}
	}
	for in, want := range map[string]string{
		"": "invalid size: ''", "x": "invalid size: 'x'", "-1": "invalid size: '-1'", "3x": "invalid suffix: 'x'", "3kx": "invalid suffix: 'kx'", "3bb": "invalid suffix: 'bb'", "1..2": "invalid size: '1..2'",
		"nan": "invalid size: 'nan'", "9999999p": "invalid size: '9999999p' is more than 64 bits can count", "3 kib3": "invalid size: '3 kib3'",
	} {
		if n, err := ParseSize(in); err == nil || err.Error() != want {
			t.Errorf("%q: got %d, %v", in, n, err)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	f.Add("1.5g")
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := ParseSize(s); err == nil && n < 0 {
			t.Errorf("%q: %d", s, n)
		}
		ParseTime(s, time.Unix(1, 0).UTC())
	})
}

func TestParseTime(t *testing.T) {
	now := time.Date(2024, 5, 6, 7, 8, 9, 0, time.FixedZone("", 3600))
	for in, want := range map[string]string{
		"10m": "1714975089.000000000", "1700000000": "1700000000.000000000", "1700000000.5": "1700000000.500000000", "2024-01-02T03:04:05Z": "1704164645.000000000",
		"2024-01-02T03:04:05.123456789+01:00": "1704161045.123456789", "2024-01-02": "1704150000.000000000", "2024-01-02T03": "1704160800.000000000", "1h30m": "1714970289.000000000",
		"0s": "1714975689.000000000",
	} {
		if got, err := ParseTime(in, now); err != nil || got != want {
			t.Errorf("%q: got %s, %v; want %s", in, got, err, want)
		}
	}
	for _, in := range []string{"", "yesterday", "1.2.3", "2024-13-01", "1700000000.1234567890", "-"} {
		if got, err := ParseTime(in, now); err == nil {
			t.Errorf("%q is read as %s", in, got)
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{"plain ü 日本": "plain ü 日本", "a\x1b[2Jb\r\x07\tc\nd": "a?[2Jb?? c\nd", "\xff\u202ex": "??x", "": ""} {
		if got := Printable(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestEllipsis(t *testing.T) {
	for _, c := range []struct {
		in    string
		width int
		want  string
	}{{"abc", 3, "abc"}, {"abcd", 3, "ab…"}, {"abcd", 1, "a"}, {"abcd", 0, ""}, {"日本語", 6, "日本語"}, {"日本語", 5, "日本…"}, {"", 2, ""}} {
		if got := Ellipsis(c.in, c.width); got != c.want {
			t.Errorf("%q to %d: got %q", c.in, c.width, got)
		}
	}
}

// TestAlignIsTabwriters compares columns with those of the standard library.
func TestAlignIsTabwriters(t *testing.T) {
	for _, text := range []string{
		"A\tB\tC\n1\t2\t3\n", "A\tlonger than the rest\tC\n1\t2\t3\n", "one\n\na\tb\na long cell here\tb\nx\ny\tz\n", "a\t\tc\n\t\t\n", "no tab", "a\tb\tc\nd\te\nf\tg\th\n", "",
	} {
		for _, l := range []Layout{Wide, {20, 1}, {20, 3}} {
			var want, got bytes.Buffer
			tw := tabwriter.NewWriter(&want, l.Least, 1, l.Gap, ' ', 0)
			tw.Write([]byte(text))
			tw.Flush()
			if err := Align(&got, text, l); err != nil || got.String() != want.String() {
				t.Errorf("%q with %+v:\n got  %q\n want %q, %v", text, l, &got, &want, err)
			}
		}
	}
}

type thing struct{ Name, Size string }

var things = &Table[thing]{
	Columns: []string{"NAME", "SIZE"},
	Cells:   func(t thing) []string { return []string{t.Name, t.Size} },
	Heading: thing{"NAME", "SIZE"},
	Quiet:   func(t thing) string { return t.Name },
}

func TestTable(t *testing.T) {
	rows := []thing{{"a", "1"}, {"a-very-long-name", "<2>"}}
	for _, c := range []struct {
		format string
		quiet  bool
		want   string
	}{
		{"", false, "NAME               SIZE\na                  1\na-very-long-name   <2>\n"},
		{"table", true, "a\na-very-long-name\n"},
		{"json", false, `{"Name":"a","Size":"1"}` + "\n" + `{"Name":"a-very-long-name","Size":"\u003c2\u003e"}` + "\n"},
		{"{{.Size}}", true, "1\n<2>\n"},
		{`{{.Name}}\t{{.Size}}`, false, "a\t1\na-very-long-name\t<2>\n"},
		{`table {{lower .Name}}\t{{json .Size}}`, false, "NAME               SIZE\na                  \"1\"\na-very-long-name   \"<2>\"\n"},
	} {
		var b strings.Builder
		if err := things.Print(&b, c.format, c.quiet, rows); err != nil || b.String() != c.want {
			t.Errorf("%q: got %v\n%s", c.format, err, b.String())
		}
	}
	for _, bad := range []string{"{{.Nothing}}", "{{", "table {{.Nothing}}", `{{join .Name 3}}`} {
		if err := things.Print(new(strings.Builder), bad, false, rows); err == nil {
			t.Errorf("%q is no error", bad)
		}
	}
}

func TestObject(t *testing.T) {
	raw := json.RawMessage(`{"Id":"x","Big":12345678901234,"Old":"v","State":{"Health":null}}`)
	type typed struct {
		ID    string
		State struct{ Health *int }
	}
	for format, want := range map[string]string{
		"{{.Id}}": "x", "{{.ID}}": "typed", "{{.Big}}": "12345678901234", "{{.Old}}": "v", "{{if .State.Health}}h{{else}}none{{end}}": "none", `{{json .Id}}`: `"x"`, `{{join (split .Id "x") "-"}}`: "-",
	} {
		v := typed{ID: "typed"}
		var b strings.Builder
		if err := Object(&b, format, v, raw); err != nil || b.String() != want+"\n" {
			t.Errorf("%q: got %q, %v", format, b.String(), err)
		}
	}
	if err := Object(new(strings.Builder), "{{.Nope}}", nil, raw); err == nil || !strings.Contains(err.Error(), `no entry for key "Nope"`) {
		t.Errorf("got %v", err)
	}
}
