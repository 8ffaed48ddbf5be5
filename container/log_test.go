package container

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type jsonRaw = json.RawMessage

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// line is entry number n: written n seconds after epoch, the odd ones to stderr.
func line(n int) string {
	stream := "stdout"
	if n%2 == 1 {
		stream = "stderr"
	}
	return fmt.Sprintf(`{"log":"line %d\n","stream":%q,"time":%q}`+"\n", n, stream, epoch.Add(time.Duration(n)*time.Second).Format(time.RFC3339Nano))
}

func lines(from, to int) string {
	var b strings.Builder
	for n := from; n < to; n++ {
		b.WriteString(line(n))
	}
	return b.String()
}

// writeLog makes a log of 30 lines in three parts, the oldest compressed.
func writeLog(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x-json.log")
	os.WriteFile(path, []byte(lines(20, 30)), 0o600)
	os.WriteFile(path+".1", []byte(lines(10, 20)), 0o600)
	f, err := os.Create(path + ".2.gz")
	if err != nil {
		t.Fatal(err)
	}
	z := gzip.NewWriter(f)
	z.Write([]byte(lines(0, 10)))
	if err := errors.Join(z.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

func readAll(t *testing.T, path string, o LogOptions) (numbers []int) {
	t.Helper()
	r, err := OpenLog(path, o)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for {
		l, err := r.Next(t.Context())
		if err == io.EOF {
			return numbers
		}
		if err != nil {
			t.Fatal(err)
		}
		numbers = append(numbers, number(t, l))
	}
}

func number(t *testing.T, l *Line) (n int) {
	t.Helper()
	if _, err := fmt.Sscanf(string(l.Text), "line %d\n", &n); err != nil {
		t.Fatalf("%q: %v", l.Text, err)
	}
	return n
}

func numbers(from, to, step int) (all []int) {
	for ; from < to; from += step {
		all = append(all, from)
	}
	return all
}

func TestLogSelection(t *testing.T) {
	path := writeLog(t)
	both := LogOptions{Stdout: true, Stderr: true, Tail: -1}
	at := func(n int) time.Time { return epoch.Add(time.Duration(n) * time.Second) }
	with := func(f func(*LogOptions)) LogOptions { o := both; f(&o); return o }
	for name, c := range map[string]struct {
		o    LogOptions
		want []int
	}{
		"all":               {both, numbers(0, 30, 1)},
		"stdout":            {with(func(o *LogOptions) { o.Stderr = false }), numbers(0, 30, 2)},
		"stderr":            {with(func(o *LogOptions) { o.Stdout = false }), numbers(1, 30, 2)},
		"tail 0":            {with(func(o *LogOptions) { o.Tail = 0 }), nil},
		"tail 1":            {with(func(o *LogOptions) { o.Tail = 1 }), numbers(29, 30, 1)},
		"tail 10":           {with(func(o *LogOptions) { o.Tail = 10 }), numbers(20, 30, 1)},
		"tail 11":           {with(func(o *LogOptions) { o.Tail = 11 }), numbers(19, 30, 1)},
		"tail 25":           {with(func(o *LogOptions) { o.Tail = 25 }), numbers(5, 30, 1)},
		"tail 30":           {with(func(o *LogOptions) { o.Tail = 30 }), numbers(0, 30, 1)},
		"tail 99":           {with(func(o *LogOptions) { o.Tail = 99 }), numbers(0, 30, 1)},
		"since":             {with(func(o *LogOptions) { o.Since = at(15) }), numbers(15, 30, 1)},
		"until":             {with(func(o *LogOptions) { o.Until = at(15) }), numbers(0, 16, 1)},
		"since until tail":  {with(func(o *LogOptions) { o.Since, o.Until, o.Tail = at(3), at(8), 25 }), numbers(5, 9, 1)},
		"follow of the end": {with(func(o *LogOptions) { o.Follow = true }), numbers(0, 30, 1)},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, readAll(t, path, c.o)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestLogOfLongLinesAndGarbage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x-json.log")
	long := strings.Repeat("\x01", 16<<10)
	quoted, _ := json.Marshal(long)
	content := line(0) + "\x00\x00\x00\n{}\nnull\n" +
		fmt.Sprintf(`{"log":%s,"stream":"stdout","time":%q}`+"\n", quoted, epoch.Add(time.Minute).Format(time.RFC3339Nano)) +
		strings.Repeat("x", 2*maxLine) + "\n" + `{"log":"torn`
	os.WriteFile(path, []byte(content), 0o600)
	r, err := OpenLog(path, LogOptions{Stdout: true, Tail: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, want := range []string{"line 0\n", long} {
		if l, err := r.Next(t.Context()); err != nil || string(l.Text) != want {
			t.Fatalf("%v, %v", l, err)
		}
	}
	if _, err := r.Next(t.Context()); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestLogThatDoesNotExistIsEmpty(t *testing.T) {
	if got := readAll(t, filepath.Join(t.TempDir(), "none", "x"), LogOptions{Stdout: true, Tail: 5}); got != nil {
		t.Errorf("%v", got)
	}
}

// TestFollowOverRotations writes in steps, rotates between them, and waits for each line before the next
// is written.
func TestFollowOverRotations(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x-json.log")
	ended := make(chan struct{})
	r, err := OpenLog(path, LogOptions{Stdout: true, Stderr: true, Tail: -1, Follow: true, Ended: ended})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	appendTo := func(s string) {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		f.WriteString(s)
		f.Close()
	}
	expect := func(want int) {
		t.Helper()
		l, err := r.Next(t.Context())
		if err != nil || number(t, l) != want {
			t.Fatalf("got %v, %v; want line %d", l, err, want)
		}
	}
	appendTo(line(0))
	expect(0)
	torn := line(1)
	appendTo(torn[:10])
	appendTo(torn[10:] + line(2))
	expect(1)
	appendTo(line(3))
	os.Rename(path, path+".1")
	appendTo(line(4))
	expect(2)
	expect(3)
	expect(4)
	os.Rename(path+".1", path+".2")
	os.Rename(path, path+".1")
	appendTo(line(5))
	os.Rename(path+".2", path+".3")
	os.Rename(path+".1", path+".2")
	os.Rename(path, path+".1")
	appendTo(line(6))
	expect(5)
	expect(6)
	close(ended)
	if _, err := r.Next(t.Context()); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestFollowEnds(t *testing.T) {
	path := writeLog(t)
	ctx, cancel := context.WithCancel(t.Context())
	r, err := OpenLog(path, LogOptions{Stdout: true, Follow: true, Tail: 0, Ended: make(chan struct{})})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cancel()
	if _, err := r.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	r.o.Until = time.Now()
	if _, err := r.Next(t.Context()); err != io.EOF {
		t.Errorf("past until: %v", err)
	}
}

func FuzzLog(f *testing.F) {
	f.Add([]byte(lines(0, 3)), 2)
	f.Add([]byte("\n\n{\"stream\":\"stdout\"}\nx"), -1)
	f.Fuzz(func(t *testing.T, content []byte, tail int) {
		path := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := OpenLog(path, LogOptions{Stdout: true, Stderr: true, Tail: tail})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		n := 0
		for {
			l, err := r.Next(t.Context())
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasSuffix(string(l.Text), "\n") {
				n++
			}
		}
		if tail >= 0 && n > tail {
			t.Errorf("%d lines of a tail of %d", n, tail)
		}
	})
}

// rotatingLog writes a log as the supervisor does: each file tells in its first record what was logged before it.
type rotatingLog struct {
	t      *testing.T
	path   string
	offset int
	size   int
	files  int // kept beside the current one
}

func (w *rotatingLog) write(numbers ...int) {
	w.t.Helper()
	for _, n := range numbers {
		record := line(n)
		if w.size == 0 && w.offset > 0 {
			record = fmt.Sprintf("%s,\"offset\":%d}\n", strings.TrimSuffix(record, "}\n"), w.offset)
		}
		f, err := os.OpenFile(w.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			w.t.Fatal(err)
		}
		f.WriteString(record)
		f.Close()
		w.size += len(record)
	}
}

// rotate begins a new file; pack compresses the one before.
func (w *rotatingLog) rotate(pack bool) {
	w.t.Helper()
	for i := w.files - 1; i >= 0; i-- {
		name := func(i int) string {
			if i == 0 {
				return w.path
			}
			return fmt.Sprintf("%s.%d", w.path, i)
		}
		os.Remove(name(i+1) + ".gz")
		os.Rename(name(i), name(i+1))
		os.Rename(name(i)+".gz", name(i+1)+".gz")
	}
	w.offset, w.size = w.offset+w.size, 0
	if !pack {
		return
	}
	in, err := os.Open(w.path + ".1")
	if err != nil {
		w.t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(w.path + ".1.gz")
	if err != nil {
		w.t.Fatal(err)
	}
	defer out.Close()
	if code := LogHelper("compress", in, out); code != 0 {
		w.t.Fatal("the helper failed")
	}
	os.Remove(w.path + ".1")
}

func newRotatingLog(t *testing.T, files int) *rotatingLog {
	return &rotatingLog{t: t, path: filepath.Join(t.TempDir(), "x-json.log"), files: files}
}

// follow opens a follower that ends when close is called.
func (w *rotatingLog) follow(o LogOptions) (expect func(want ...int), skipped func() int64, end func()) {
	w.t.Helper()
	ended := make(chan struct{})
	o.Stdout, o.Stderr, o.Follow, o.Ended = true, true, true, ended
	r, err := OpenLog(w.path, o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { r.Close() })
	expect = func(want ...int) {
		w.t.Helper()
		for _, n := range want {
			l, err := r.Next(w.t.Context())
			if err != nil || l.Skipped != 0 || number(w.t, l) != n {
				w.t.Fatalf("got %v, %v; want line %d", l, err, n)
			}
		}
	}
	skipped = func() int64 {
		w.t.Helper()
		l, err := r.Next(w.t.Context())
		if err != nil || l.Skipped <= 0 || l.Stream != "stderr" || !strings.Contains(string(l.Text), fmt.Sprintf("%d bytes", l.Skipped)) {
			w.t.Fatalf("got %v, %v; want a notice", l, err)
		}
		return l.Skipped
	}
	end = func() {
		w.t.Helper()
		close(ended)
		if l, err := r.Next(w.t.Context()); err != io.EOF {
			w.t.Fatalf("at the end: %v, %v", l, err)
		}
	}
	return expect, skipped, end
}

// TestFollowerKeepsUp: compressed or not, in the middle of a file or at its end, nothing is lost and nothing doubled.
func TestFollowerKeepsUp(t *testing.T) {
	for _, pack := range []bool{false, true} {
		w := newRotatingLog(t, 2)
		w.write(0, 1)
		expect, _, end := w.follow(LogOptions{Tail: -1})
		expect(0)
		w.write(2)
		w.rotate(pack)
		w.write(3)
		expect(1, 2, 3)
		w.write(4)
		w.rotate(pack)
		expect(4)
		w.write(5, 6)
		w.rotate(pack)
		w.write(7)
		expect(5, 6, 7)
		end()
	}
}

// TestFollowerFallsBehind: it is told how much was dropped, to the byte, and goes on with what is left.
func TestFollowerFallsBehind(t *testing.T) {
	for _, pack := range []bool{false, true} {
		w := newRotatingLog(t, 2)
		w.write(0)
		expect, skipped, end := w.follow(LogOptions{Tail: -1})
		expect(0)
		for n := 1; n < 7; n++ {
			w.rotate(pack)
			w.write(n)
		}
		before := w.offset + w.size
		want := int64(len(line(1)) + 3*(len(line(2))+len(`,"offset":99`)) - 1) // of 1 to 4; the file at hand was read before it was dropped
		got := skipped()
		expect(4, 5, 6)
		end()
		if lost := int64(before) - got; lost <= 0 || got < want-80 || got > want+80 {
			t.Errorf("told of %d bytes, about %d were dropped", got, want)
		}
	}
}

// TestFollowerOfClearedLog goes on with what comes.
func TestFollowerOfClearedLog(t *testing.T) {
	w := newRotatingLog(t, 2)
	w.write(0, 1)
	expect, _, end := w.follow(LogOptions{Tail: -1})
	expect(0, 1)
	os.Truncate(w.path, 0) // as people do by hand
	w.offset, w.size = 0, 0
	expectLater := func(n int) { w.write(n); expect(n) }
	expectLater(2)
	expectLater(3)
	end()
}

// TestReadFrom goes on where an earlier reader was, over rotations and compression.
func TestReadFrom(t *testing.T) {
	w := newRotatingLog(t, 2)
	w.write(numbers(0, 5, 1)...)
	w.rotate(true)
	w.write(numbers(5, 10, 1)...)
	w.rotate(false)
	w.write(numbers(10, 15, 1)...)
	r, err := OpenLog(w.path, LogOptions{Stdout: true, Stderr: true, Tail: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for n := range 15 {
		l, err := r.Next(t.Context())
		if err != nil || number(t, l) != n {
			t.Fatalf("%d: %v, %v", n, l, err)
		}
		got := readAll(t, w.path, LogOptions{Stdout: true, Stderr: true, Tail: -1, From: l.Next})
		if diff := cmp.Diff(numbers(n+1, 15, 1), got); diff != "" {
			t.Errorf("behind line %d: %s", n, diff)
		}
	}
	if got := readAll(t, w.path, LogOptions{Stdout: true, Stderr: true, Tail: -1, From: 1 << 40}); len(got) != 15 {
		t.Errorf("from beyond the end, so of a log that was begun anew: %v", got)
	}
}

// TestBrokenParts are passed over, and what is lost is told.
func TestBrokenParts(t *testing.T) {
	for _, keep := range []int{0, 5, 60} {
		w := newRotatingLog(t, 3)
		w.write(0, 1)
		w.rotate(true)
		w.write(2, 3)
		w.rotate(true)
		w.write(4)
		if err := os.Truncate(w.path+".1.gz", int64(keep)); err != nil {
			t.Fatal(err)
		}
		r, err := OpenLog(w.path, LogOptions{Stdout: true, Stderr: true, Tail: -1})
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for {
			l, err := r.Next(t.Context())
			if err != nil {
				break
			}
			if l.Skipped > 0 {
				got += "…"
			} else {
				got += fmt.Sprint(number(t, l))
			}
		}
		r.Close()
		if got != "01…4" && got != "012…4" {
			t.Errorf("%d bytes left: %s", keep, got)
		}
	}
}

// TestTailCountsLines: a line in parts is one, and one that has not ended counts too.
func TestTailCountsLines(t *testing.T) {
	record := func(text string) string {
		b, _ := json.Marshal(entry{Log: text, Stream: "stdout", Time: epoch})
		return strings.Replace(string(b), `"attrs":null,`, "", 1) + "\n"
	}
	part := strings.Repeat("x", 16<<10)
	for _, c := range []struct {
		records []string
		n       int
		want    []string
	}{
		{[]string{"a\n", "b\n"}, 1, []string{"b\n"}},
		{[]string{"a\n", part, part, "b\n"}, 1, []string{part, part, "b\n"}},
		{[]string{"a\n", part, part, "b\n", "c"}, 1, []string{"c"}},
		{[]string{"a\n", part, part, "b\n", "c"}, 2, []string{part, part, "b\n", "c"}},
		{[]string{"a\n", part, part, "b\n", "c"}, 3, []string{"a\n", part, part, "b\n", "c"}},
		{[]string{part, part}, 1, []string{part, part}},
		{[]string{part, part}, 5, []string{part, part}},
		{[]string{"a\n", part}, 1, []string{part}},
	} {
		for split := range len(c.records) + 1 { // the older file is compressed
			path := filepath.Join(t.TempDir(), "x-json.log")
			var old, now string
			for i, text := range c.records {
				if i < split {
					old += record(text)
				} else {
					now += record(text)
				}
			}
			os.WriteFile(path, []byte(now), 0o600)
			os.WriteFile(path+".1", []byte(old), 0o600)
			if split > 0 {
				in, _ := os.Open(path + ".1")
				out, _ := os.Create(path + ".1.gz")
				LogHelper("compress", in, out)
				os.Remove(path + ".1")
			}
			r, err := OpenLog(path, LogOptions{Stdout: true, Tail: c.n})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for {
				l, err := r.Next(t.Context())
				if err != nil {
					break
				}
				got = append(got, string(l.Text))
			}
			r.Close()
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("tail %d of %d records, %d of them in an older file: %d came", c.n, len(c.records), split, len(got))
			}
		}
	}
}

// FuzzRecord compares the fast reader with the JSON package.
func FuzzRecord(f *testing.F) {
	f.Add([]byte(strings.TrimSpace(line(1))))
	f.Add([]byte(`{"log":"\ufffd","stream":"stdout","attrs":{"a":"b"},"time":"2026-01-02T03:04:05Z","offset":12,"raw":"/w=="}`))
	f.Fuzz(func(t *testing.T, record []byte) {
		var l Line
		offsetOf(record)
		if !l.parseOwn(record) {
			return
		}
		var e entry
		if json.Unmarshal(record, &e) != nil {
			return // it reads more than JSON allows, of what we never write
		}
		want := e.Log
		if e.Raw != nil {
			want = string(e.Raw)
		}
		if got := strings.ToValidUTF8(string(l.Text), "\ufffd"); got != strings.ToValidUTF8(want, "\ufffd") && !strings.Contains(want, "\ufffd") {
			t.Errorf("%s is read as %q, the JSON package has %q", record, got, want)
		}
	})
}
