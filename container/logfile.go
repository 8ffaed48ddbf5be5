package container

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
)

// logFile is one part of a log, plain or compressed.
type logFile struct {
	file *os.File
	info fs.FileInfo
	gz   *gzip.Reader  // nil: plain
	in   *bufio.Reader // of gz
	pos  int64         // bytes read of the content
	// What it holds of the log: from start up to end. A plain part may have grown meanwhile.
	start, end int64
	first      time.Time // of its first line; zero: it has none
}

// openLogFiles opens all parts of the log at path, oldest first.
func openLogFiles(path string) ([]*logFile, error) {
	for try := 0; ; try++ {
		names, err := logParts(path)
		if err != nil {
			return nil, err
		}
		files, whole, err := openParts(names)
		if err != nil {
			return nil, err
		}
		// A rotation meanwhile renames what was listed: then look again.
		if whole && joined(files) && unmoved(path, files) || try == 4 {
			return files, nil
		}
		for _, f := range files {
			f.Close()
		}
	}
}

// joined tells whether each part goes on where the one before ends.
func joined(files []*logFile) bool {
	for i := 1; i < len(files); i++ {
		if files[i].size() > 0 && files[i].start != files[i-1].end {
			return false
		}
	}
	return true
}

// unmoved tells whether the newest open part still has the log's own name.
func unmoved(path string, files []*logFile) bool {
	if len(files) == 0 {
		return true
	}
	now, err := os.Stat(path)
	return err == nil && os.SameFile(now, files[len(files)-1].info)
}

// openParts opens the named files; whole is false when one had gone.
func openParts(names []string) (files []*logFile, whole bool, err error) {
	whole = true
	for _, name := range names {
		f, err := openLogFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			whole = false
			continue
		}
		if errors.Is(err, gzip.ErrHeader) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			continue // a compressed part that a power cut left empty or broken: the others are still there
		}
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			return nil, false, fmt.Errorf("open log: %w", err)
		}
		if n := len(files); n > 0 && f.start < 0 { // no file of ours: take it for seamless
			f.start = files[n-1].end
		}
		f.start = max(0, f.start)
		if f.end == 0 {
			f.end = f.start + f.content()
		}
		files = append(files, f)
	}
	return files, whole, nil
}

// logParts lists the files of a log, oldest first.
func logParts(path string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	base := filepath.Base(path)
	byNumber := map[int]string{}
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), base)
		if !ok {
			continue
		}
		if rest == "" {
			byNumber[0] = e.Name()
			continue
		}
		n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(rest, "."), ".gz"))
		if err != nil || n < 1 || rest[0] != '.' {
			continue
		}
		if _, twice := byNumber[n]; !twice || !strings.HasSuffix(rest, ".gz") {
			byNumber[n] = e.Name() // while it is being compressed the plain one counts
		}
	}
	var numbers []int
	for n := range byNumber {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	slices.Reverse(numbers)
	names := make([]string, 0, len(numbers))
	for _, n := range numbers {
		names = append(names, filepath.Join(filepath.Dir(path), byNumber[n]))
	}
	return names, nil
}

func openLogFile(name string) (*logFile, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	l := &logFile{file: f, info: info}
	if strings.HasSuffix(name, ".gz") {
		if l.gz, err = gzip.NewReader(f); err != nil {
			return nil, fmt.Errorf("%s: %w", name, errors.Join(err, f.Close()))
		}
		l.in = bufio.NewReaderSize(l.gz, chunk)
	}
	l.describe()
	return l, nil
}

// describe learns what the part holds, from its first record.
func (l *logFile) describe() {
	var head []byte
	if l.gz != nil {
		head, _ = l.in.Peek(chunk)
	} else {
		for size := 1 << 10; size <= maxLine; size *= 16 {
			head = make([]byte, size)
			n, err := l.file.ReadAt(head, 0)
			if head = head[:n]; err != nil || bytes.IndexByte(head, '\n') >= 0 {
				break
			}
		}
	}
	record, _, _ := bytes.Cut(head, []byte{'\n'})
	var first Line
	if first.parse(record) {
		l.first = first.Time
	}
	l.start = offsetOf(record)
	if l.gz != nil {
		end, _ := strings.CutPrefix(l.gz.Comment, packedComment)
		l.end, _ = strconv.ParseInt(end, 10, 64)
	}
}

// content is the number of plain bytes; of a compressed part modulo 4 GiB (RFC 1952, 2.3.1: ISIZE).
func (l *logFile) content() int64 {
	var size [4]byte
	if l.gz == nil {
		return l.info.Size()
	}
	if _, err := l.file.ReadAt(size[:], max(0, l.info.Size()-4)); err != nil {
		return 0
	}
	return int64(binary.LittleEndian.Uint32(size[:]))
}

// size is 0 for a part that holds nothing yet.
func (l *logFile) size() int64 { return l.info.Size() }

// Read reads the part's plain bytes.
func (l *logFile) Read(p []byte) (n int, err error) {
	if l.gz != nil {
		n, err = l.in.Read(p)
	} else {
		n, err = l.file.Read(p)
	}
	l.pos += int64(n)
	return n, err
}

// skip passes over n bytes, or all there are.
func (l *logFile) skip(n int64) error {
	if l.gz == nil {
		l.pos += n
		_, err := l.file.Seek(l.pos, io.SeekStart)
		return err
	}
	_, err := io.CopyN(io.Discard, l, n)
	if err == io.EOF {
		return nil
	}
	return err
}

// Close closes the file.
func (l *logFile) Close() error { return l.file.Close() }

// lineEnd stands once in each record that ends a line, and in no text, whose quotes are escaped.
const lineEnd = `\n","stream":"`

// seekBehind places the reader behind the n-th end of a line, counted from the last one, and returns n; when there are fewer, it
// returns their number, and the reader is at the beginning.
func (l *logFile) seekBehind(n int) (int, error) {
	if l.gz != nil {
		return l.seekBehindPacked(n)
	}
	block := make([]byte, chunk+len(lineEnd)-1) // two blocks overlap, so that no mark is cut in two
	found := 0
	size := l.size()
	for end := size; end > 0; {
		start := max(0, end-chunk)
		part := block[:min(size-start, end-start+int64(len(lineEnd))-1)]
		if _, err := l.file.ReadAt(part, start); err != nil {
			return 0, err
		}
		for {
			i := bytes.LastIndex(part, []byte(lineEnd))
			if i < 0 {
				break
			}
			if found++; found == n {
				next, err := l.recordEnd(start + int64(i))
				if err != nil {
					return 0, err
				}
				return n, l.skip(next)
			}
			part = part[:i+len(lineEnd)-1]
		}
		end = start
	}
	return found, nil
}

// unfinished tells whether the part ends within a line.
func (l *logFile) unfinished() (bool, error) {
	if l.gz != nil {
		_, unfinished, err := l.count(-1)
		return unfinished, errors.Join(err, l.rewind())
	}
	last := make([]byte, min(l.size(), maxLine))
	if _, err := l.file.ReadAt(last, l.size()-int64(len(last))); err != nil {
		return false, err
	}
	last = bytes.TrimSuffix(last, []byte{'\n'})
	return !bytes.Contains(last[bytes.LastIndexByte(last, '\n')+1:], []byte(lineEnd)), nil
}

// recordEnd finds the end of the record that has a byte.
func (l *logFile) recordEnd(pos int64) (int64, error) {
	block := make([]byte, 512)
	for {
		n, err := l.file.ReadAt(block, pos)
		if i := bytes.IndexByte(block[:n], '\n'); i >= 0 {
			return pos + int64(i) + 1, nil
		}
		if pos += int64(n); err == io.EOF {
			return pos, nil
		}
		if err != nil {
			return 0, err
		}
	}
}

// seekBehindPacked reads it all to count, and then again up to the place.
func (l *logFile) seekBehindPacked(n int) (int, error) {
	lines, _, err := l.count(-1)
	if err := errors.Join(err, l.rewind()); err != nil {
		return 0, err
	}
	if lines < n {
		return lines, nil
	}
	_, _, err = l.count(lines - n + 1)
	return n, err
}

// rewind goes back to the beginning of a compressed part.
func (l *logFile) rewind() error {
	if _, err := l.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if err := l.gz.Reset(l.file); err != nil {
		return err
	}
	l.in.Reset(l.gz)
	l.pos = 0
	return nil
}

// count reads on behind the end of the limit-th line (negative: to the end) and counts the lines.
func (l *logFile) count(limit int) (lines int, unfinished bool, err error) {
	ends := false // a line, in the record at hand
	for lines != limit {
		piece, err := l.in.ReadSlice('\n')
		l.pos += int64(len(piece))
		ends = ends || bytes.Contains(piece, []byte(lineEnd))
		switch err {
		case nil:
			if unfinished = !ends; ends {
				lines++
			}
			ends = false
		case bufio.ErrBufferFull: // a mark that is cut in two is found in the last piece, as it stands near the end
		case io.EOF:
			return lines, unfinished, nil
		default:
			return lines, unfinished, err
		}
	}
	return lines, unfinished, nil
}

// ClearLog empties the log at path, which nobody writes: the older parts go, and the current one is empty.
func ClearLog(path string) error {
	names, err := logParts(path)
	if err != nil {
		return err
	}
	for _, name := range names {
		if name != path {
			err = errors.Join(err, os.Remove(name))
		}
	}
	if cut := os.Truncate(path, 0); cut != nil && !errors.Is(cut, fs.ErrNotExist) {
		err = errors.Join(err, cut)
	}
	return err
}
