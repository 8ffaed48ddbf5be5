package transfer

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"time"

	"berth/fault"
	"berth/kernel"
)

// Listing is a directory as it was when it was looked at.
type Listing struct {
	Dir     string
	Entries []Entry
	Skipped []string // sockets, which mean nothing elsewhere
}

// List looks at all that lies below dir, links not followed. leave, unless it is nil, tells what is left out, and of a directory whether
// there may be something below it that is not; it may be called concurrently. What can't be looked at is an error.
func List(ctx context.Context, dir string, leave func(p string, isDir bool) (out, enter bool)) (*Listing, error) {
	w := &walk{ctx: ctx, top: dir, leave: leave, hands: make(chan struct{}, runtime.GOMAXPROCS(0))}
	top := w.dir("")
	n, err := top.count()
	if err != nil {
		return nil, err
	}
	l := &Listing{Dir: dir, Entries: make([]Entry, 0, n)}
	top.flatten(l, map[inode]int{})
	return l, nil
}

type walk struct {
	ctx   context.Context
	top   string
	leave func(string, bool) (out, enter bool)
	hands chan struct{} // one for each goroutine beside the first
}

// found is one thing of a directory, in order.
type found struct {
	entry   Entry
	links   inode // when it has further names
	listed  bool  // else it is only entered
	skipped bool
	below   *level
}

type level struct {
	done chan struct{} // closed when the rest is set; nil: it is
	all  []found
	err  error
}

type inode struct{ dev, ino uint64 }

func (w *walk) dir(p string) *level {
	l := &level{}
	l.all, l.err = w.children(p)
	return l
}

// below walks a directory in a goroutine of its own when a hand is free.
func (w *walk) below(p string) *level {
	select {
	case w.hands <- struct{}{}:
	default:
		return w.dir(p)
	}
	l := &level{done: make(chan struct{})}
	go func() {
		l.all, l.err = w.children(p)
		<-w.hands
		close(l.done)
	}()
	return l
}

func (w *walk) children(p string) ([]found, error) {
	if err := w.ctx.Err(); err != nil {
		return nil, fault.Wrap(fault.Canceled, err)
	}
	full := filepath.Join(w.top, p)
	f, err := os.Open(full)
	if err != nil {
		return nil, fmt.Errorf("read the build context: %w: name it in .dockerignore when it is not needed", err)
	}
	names, err := f.Readdirnames(-1)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read the build context: %w", err)
	}
	slices.Sort(names)
	all := make([]found, 0, len(names))
	for _, name := range names {
		inner := name
		if p != "" {
			inner = p + "/" + name
		}
		one, is, err := w.look(inner, full+"/"+name)
		if err != nil {
			return nil, err
		}
		if is {
			all = append(all, one)
		}
	}
	return all, nil
}

// look looks at one thing; is is false when it is left out, or went meanwhile.
func (w *walk) look(p, full string) (one found, is bool, err error) {
	st, err := kernel.StatIn(nil, full)
	if errors.Is(err, os.ErrNotExist) {
		return one, false, nil
	}
	if err != nil {
		return one, false, fmt.Errorf("read the build context: %w", err)
	}
	kind := st.Mode & kernel.TypeMask
	isDir := kind == kernel.TypeDir
	out, enter := false, true
	if w.leave != nil {
		out, enter = w.leave(p, isDir)
	}
	if out && !(isDir && enter) {
		return one, false, nil
	}
	one = found{listed: !out, entry: entryOf(p, st.Mode, st.Size, st.Mtim.Nano(), st.Ctim.Nano(), st.Ino, time.Now())}
	switch kind {
	case kernel.TypeDir:
		one.below = w.below(p)
	case kernel.TypeSymlink:
		one.entry.Target, err = os.Readlink(full)
	case kernel.TypeChar, kernel.TypeBlock:
		one.entry.Device = st.Rdev
	case kernel.TypeSocket:
		one.skipped, one.listed = true, false
		return one, true, nil
	case kernel.TypeRegular:
		if st.Nlink > 1 {
			one.links = inode{st.Dev, st.Ino}
		}
	}
	if err == nil && one.listed && kind != kernel.TypeRegular { // a file's come with its content: without a change of them the rest is the same
		one.entry.Xattrs, err = attributes(full)
	}
	if errors.Is(err, os.ErrNotExist) {
		return one, false, nil
	}
	if err != nil {
		err = fmt.Errorf("read the build context: %w", err)
	}
	return one, true, err
}

// settled is how long after a change a file's times tell of the next one: the kernel's clock for them ticks a hundred times a second at least.
const settled = 20 * time.Millisecond

func entryOf(p string, mode uint32, size, mtime, ctime int64, ino uint64, now time.Time) Entry {
	e := Entry{Path: p, Mode: mode, MTime: mtime, CTime: ctime, Inode: ino}
	if e.Is(kernel.TypeRegular) {
		e.Size = size
	}
	if ctime > now.Add(-settled).UnixNano() {
		e.CTime = 0
	}
	return e
}

// attributes are the extended attributes that go with a file.
func attributes(full string) (map[string]string, error) {
	all, err := kernel.XattrsIn(nil, full)
	for name := range all {
		if !carried(name) {
			delete(all, name)
		}
	}
	return all, err
}

// count waits for all below a level and gives how much of it is listed. A directory that is left out is listed when something below it is not.
func (v *level) count() (n int, err error) {
	if v.done != nil {
		<-v.done
	}
	err = v.err
	for k := range v.all {
		f := &v.all[k]
		if f.below != nil {
			below, belowErr := f.below.count()
			n += below
			f.listed = f.listed || below > 0
			err = cmp.Or(err, belowErr)
		}
		if f.listed {
			n++
		}
	}
	return n, err
}

// flatten adds a level and those below it to l, in order.
func (v *level) flatten(l *Listing, seen map[inode]int) {
	for k := range v.all {
		f := &v.all[k]
		if f.skipped {
			l.Skipped = append(l.Skipped, f.entry.Path)
		}
		if f.listed {
			if first, ok := seen[f.links]; ok {
				f.entry.Same = first + 1
			} else if f.links != (inode{}) {
				seen[f.links] = len(l.Entries)
			}
			l.Entries = append(l.Entries, f.entry)
		}
		if f.below != nil {
			f.below.flatten(l, seen)
		}
	}
}

// tries is how often a file is sent that changes meanwhile.
const tries = 5

// Send tells the other end what there is, and sends what it wants. sent, unless it is nil, hears of every piece of content, in bytes.
// An error of look goes to the other end too.
func Send(ctx context.Context, conn io.ReadWriter, look func() (*Listing, error), sent func(int)) error {
	out := bufio.NewWriterSize(conn, 256<<10)
	l, err := look()
	if err != nil {
		_, werr := out.Write(appendString([]byte{markError}, err.Error()))
		return errors.Join(err, werr, out.Flush())
	}
	var buf []byte
	for k := range l.Entries {
		buf = AppendEntry(append(buf[:0], markEntry), &l.Entries[k])
		if _, err := out.Write(buf); err != nil {
			return err
		}
	}
	if err := errors.Join(out.WriteByte(markEnd), out.Flush()); err != nil {
		return err
	}
	wanted, err := readWanted(bufio.NewReaderSize(conn, 32<<10), len(l.Entries))
	if err != nil {
		return fmt.Errorf("send the build context: %w", err)
	}
	s := &sending{out: out, buf: make([]byte, 256<<10), sent: sent}
	for _, k := range wanted {
		if err := ctx.Err(); err != nil {
			return fault.Wrap(fault.Canceled, err)
		}
		if err := s.file(filepath.Join(l.Dir, l.Entries[k].Path), &l.Entries[k]); err != nil {
			_, werr := out.Write(appendString([]byte{markError}, err.Error()))
			return errors.Join(err, werr, out.Flush())
		}
	}
	return out.Flush()
}

type sending struct {
	out  *bufio.Writer
	buf  []byte
	sent func(int)
}

// file sends one file, again when it changes meanwhile.
func (s *sending) file(full string, e *Entry) (err error) {
	f, err := kernel.OpenIn(nil, full, kernel.ONoFollow|kernel.ONonblock|kernel.ONoCTTY, 0, 0)
	if errors.Is(err, os.ErrNotExist) {
		return s.out.WriteByte(markGone)
	}
	if errors.Is(err, syscall.ELOOP) {
		return fault.New(fault.Invalid, "send the build context: %s became a symbolic link meanwhile: build again", full)
	}
	if err != nil {
		return fmt.Errorf("send the build context: %w: name it in .dockerignore when it is not needed", err)
	}
	defer fault.Close(f, &err)
	before, err := kernel.Stat(f)
	if err != nil {
		return err
	}
	if before.Mode&kernel.TypeMask != kernel.TypeRegular {
		return fault.New(fault.Invalid, "send the build context: %s is no file any more: build again", full)
	}
	for range tries {
		if err := s.content(f); err != nil {
			return fmt.Errorf("send the build context: %w", err)
		}
		after, err := kernel.Stat(f)
		if err != nil {
			return err
		}
		if after.Size == before.Size && after.Mtim == before.Mtim && after.Ctim == before.Ctim {
			now := entryOf(e.Path, after.Mode, after.Size, after.Mtim.Nano(), after.Ctim.Nano(), after.Ino, time.Now())
			if now.Xattrs, err = attributes(full); err != nil {
				return fmt.Errorf("send the build context: %w", err)
			}
			_, err = s.out.Write(AppendEntry([]byte{markEnd}, &now))
			return err
		}
		before = after
		if err := s.out.WriteByte(markAgain); err != nil {
			return err
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
	}
	return fault.New(fault.Invalid, "send the build context: %s changes all the time: name it in .dockerignore, or build when it is finished", full)
}

func (s *sending) content(f *os.File) error {
	if err := s.out.WriteByte(markData); err != nil {
		return err
	}
	p := NewPieces(s.out)
	for {
		n, err := f.Read(s.buf)
		if _, err := p.Write(s.buf[:n]); err != nil {
			return err
		}
		if s.sent != nil && n > 0 {
			s.sent(n)
		}
		if errors.Is(err, io.EOF) {
			return p.Close()
		}
		if err != nil {
			return err
		}
	}
}
