package union

import (
	"errors"
	"os"
	"path/filepath"

	"berth/fault"
	"berth/kernel"
)

// Space is what a tree takes.
type Space struct {
	Disk  int64 // allocated bytes as du(1) counts them, the top directory included
	Top   int64 // of these, the top directory itself
	Shown int64 // sizes of the regular files
	Files int64 // entries of any kind
}

// Content is what lies in the top directory, in allocated bytes.
func (s Space) Content() int64 { return s.Disk - s.Top }

// Measure sums up what path and all below it take, each file once however many names it has. What vanishes meanwhile does not
// count. skip, unless it is nil, tells by path what is left out with all that it has.
func Measure(path string, skip func(path string) bool) (Space, error) {
	return measure(path, skip, false)
}

// measure with single set leaves out the files that have further names.
func measure(path string, skip func(path string) bool, single bool) (s Space, err error) {
	st, err := kernel.StatIn(nil, path)
	if err != nil {
		return s, err
	}
	m := &measuring{Space: Space{Disk: st.Blocks * 512, Top: st.Blocks * 512}, seen: map[[2]uint64]bool{}, skip: skip, single: single}
	if st.Mode&kernel.TypeMask != kernel.TypeDir {
		m.Top = 0
		return m.Space, nil
	}
	f, err := kernel.OpenIn(nil, path, kernel.ODirectory|kernel.ONoFollow, 0, 0)
	if err != nil {
		return s, err
	}
	defer fault.Close(f, &err)
	err = m.dir(f, path)
	return m.Space, err
}

// Usage sums up the bytes that the files below dir take on disk and the sizes that they show, each file
// once however many names it has. What vanishes meanwhile does not count.
func Usage(dir string) (onDisk, shown int64, err error) {
	s, err := Measure(dir, nil)
	return s.Content(), s.Shown, err
}

type measuring struct {
	Space
	seen   map[[2]uint64]bool
	skip   func(string) bool
	single bool
}

func (m *measuring) dir(dir *os.File, at string) error {
	names, err := dir.Readdirnames(-1)
	if errors.Is(err, os.ErrNotExist) {
		return nil // removed meanwhile
	}
	if err != nil {
		return err
	}
	for _, n := range names {
		full := ""
		if m.skip != nil {
			if full = filepath.Join(at, n); m.skip(full) {
				continue
			}
		}
		st, err := kernel.StatIn(dir, n)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		kind := st.Mode & kernel.TypeMask
		if kind != kernel.TypeDir && st.Nlink > 1 {
			id := [2]uint64{st.Dev, st.Ino}
			if m.seen[id] || m.single {
				continue
			}
			m.seen[id] = true
		}
		m.Files++
		m.Disk += st.Blocks * 512
		if kind == kernel.TypeRegular {
			m.Shown += st.Size
		}
		if kind != kernel.TypeDir {
			continue
		}
		sub, err := kernel.OpenIn(dir, n, kernel.ODirectory|kernel.ONoFollow, 0, 0)
		if none(err) {
			continue
		}
		if err != nil {
			return err
		}
		err = m.dir(sub, full)
		fault.Close(sub, &err)
		if err != nil {
			return err
		}
	}
	return nil
}
