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
	appendTo(line(7))
	os.Remove(path) // compressed or dropped: what was read is known by its time
	appendTo(lines(6, 9))
	expect(7)
	expect(8)
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
		for ; ; n++ {
			if _, err := r.Next(t.Context()); err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if tail >= 0 && n > tail {
			t.Errorf("%d lines of a tail of %d", n, tail)
		}
	})
}
