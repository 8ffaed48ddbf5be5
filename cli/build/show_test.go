package build

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"berth/build/progress"

	"github.com/opencontainers/go-digest"
)

// begin is when all builds of these tests began.
var begin = time.Date(2023, 11, 14, 22, 13, 20, 0, time.UTC)

func at(ms int) *time.Time {
	t := begin.Add(time.Duration(ms) * time.Millisecond)
	return &t
}

func vertexes(all ...*progress.Vertex) *progress.Status { return &progress.Status{Vertexes: all} }

func says(name digest.Digest, ms int, text string) *progress.Status {
	return &progress.Status{Logs: []*progress.Log{{Vertex: name, Stream: 1, Data: []byte(text), Timestamp: *at(ms)}}}
}

// failing is a build of four steps, two of which are done at once; the last fails.
func failing() []*progress.Status {
	load := &progress.Vertex{Digest: "load", Name: "[internal] load build context", Started: at(0)}
	loaded := *load
	loaded.Completed = at(40)
	one := &progress.Vertex{Digest: "one", Name: "[a 2/3] RUN make", Started: at(100), Reason: "file main.c changed"}
	oneDone := *one
	oneDone.Completed = at(1300)
	two := &progress.Vertex{Digest: "two", Name: "[b 2/3] RUN check", Started: at(200), Reason: progress.Follows}
	twoDone := *two
	twoDone.Completed, twoDone.Error = at(12_500), `process "/bin/sh -c check" did not complete successfully: exit code: 2`
	return []*progress.Status{
		vertexes(&progress.Vertex{Digest: "load", Name: load.Name}, &progress.Vertex{Digest: "never", Name: "[c 1/1] COPY . ."}),
		vertexes(load),
		{Statuses: []*progress.Part{{ID: "transferring context:", Vertex: "load", Current: 1234, Timestamp: *at(30), Started: at(10), Completed: at(30)}}},
		vertexes(&loaded),
		vertexes(&progress.Vertex{Digest: "base", Name: "[a 1/3] FROM busybox", Started: at(50), Completed: at(50), Cached: true}),
		vertexes(one),
		says("one", 150, "compiling\nlin"),
		vertexes(two),
		says("two", 250, "a test\n"),
		says("one", 1200, "king\n"),
		vertexes(&oneDone),
		says("two", 12_000, "\x1b[31mit failed\x1b[0m\r\n"),
		{Warnings: []*progress.Warning{{Vertex: "load", Short: []byte("MaintainerDeprecated: use a label (line 2)")}}},
		vertexes(&twoDone),
		{Quotes: []*progress.Quote{{Vertex: "two", File: "Dockerfile", Line: 7, Text: "   6 |     FROM busybox AS b\n   7 | >>> RUN check\n", Hint: "what to do"}}},
	}
}

func TestPlain(t *testing.T) {
	var out bytes.Buffer
	d := &explained{display: newDisplay("plain", &out, false), out: &out}
	for _, s := range failing() {
		d.Show(s)
	}
	d.End()
	want := `#1 [internal] load build context
#1 transferring context: 1.23kB 0.0s done
#1 DONE 0.0s

#2 [a 1/3] FROM busybox
#2 CACHED

#3 [a 2/3] RUN make
#3 why: file main.c changed
#3 0.050 compiling
#3 0.050 linking
#3 DONE 1.2s

#4 [b 2/3] RUN check
#4 0.050 a test
#4 11.80 ` + "\x1b[31mit failed\x1b[0m" + `
#4 ERROR: process "/bin/sh -c check" did not complete successfully: exit code: 2
------
 > [b 2/3] RUN check:
0.050 a test
11.80 it failed
------
Dockerfile:7
--------------------
   6 |     FROM busybox AS b
   7 | >>> RUN check
--------------------
what to do

 1 warning found (berth build --check shows the lines):
 - MaintainerDeprecated: use a label (line 2)

STEP                   CACHED OR WHY NOT                            TIME
[a 1/3] FROM busybox   cached                                       0.0s
[a 2/3] RUN make       file main.c changed                          1.2s
[b 2/3] RUN check      the step before it was done again (failed)   12.3s
`
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwanted\n%s", got, want)
	}
}

// TestPlainTakesTurns shows that of two at work one is shown until it is silent.
func TestPlainTakesTurns(t *testing.T) {
	var out bytes.Buffer
	d := &plain{out: &out}
	for _, s := range []*progress.Status{
		vertexes(&progress.Vertex{Digest: "a", Name: "A", Started: at(0)}, &progress.Vertex{Digest: "b", Name: "B", Started: at(0)}),
		says("a", 10, "a1\n"), says("b", 20, "b1\n"), says("a", 30, "a2\n"), says("b", 3000, "b2\n"), says("a", 3010, "a3\n"),
		vertexes(&progress.Vertex{Digest: "a", Name: "A", Started: at(0), Completed: at(3020)}),
		says("b", 3030, "b3"),
	} {
		d.Show(s)
	}
	d.End()
	want := "#1 A\n#1 0.010 a1\n#1 0.030 a2\n#1 ...\n\n#2 B\n#2 0.020 b1\n#2 3.000 b2\n#2 ...\n\n#1 A\n#1 3.010 a3\n#1 DONE 3.0s\n\n#2 B\n#2 3.030 b3\n"
	if got := out.String(); got != want {
		t.Errorf("%s", got)
	}
}

// TestPlainPullIsNotEndless shows that of a thousand figures few are printed.
func TestPlainPullIsNotEndless(t *testing.T) {
	var out bytes.Buffer
	d := &plain{out: &out}
	d.Show(vertexes(&progress.Vertex{Digest: "a", Name: "A", Started: at(0)}))
	for k := range 1000 {
		d.Show(&progress.Status{Statuses: []*progress.Part{{ID: "layer", Vertex: "a", Current: int64(k), Total: 1000, Timestamp: *at(k), Started: at(0)}}})
	}
	d.End()
	if n := strings.Count(out.String(), "#1 layer"); n < 10 || n > 30 {
		t.Errorf("%d lines:\n%s", n, out.String())
	}
}

func TestRawJSON(t *testing.T) {
	var out bytes.Buffer
	d := newDisplay("rawjson", &out, false)
	all := failing()
	for _, s := range all {
		d.Show(s)
	}
	d.End()
	read := json.NewDecoder(&out)
	for k, want := range all {
		var got progress.Status
		if err := read.Decode(&got); err != nil {
			t.Fatal(err)
		}
		a, _ := json.Marshal(want)
		if b, _ := json.Marshal(got); !bytes.Equal(a, b) {
			t.Errorf("line %d: %s, wanted %s", k, b, a)
		}
	}
	if err := read.Decode(new(progress.Status)); err != io.EOF {
		t.Errorf("more came: %v", err)
	}
	for _, mode := range []string{"quiet", "none"} {
		out.Reset()
		d := newDisplay(mode, &out, false)
		d.Show(all[0])
		d.End()
		if out.Len() > 0 {
			t.Errorf("%s: %q", mode, out.String())
		}
	}
}

// TestTail shows what is left of a program's output.
func TestTail(t *testing.T) {
	for text, want := range map[string]string{
		"a\nb":                                   "a|b",
		"10%\r20%\r30%\n":                        "30%",
		"dos\r\nlines\r\n":                       "dos|lines",
		"\x1b[1;31mred\x1b[0m \x1b]0;title\x07x": "red x",
		"\x1b]8;;http://h\x1b\\link\x1b]8;;\x1b\\": "link",
		"\x1b(Bplain\x1b=":                         "plain",
		"a\tb\bc\x00\x7f":                          "a c",
		"\xff\xc2\x9b2J":                           "\uFFFD2J",
	} {
		for _, size := range []int{1, 3, 1000} { // in pieces of any length
			var l tail
			for data := []byte(text); len(data) > 0; {
				n := min(size, len(data))
				l.add(data[:n], 0)
				data = data[n:]
			}
			if got := strings.Join(l.last(10), "|"); got != want {
				t.Errorf("%q in pieces of %d: %q, wanted %q", text, size, got, want)
			}
		}
	}
}

// FuzzTail shows that no output, in whatever pieces it comes, puts a control character on the screen.
func FuzzTail(f *testing.F) {
	f.Add([]byte("a\x1b[1mb\x1b]0;t\x07\r\n\xff"), 3)
	f.Add([]byte("\x1bP1$r\x1b\\c\b\b\t\xc2\x9b"), 1)
	f.Fuzz(func(t *testing.T, data []byte, size int) {
		size = max(size, 1)
		var whole, pieces tail
		whole.add(data, 0)
		for rest := data; len(rest) > 0; {
			n := min(size, len(rest))
			pieces.add(rest[:n], 0)
			rest = rest[n:]
		}
		all := strings.Join(whole.last(maxTail), "\n")
		if got := strings.Join(pieces.last(maxTail), "\n"); got != all {
			t.Errorf("in pieces of %d: %q, else %q", size, got, all)
		}
		for _, r := range strings.ReplaceAll(all, "\n", "") {
			if r < 0x20 || r >= 0x7f && r <= 0x9f {
				t.Errorf("%q has %q", all, r)
			}
		}
		if len(whole.lines) > maxTail || len(whole.open) > maxLine {
			t.Errorf("%d lines, %d bytes", len(whole.lines), len(whole.open))
		}
	})
}
