package shim

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func readSnapshot(l *logger) (string, error) {
	closers, parts := l.snapshot()
	all, err := io.ReadAll(io.MultiReader(parts...))
	for _, c := range closers {
		err = errors.Join(err, c.Close())
	}
	return string(all), err
}

// numbered is a line of 4,100 bytes with its number.
const numbered = "line %04096d"

// packedLog has lines of 0 to n-1 in files of about five.
func packedLog(t *testing.T, l Log, n int) *logger {
	t.Helper()
	l.MaxSize, l.Packer = 5*4200, "/proc/self/exe"
	log := openTestLog(t, l)
	for i := range n {
		log.mu.Lock()
		log.add("stdout", fmt.Appendf(nil, numbered, i), true, noon)
		log.flush()
		log.mu.Unlock()
	}
	return log
}

func namesBeside(t *testing.T, path string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, strings.TrimPrefix(e.Name(), filepath.Base(path)))
	}
	return names
}

// TestOldFilesArePacked: when it is quiet again, all but the current file are compressed, and the replay has what they hold.
func TestOldFilesArePacked(t *testing.T) {
	log := packedLog(t, Log{MaxFiles: 4}, 60)
	log.settle(limit)
	if got, want := fmt.Sprint(namesBeside(t, log.Path)), "[ .1.gz .2.gz .3.gz]"; got != want {
		t.Errorf("files %s, want %s", got, want)
	}
	all, err := readSnapshot(log)
	if err != nil {
		t.Fatal(err)
	}
	var c client
	c.Stdout = true
	var text []byte
	for record := range strings.Lines(all) {
		text = c.appendLine(text, []byte(record))
	}
	first := 60 - bytes.Count(text, []byte{'\n'})
	var want bytes.Buffer
	for i := first; i < 60; i++ {
		fmt.Fprintf(&want, numbered+"\n", i)
	}
	if string(text) != want.String() || first < 30 {
		t.Errorf("replayed from line %d: %d bytes, want %d", first, len(text), want.Len())
	}
	data, err := os.ReadFile(log.packed(1))
	if err != nil {
		t.Fatal(err)
	}
	if end := packedEnd(data[:min(64, len(data))]); end != log.offset {
		t.Errorf("the packed file ends at %d, the current one begins at %d", end, log.offset)
	}
}

// TestOffsetsGoOn: each file tells what was logged before it, over restarts, a lost current file, and a clearing.
func TestOffsetsGoOn(t *testing.T) {
	log := packedLog(t, Log{MaxFiles: 3}, 22)
	log.settle(limit)
	offset, size := log.offset, log.size
	if offset == 0 || firstOffset(log.file) != offset {
		t.Fatalf("offset %d, the file says %d", offset, firstOffset(log.file))
	}
	log.close()
	again := openTestLog(t, log.Log)
	if again.offset != offset || again.size != size {
		t.Errorf("after a restart at %d + %d, want %d + %d", again.offset, again.size, offset, size)
	}
	again.close()
	if err := os.Remove(log.Path); err != nil { // killed between two renames
		t.Fatal(err)
	}
	again = openTestLog(t, log.Log)
	if again.offset != offset {
		t.Errorf("with a packed file as the last at %d, want %d", again.offset, offset)
	}
	again.add("stdout", []byte("x"), true, noon)
	if err := again.clear(); err != nil {
		t.Fatal(err)
	}
	if names := namesBeside(t, log.Path); len(names) != 1 || again.offset <= offset {
		t.Errorf("cleared: files %q, offset %d", names, again.offset)
	}
	end := again.offset
	again.add("stdout", []byte("y"), true, noon)
	again.flush()
	if got := firstOffset(again.file); got != end {
		t.Errorf("the first record after a clearing is at %d, want %d", got, end)
	}
}

// TestHelperIsKilled leaves the file as it was, and no rubbish.
func TestHelperIsKilled(t *testing.T) {
	log := openTestLog(t, Log{MaxFiles: 3, MaxSize: 4 << 20})
	line := bytes.Repeat([]byte("some text "), 100)
	for log.offset == 0 {
		log.add("stdout", line, true, noon)
	}
	log.mu.Lock()
	log.Packer = "/proc/self/exe"
	log.pack()
	p := log.packing
	log.mu.Unlock()
	p.process.Kill()
	<-p.done
	if got := fmt.Sprint(namesBeside(t, log.Path)); got != "[ .1]" && got != "[ .1.gz]" { // it may have been done
		t.Errorf("files %s", got)
	}
}

// TestTidy has what a supervisor may leave that is killed anywhere.
func TestTidy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "json.log")
	var gz bytes.Buffer
	z := gzip.NewWriter(&gz)
	z.Comment = endWords + "77"
	z.Close()
	for suffix, content := range map[string]string{newSuffix: "", tempSuffix: "half", ".1": "plain\n", ".1.gz": gz.String()} {
		if err := os.WriteFile(path+suffix, []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	log := openTestLog(t, Log{Path: path, MaxFiles: 3})
	if got := fmt.Sprint(namesBeside(t, path)); got != "[ .1.gz]" {
		t.Errorf("files %s", got)
	}
	if log.offset != 77 {
		t.Errorf("goes on at %d, want 77", log.offset)
	}
}

// TestAttrsAreNoFields: what a user calls a label doesn't confuse the readers.
func TestAttrsAreNoFields(t *testing.T) {
	attrs := `{"offset":"5","raw":"eA==","time":"now"}`
	record := appendRecord(nil, "stderr", []byte("a\xffb"), true, appendStamp(nil, noon), attrs, 12)
	want := `{"log":"a\ufffdb\n","stream":"stderr","attrs":` + attrs + `,"time":"2024-02-03T11:00:00.12Z","offset":12,"raw":"Yf9iCg=="}` + "\n"
	if string(record) != want {
		t.Errorf("got %s, want %s", record, want)
	}
	text, _, ok := appendOwn(nil, record)
	if !ok || string(text) != "a\xffb\n" || recordOffset(record) != 12 {
		t.Errorf("read as %q at %d", text, recordOffset(record))
	}
	record = appendRecord(nil, "stderr", []byte("ab"), false, appendStamp(nil, noon), attrs, 0)
	if text, _, ok := appendOwn(nil, record); !ok || string(text) != "ab" || recordOffset(record) != 0 {
		t.Errorf("read as %q at %d", text, recordOffset(record))
	}
}

func FuzzPackedEnd(f *testing.F) {
	f.Add([]byte("\x1f\x8b\x08\x10\x00\x00\x00\x00\x00\xff" + endWords + "12\x00"))
	f.Fuzz(func(t *testing.T, head []byte) {
		if end := packedEnd(head); end != 0 && !bytes.Contains(head, fmt.Appendf(nil, "%d", end)) {
			t.Errorf("%q ends at %d", head, end)
		}
		recordOffset(head)
	})
}
