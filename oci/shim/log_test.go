package shim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/fault"
)

var noon = time.Date(2024, 2, 3, 12, 0, 0, 120_000_000, time.FixedZone("", 3600))

// TestRecordIsDockers has the bytes that Docker's json-file driver writes.
func TestRecordIsDockers(t *testing.T) {
	for _, c := range []struct {
		line string
		last bool
		want string
	}{
		{"hello", true, `{"log":"hello\n","stream":"stdout","time":"2024-02-03T11:00:00.12Z"}`},
		{"", true, `{"log":"\n","stream":"stdout","time":"2024-02-03T11:00:00.12Z"}`},
		{"part", false, `{"log":"part","stream":"stdout","time":"2024-02-03T11:00:00.12Z"}`},
		{"a\tb\r\"\\<&>\x1b", true, `{"log":"a\u0009b\r\"\\\u003c\u0026\u003e\u001b\n","stream":"stdout","time":"2024-02-03T11:00:00.12Z"}`},
		{"\u2028é\u2029\ufffd", true, `{"log":"\u2028é\u2029�\n","stream":"stdout","time":"2024-02-03T11:00:00.12Z"}`},
		{"\xff", true, `{"log":"\ufffd\n","stream":"stdout","time":"2024-02-03T11:00:00.12Z","raw":"/wo="}`}, // all but the last field
	} {
		if got := string(appendRecord(nil, "stdout", []byte(c.line), c.last, appendStamp(nil, noon), "", -1)); got != c.want+"\n" {
			t.Errorf("%q:\n got %s\nwant %s", c.line, got, c.want)
		}
	}
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte("hello"), true)
	f.Add([]byte("\x00\xff\u2028<\t\""), false)
	f.Fuzz(func(t *testing.T, line []byte, last bool) {
		record := appendRecord(nil, "stderr", line, last, appendStamp(nil, noon), "", -1)
		var e struct{ Log, Stream, Time string }
		if err := json.Unmarshal(record, &e); err != nil {
			t.Fatalf("%s: %v", record, err)
		}
		want := strings.ToValidUTF8(string(line), "")
		if last {
			want += "\n"
		}
		if got := strings.ReplaceAll(e.Log, "\ufffd", ""); got != strings.ReplaceAll(want, "\ufffd", "") || e.Stream != "stderr" {
			t.Errorf("%q became %q", line, e.Log)
		}
		text, stream, ok := appendOwn([]byte("x"), record)
		if want := "x" + string(line); last && string(text) != want+"\n" || !last && string(text) != want {
			t.Errorf("%q comes back as %q", line, text)
		}
		if !ok || stream != streamErr {
			t.Errorf("%s is read as %q, %d, %v", record, text, stream, ok)
		}
	})
}

// FuzzRecordReader compares the fast reader with the JSON package.
func FuzzRecordReader(f *testing.F) {
	f.Add([]byte(`{"log":"a\u0041\n","stream":"stderr","time":""}`))
	f.Add([]byte(`{"log":"\ud83d\ude00","stream":"stdout","time":""}`))
	f.Add([]byte(`{"log":"`))
	f.Add([]byte(`{"log":"\`))
	f.Fuzz(func(t *testing.T, record []byte) {
		text, _, ok := appendOwn(nil, record)
		var e struct{ Log string }
		if ok && json.Unmarshal(record, &e) == nil && e.Log != strings.ToValidUTF8(string(text), "\ufffd") && !strings.Contains(e.Log, "\ufffd") {
			t.Errorf("%s is read as %q, the JSON package has %q", record, text, e.Log)
		}
		appendText(nil, record)
	})
}

type piece struct {
	text string
	last bool
	at   time.Time
}

func TestSplitter(t *testing.T) {
	full := strings.Repeat("x", maxLine)
	for _, c := range []struct {
		name  string
		input []string
		want  []piece // the time is that of the read, counted in seconds
	}{
		{"lines", []string{"a\nb\n\nc\n"}, []piece{{"a", true, at(0)}, {"b", true, at(0)}, {"", true, at(0)}, {"c", true, at(0)}}},
		{"joined", []string{"a", "b", "c\nd"}, []piece{{"abc", true, at(2)}, {"d", false, at(9)}}},
		{"no newline", []string{"hi"}, []piece{{"hi", false, at(9)}}},
		{"just short", []string{full[1:] + "\n"}, []piece{{full[1:], true, at(0)}}},
		{"full", []string{full + "\n"}, []piece{{full, false, at(0)}, {"", true, at(0)}}},
		{"long", []string{full, full + "yz", "!\nnext\n"}, []piece{{full, false, at(0)}, {full, false, at(0)}, {"yz!", true, at(0)}, {"next", true, at(2)}}},
		{"filled up", []string{"ab", full}, []piece{{"ab" + full[2:], false, at(1)}, {"xx", false, at(1)}}},
	} {
		var s splitter
		var got []piece
		emit := func(line []byte, last bool, at time.Time) { got = append(got, piece{string(line), last, at}) }
		for i, text := range c.input {
			s.feed([]byte(text), at(i), emit)
		}
		s.flush(at(9), emit)
		if len(got) != len(c.want) {
			t.Errorf("%s: %d pieces, want %d", c.name, len(got), len(c.want))
			continue
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("%s: piece %d is %d bytes, last %v, at %v; want %d, %v, %v", c.name, i,
					len(got[i].text), got[i].last, got[i].at, len(c.want[i].text), c.want[i].last, c.want[i].at)
			}
		}
	}
}

func at(seconds int) time.Time { return noon.Add(time.Duration(seconds) * time.Second) }

// FuzzSplitter: however the reads fall, nothing is lost, and no piece is too long.
func FuzzSplitter(f *testing.F) {
	f.Add([]byte("a\nbc\n"), uint16(2), uint8(1))
	f.Add([]byte("no newline"), uint16(20000), uint8(9))
	f.Fuzz(func(t *testing.T, data []byte, repeat uint16, step uint8) {
		data = bytes.Repeat(data, int(repeat)/(len(data)+1)+1)
		var s splitter
		var got []byte
		emit := func(line []byte, last bool, _ time.Time) {
			if len(line) > maxLine || !last && len(line) == 0 {
				t.Errorf("a piece of %d bytes, last %v", len(line), last)
			}
			got = append(got, line...)
			if last {
				got = append(got, '\n')
			}
		}
		for rest := data; len(rest) > 0; {
			n := min(len(rest), int(step)*97+1)
			s.feed(rest[:n], noon, emit)
			rest = rest[n:]
		}
		s.flush(noon, emit)
		if !bytes.Equal(got, data) {
			t.Errorf("%d bytes became %d", len(data), len(got))
		}
	})
}

func openTestLog(t *testing.T, l Log) *logger {
	t.Helper()
	if l.Path == "" {
		l.Path = filepath.Join(t.TempDir(), "json.log")
	}
	log, err := openLog(l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.close() })
	return log
}

func TestRotation(t *testing.T) {
	const record = 68 // bytes of each line below
	for _, c := range []struct {
		files int
		want  []string // which lines each file has, the current one first
	}{
		{0, []string{"9"}},
		{1, []string{"9"}},
		{2, []string{"9", "678"}},
		{3, []string{"9", "678", "345"}},
		{9, []string{"9", "678", "345", "012"}},
	} {
		log := openTestLog(t, Log{MaxSize: 3*record + 14, MaxFiles: c.files})
		for i := range 10 {
			log.add("stdout", []byte(fmt.Sprint(i)), true, noon)
			log.flush()
		}
		for i, want := range c.want {
			var got string
			for _, line := range logLines(t, log.name(i)) {
				got += line[8:9]
			}
			if got != want {
				t.Errorf("%d files: file %d has %s, want %s", c.files, i, got, want)
			}
		}
		if _, err := os.Stat(log.name(len(c.want))); err == nil {
			t.Errorf("%d files: one more", c.files)
		}
		all, err := readSnapshot(log)
		if n := strings.Count(all, "\n"); err != nil || n != len(strings.Join(c.want, "")) {
			t.Errorf("%d files: a snapshot of %d lines, %v", c.files, n, err)
		}
	}
}

// TestTornRecord is what a killed supervisor may leave.
func TestTornRecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "json.log")
	whole := string(appendRecord(nil, "stdout", []byte("one"), true, appendStamp(nil, noon), "", -1))
	for _, left := range []string{"", whole, whole + whole[:20], whole[:20]} {
		if err := os.WriteFile(path, []byte(left), 0o640); err != nil {
			t.Fatal(err)
		}
		log := openTestLog(t, Log{Path: path})
		log.add("stdout", []byte("two"), true, noon)
		log.flush()
		want := strings.Count(left, "\n") + 1
		lines := logLines(t, path)
		if len(lines) != want || !strings.HasPrefix(lines[want-1], `{"log":"two\n"`) {
			t.Errorf("after %q: %q", left, lines)
		}
	}
}

func TestLogDrivers(t *testing.T) {
	for _, l := range []Log{{}, {Driver: LogNone}, {Driver: LogNone, Path: "/nowhere/at/all"}} {
		if log, err := openLog(l); log != nil || err != nil {
			t.Errorf("%+v: %v, %v", l, log, err)
		}
	}
	if _, err := openLog(Log{Driver: "syslog", Path: "x"}); !errors.Is(err, fault.Unsupported) {
		t.Errorf("syslog: %v", err)
	}
	if _, err := openLog(Log{Path: filepath.Join(t.TempDir(), "no/dir")}); err == nil {
		t.Error("a log in no directory")
	}
}
