package container

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// logFile is one part of a log, plain or compressed.
type logFile struct {
	file *os.File
	info fs.FileInfo
	gz   *gzip.Reader // nil: plain
	drop int          // lines to pass over at first
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
		if again, err := logParts(path); err == nil && whole && slices.Equal(names, again) && unmoved(path, files) || try == 4 {
			return files, nil
		}
		for _, f := range files {
			f.Close()
		}
	}
}

// unmoved tells whether the newest open part still has the log's own name.
func unmoved(path string, files []*logFile) bool {
	if len(files) == 0 {
		return true
	}
	now, err := os.Stat(path)
	return err == nil && os.SameFile(now, files[len(files)-1].info)
}

// openParts opens the named files, without those that are another's double; whole is false when one had gone.
func openParts(names []string) (files []*logFile, whole bool, err error) {
	whole = true
	for _, name := range names {
		f, err := openLogFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			whole = false
			continue
		}
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			return nil, false, fmt.Errorf("open log: %w", err)
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
	}
	return l, nil
}

// Read reads the part's plain bytes.
func (l *logFile) Read(p []byte) (int, error) {
	if l.gz == nil {
		return l.file.Read(p)
	}
	for {
		n, err := l.gz.Read(p)
		for l.drop > 0 && n > 0 {
			i := bytes.IndexByte(p[:n], '\n')
			if i < 0 {
				n = 0
				break
			}
			n = copy(p, p[i+1:n])
			l.drop--
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// Close closes the file.
func (l *logFile) Close() error { return l.file.Close() }

// seekTail places the reader before the last n whole lines and returns how many there are, at most n.
func (l *logFile) seekTail(n int) (int, error) {
	if l.gz != nil {
		return l.seekTailCompressed(n)
	}
	size, err := l.file.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	// A line is what ends with a newline; the one before the first wanted line is looked for.
	block := make([]byte, 64<<10)
	found := -1
	for end := size; end > 0; {
		start := max(0, end-int64(len(block)))
		part := block[:end-start]
		if _, err := l.file.ReadAt(part, start); err != nil {
			return 0, err
		}
		for i := len(part); ; {
			if i = bytes.LastIndexByte(part[:i], '\n'); i < 0 {
				break
			}
			if found++; found == n {
				_, err := l.file.Seek(start+int64(i)+1, io.SeekStart)
				return n, err
			}
		}
		end = start
	}
	_, err = l.file.Seek(0, io.SeekStart)
	return found + 1, err
}

func (l *logFile) seekTailCompressed(n int) (int, error) {
	lines := 0
	block := make([]byte, 64<<10)
	for {
		m, err := l.gz.Read(block)
		lines += bytes.Count(block[:m], []byte{'\n'})
		if err == io.EOF {
			break
		}
		if err != nil {
			return 0, err
		}
	}
	if _, err := l.file.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	if err := l.gz.Reset(l.file); err != nil {
		return 0, err
	}
	l.drop = max(0, lines-n)
	return min(lines, n), nil
}
