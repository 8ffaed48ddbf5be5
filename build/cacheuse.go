package build

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"berth/internal/record"
)

// uses remembers how often and when entries were last of use, a line for each time: "HASH NANOSECONDS COUNT". An entry's own file is not written
// again for that. What a power cut takes of it makes an entry look older than it is, and no more.
type uses struct {
	path string
	f    *os.File
}

// open reads what is known of entries into them, and makes one line of many.
func (u *uses) open(entries map[string]*entry) error {
	data, err := os.ReadFile(u.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("open the build cache: %w", err)
	}
	lines := 0
	for line := range bytes.Lines(data) {
		var hash string
		var at int64
		var count int
		lines++
		if _, err := fmt.Sscanf(string(line), "%64s %d %d\n", &hash, &at, &count); err != nil {
			continue // torn
		}
		if e := entries[hash]; e != nil {
			e.Uses += count
			if used := time.Unix(0, at).UTC(); used.After(e.Used) {
				e.Used = used
			}
		}
	}
	if lines > 2*len(entries)+100 {
		var short bytes.Buffer
		w := bufio.NewWriter(&short)
		for _, e := range entries {
			if e.Uses > 0 {
				u.line(w, e, e.Uses)
			}
		}
		if err := errors.Join(w.Flush(), record.WriteFile(u.path, short.Bytes(), 0o600, false)); err != nil {
			return fmt.Errorf("open the build cache: %w", err)
		}
	}
	if u.f, err = os.OpenFile(u.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
		return fmt.Errorf("open the build cache: %w", err)
	}
	return nil
}

func (u *uses) line(w io.Writer, e *entry, count int) {
	fmt.Fprintf(w, "%s %d %d\n", e.hash, e.Used.UnixNano(), count)
}

// add notes one use. A build does not fail because that can't be written: the disk is full then, and what is next says so.
func (u *uses) add(e *entry) { u.line(u.f, e, 1) }
