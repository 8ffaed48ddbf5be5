// Package transfer brings what a build needs of a directory to where it is built: it lists the directory without reading the files, and sends
// those that the other end wants.
//
// It keeps nothing and decides nothing: what is wanted, the other end says, which has what was sent before. Invariant: what is sent as a file's
// content is what the file had at one moment, or the other end is told that it is not.
package transfer

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"berth/fault"
	"berth/kernel"
)

// Entry is one thing in a directory.
type Entry struct {
	Path   string // below the top, without a slash at its beginning
	Mode   uint32 // kind and permissions (stat(2), st_mode)
	Size   int64  // of a regular file, in bytes
	MTime  int64  // ns since 1970
	CTime  int64  // likewise; 0: the file changed so lately that it may have changed once more without a trace
	Inode  uint64
	Device uint64            // that it is, when it is one
	Target string            // of a symbolic link
	Same   int               // 1 + the index of an entry before this one that is the same file; 0: there is none
	Xattrs map[string]string // a regular file's come with its content
}

// Is tells the kind, one of kernel.TypeRegular, TypeDir …
func (e *Entry) Is(kind uint32) bool { return e.Mode&kernel.TypeMask == kind }

// Limits on what is accepted of a foreign list.
const (
	maxEntries = 1 << 23
	maxPath    = 4096
	maxXattrs  = 1 << 20 // bytes of all of one entry
	maxMessage = 64 << 10
)

// The marks before what is written.
const (
	markEnd   = 0
	markEntry = 1
	markError = 2
	markGone  = 3
	markData  = 4
	markAgain = 5
)

// Compare orders paths as a walk meets them: a directory, all below it, what comes after it.
func Compare(a, b string) int {
	n := min(len(a), len(b))
	for k := range n {
		if x, y := a[k], b[k]; x != y {
			if x == '/' {
				x = 0
			}
			if y == '/' {
				y = 0
			}
			return int(x) - int(y)
		}
	}
	return len(a) - len(b)
}

// AppendEntry adds e as it is written in lists.
func AppendEntry(b []byte, e *Entry) []byte {
	b = appendString(b, e.Path)
	b = binary.AppendUvarint(b, uint64(e.Mode))
	b = binary.AppendUvarint(b, uint64(e.Size))
	b = binary.AppendVarint(b, e.MTime)
	b = binary.AppendVarint(b, e.CTime)
	b = binary.AppendUvarint(b, e.Inode)
	b = binary.AppendUvarint(b, e.Device)
	b = appendString(b, e.Target)
	b = binary.AppendUvarint(b, uint64(e.Same))
	b = binary.AppendUvarint(b, uint64(len(e.Xattrs)))
	for _, name := range slices.Sorted(maps.Keys(e.Xattrs)) {
		b = appendString(appendString(b, name), e.Xattrs[name])
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// ReadEntry reads what AppendEntry wrote. What is no path below a directory is fault.Invalid.
func ReadEntry(r *bufio.Reader) (e Entry, err error) {
	f := fields{r: r}
	e.Path = f.text(maxPath)
	e.Mode = uint32(f.number())
	e.Size = int64(f.number())
	e.MTime, e.CTime = f.signed(), f.signed()
	e.Inode, e.Device = f.number(), f.number()
	e.Target = f.text(maxPath)
	e.Same = int(f.number())
	left := maxXattrs
	for n := f.number(); n > 0 && f.err == nil; n-- {
		name := f.text(left)
		value := f.text(left)
		if left -= len(name) + len(value) + 1; left < 0 {
			f.err = fault.New(fault.Invalid, "%q has too many extended attributes", e.Path)
		}
		if e.Xattrs == nil {
			e.Xattrs = map[string]string{}
		}
		if carried(name) {
			e.Xattrs[name] = value
		}
	}
	if f.err == nil && (!isBelow(e.Path) || e.Size < 0 || e.Same < 0) {
		f.err = fault.New(fault.Invalid, "a list of files has the path %.100q", e.Path)
	}
	return e, f.err
}

// carried tells the extended attributes that go with a file: those of users, capabilities and access lists, but none by which a union file
// system hides or redirects what lies below it.
func carried(name string) bool {
	if strings.HasPrefix(name, "user.overlay.") || strings.HasPrefix(name, "user.fuseoverlayfs.") {
		return false
	}
	return strings.HasPrefix(name, "user.") || name == "security.capability" || strings.HasPrefix(name, "system.posix_acl_")
}

// isBelow tells that p is a clean path that stays below its top.
func isBelow(p string) bool {
	return p != "" && p != "." && p != ".." && p[0] != '/' && !strings.HasPrefix(p, "../") && path.Clean(p) == p && strings.IndexByte(p, 0) < 0
}

// fields reads numbers and texts, and remembers the first error.
type fields struct {
	r   *bufio.Reader
	err error
}

func (f *fields) number() (n uint64) {
	if f.err == nil {
		n, f.err = binary.ReadUvarint(f.r)
		f.cut()
	}
	return n
}

func (f *fields) signed() (n int64) {
	if f.err == nil {
		n, f.err = binary.ReadVarint(f.r)
		f.cut()
	}
	return n
}

func (f *fields) text(limit int) string {
	n := f.number()
	if f.err == nil && n > uint64(limit) {
		f.err = fault.New(fault.Invalid, "a text of %d bytes, where %d are allowed", n, limit)
	}
	if f.err != nil || n == 0 {
		return ""
	}
	b := make([]byte, n)
	_, f.err = io.ReadFull(f.r, b)
	f.cut()
	return string(b)
}

func (f *fields) mark() (b byte) {
	if f.err == nil {
		b, f.err = f.r.ReadByte()
		f.cut()
	}
	return b
}

// cut turns an end where none may be into what it is.
func (f *fields) cut() {
	if errors.Is(f.err, io.EOF) {
		f.err = io.ErrUnexpectedEOF
	}
}

// ReadList reads a list from the other end.
func ReadList(r *bufio.Reader) (list []Entry, err error) {
	f := fields{r: r}
	var above []string // the directories that the entry before is in, or is itself
	for {
		switch mark := f.mark(); {
		case f.err != nil:
			return nil, f.err
		case mark == markEnd:
			return list, nil
		case mark == markError:
			return nil, f.said()
		case mark != markEntry:
			return nil, fault.New(fault.Invalid, "a list of files has the mark %d", mark)
		}
		e, err := ReadEntry(r)
		if err != nil {
			return nil, err
		}
		n := len(list)
		if n == maxEntries {
			return nil, fault.New(fault.Invalid, "a build context has more than %d files: name what is not needed in .dockerignore", maxEntries)
		}
		if n > 0 && Compare(list[n-1].Path, e.Path) >= 0 || e.Same > n || e.Same > 0 && (!e.Is(kernel.TypeRegular) || list[e.Same-1].Mode != e.Mode || list[e.Same-1].Same != 0) {
			return nil, fault.New(fault.Invalid, "a list of files is out of order at %.100q", e.Path)
		}
		dir := path.Dir(e.Path)
		for len(above) > 0 && above[len(above)-1] != dir {
			above = above[:len(above)-1]
		}
		if dir != "." && len(above) == 0 {
			return nil, fault.New(fault.Invalid, "a list of files has %.100q without its directory", e.Path)
		}
		if e.Is(kernel.TypeDir) {
			above = append(above, e.Path)
		}
		list = append(list, e)
	}
}

// said reads what went wrong at the other end.
func (f *fields) said() error {
	text := f.text(maxMessage)
	if f.err != nil {
		return f.err
	}
	return fault.New(fault.Invalid, "%s", text)
}

// AppendWanted adds the indices, in order, of what is wanted of a list.
func AppendWanted(b []byte, wanted []int) []byte {
	b = binary.AppendUvarint(b, uint64(len(wanted)))
	last := 0
	for _, k := range wanted {
		b = binary.AppendUvarint(b, uint64(k-last))
		last = k
	}
	return b
}

// readWanted reads what AppendWanted wrote about a list of n.
func readWanted(r *bufio.Reader, n int) ([]int, error) {
	f := fields{r: r}
	count := f.number()
	if f.err == nil && count > uint64(n) {
		return nil, fault.New(fault.Invalid, "%d files are wanted of %d", count, n)
	}
	var all []int
	at := uint64(0)
	for ; count > 0 && f.err == nil; count-- {
		at += f.number()
		if f.err == nil && at >= uint64(n) {
			return nil, fault.New(fault.Invalid, "file %d is wanted of %d", at, n)
		}
		all = append(all, int(at))
	}
	return all, f.err
}

// ReadFile reads the next wanted file into w, which begin gives: once more when the file changed while it was sent. gone: it does not exist any more.
// The entry has what is known of the file now: its mode, size, times and attributes.
func ReadFile(r *bufio.Reader, e *Entry, begin func() (io.Writer, error)) (gone bool, err error) {
	f := fields{r: r}
	for {
		switch mark := f.mark(); {
		case f.err != nil:
			return false, f.err
		case mark == markGone:
			return true, nil
		case mark == markError:
			return false, f.said()
		case mark != markData:
			return false, fault.New(fault.Invalid, "a file's content has the mark %d", mark)
		}
		w, err := begin()
		if err != nil {
			return false, err
		}
		size, err := io.Copy(w, ReadPieces(r))
		if err != nil {
			return false, err
		}
		switch mark := f.mark(); {
		case f.err != nil:
			return false, f.err
		case mark == markAgain:
			continue
		case mark == markError:
			return false, f.said()
		case mark != markEnd:
			return false, fault.New(fault.Invalid, "a file's content ends with the mark %d", mark)
		}
		now, err := ReadEntry(r)
		if err != nil {
			return false, err
		}
		if now.Size != size || !now.Is(kernel.TypeRegular) {
			return false, fault.New(fault.Invalid, "%q came with %d bytes of %d", e.Path, size, now.Size)
		}
		e.Mode, e.Size, e.MTime, e.CTime, e.Inode, e.Xattrs = now.Mode, now.Size, now.MTime, now.CTime, now.Inode, now.Xattrs
		return false, nil
	}
}
