package journal

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/moby/moby/api/types/events"
)

// The bounds of the history: some fifty thousand events.
const (
	fileSize   = 1 << 20 // bytes after which a new file is begun
	keptFiles  = 16
	maxPending = 16384 // events that wait for a disk that does not take them
	fileSuffix = ".jsonl"
)

// history is the events on disk: files of lines of JSON, named after the time in nanoseconds of their first event. They are appended to
// without a sync: a killed engine loses nothing that was written, a power cut the last seconds. A torn line is skipped.
type history struct {
	dir      string
	fileSize int64
	warn     func(error)

	mu      sync.Mutex
	idle    sync.Cond // told when pending is written
	pending []events.Message
	writing bool
	lost    int // since the last warning

	// Of the writer alone.
	file   *os.File
	resume string // the name of a file of the engine before that has room left
	size   int64
	torn   bool // the file may end in half a line
	warned bool
}

// openHistory finds the files in dir, and tells the time of the last event in them.
func openHistory(dir string, warn func(error)) (h *history, last int64, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, 0, fmt.Errorf("open the history of events: %w", err)
	}
	h = &history{dir: dir, fileSize: fileSize, warn: warn}
	h.idle.L = &h.mu
	files, err := h.files()
	if err != nil {
		return nil, 0, fmt.Errorf("open the history of events: %w", err)
	}
	if len(files) == 0 {
		return h, 0, nil
	}
	name := files[len(files)-1]
	last, _ = firstOf(name)
	for m := range h.readFile(name) {
		last = max(last, m.TimeNano)
	}
	if info, err := os.Stat(filepath.Join(dir, name)); err == nil && info.Size() < h.fileSize {
		h.resume = name
	}
	return h, last, nil
}

// files lists the names, the oldest first.
func (h *history) files() ([]string, error) {
	entries, err := os.ReadDir(h.dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if _, ok := firstOf(e.Name()); ok {
			names = append(names, e.Name())
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		x, _ := firstOf(a)
		y, _ := firstOf(b)
		return int(max(-1, min(1, x-y)))
	})
	return names, nil
}

// firstOf is the time in a file's name.
func firstOf(name string) (int64, bool) {
	digits, ok := strings.CutSuffix(name, fileSuffix)
	n, err := strconv.ParseInt(digits, 10, 64)
	return n, ok && err == nil
}

// add takes an event over, to be written soon.
func (h *history) add(m events.Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.pending) == maxPending {
		h.lost++
		return
	}
	h.pending = append(h.pending, m)
	if !h.writing {
		h.writing = true
		go h.write()
	}
}

// write puts on disk what is pending, on a goroutine that exists only while there is something.
func (h *history) write() {
	for {
		h.mu.Lock()
		batch, lost := h.pending, h.lost
		h.pending, h.lost = nil, 0
		if len(batch) == 0 {
			h.writing = false
			h.idle.Broadcast()
			h.mu.Unlock()
			return
		}
		h.mu.Unlock()
		err := h.append(batch)
		if lost > 0 {
			err = errors.Join(err, fmt.Errorf("%d events were not written, as the disk did not take them in time", lost))
		}
		if err != nil && !h.warned { // once, until it works again
			h.warn(fmt.Errorf("the history of events has a gap: %w", err))
		}
		h.warned = err != nil
	}
}

// append writes events to the current file, or a new one.
func (h *history) append(batch []events.Message) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	for _, m := range batch {
		if err := e.Encode(m); err != nil {
			return err
		}
	}
	if h.file != nil && h.size >= h.fileSize {
		h.file.Close() // nothing of it is buffered here
		h.file = nil
	}
	if h.file == nil {
		if err := h.next(batch[0].TimeNano); err != nil {
			return err
		}
	}
	data := b.Bytes()
	if h.torn { // what stands there is ended; an empty line is no event
		data = append([]byte{'\n'}, data...)
	}
	n, err := h.file.Write(data)
	h.size += int64(n)
	h.torn = err != nil
	return err
}

// next opens the file to write to: the one that the engine before left, or a new one.
func (h *history) next(first int64) (err error) {
	if h.resume != "" {
		h.file, err = os.OpenFile(filepath.Join(h.dir, h.resume), os.O_WRONLY|os.O_APPEND, 0)
		h.resume, h.torn = "", true
		if err == nil {
			h.size, err = h.file.Seek(0, io.SeekEnd)
			return err
		}
	}
	name := strconv.FormatInt(first, 10) + fileSuffix
	h.file, err = os.OpenFile(filepath.Join(h.dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	h.size, h.torn = 0, false
	return h.prune()
}

// prune deletes the oldest files.
func (h *history) prune() error {
	names, err := h.files()
	if err != nil || len(names) <= keptFiles {
		return err
	}
	for _, name := range names[:len(names)-keptFiles] {
		err = errors.Join(err, os.Remove(filepath.Join(h.dir, name)))
	}
	return err
}

// flush waits until all that was added before is on disk.
func (h *history) flush() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.writing {
		h.idle.Wait()
	}
}

// read gives the events of the files that hold some between two times; there may be others among them.
func (h *history) read(since, until int64) iter.Seq[events.Message] {
	return func(yield func(events.Message) bool) {
		h.flush()
		names, err := h.files()
		if err != nil {
			h.warn(fmt.Errorf("read the history of events: %w", err))
			return
		}
		for n, name := range names {
			if n+1 < len(names) {
				if next, _ := firstOf(names[n+1]); next <= since {
					continue
				}
			}
			if first, _ := firstOf(name); first > until {
				return
			}
			for m := range h.readFile(name) {
				if !yield(m) {
					return
				}
			}
		}
	}
}

// readFile gives the events of one file. What is not one, as after a crash, is skipped; so is a file that was pruned meanwhile.
func (h *history) readFile(name string) iter.Seq[events.Message] {
	return func(yield func(events.Message) bool) {
		f, err := os.Open(filepath.Join(h.dir, name))
		if err != nil {
			return
		}
		defer f.Close()
		r := bufio.NewReaderSize(f, 64<<10)
		for {
			line, err := r.ReadBytes('\n')
			var m events.Message
			if len(line) > 0 && json.Unmarshal(line, &m) == nil && m.TimeNano != 0 && !yield(m) {
				return
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					h.warn(fmt.Errorf("read the history of events: %w", err))
				}
				return
			}
		}
	}
}

// close waits for the writer and closes its file.
func (h *history) close() error {
	h.flush()
	if h.file == nil {
		return nil
	}
	f := h.file
	h.file = nil
	return f.Close()
}
