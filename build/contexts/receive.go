package contexts

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"berth/build/transfer"
	"berth/fault"
	"berth/kernel"
)

// Receive brings the tree to what the other end of conn has, as far as patterns need it (as COPY names it; nil: all), and gives how many bytes of
// content came for it. What is not needed and stays is as the other end has it. told, unless it is nil, hears of each file, with the bytes so far. After an error the tree can be closed, and what came stays.
func (t *Tree) Receive(conn io.ReadWriter, patterns []string, told func(bytes int64)) (bytes int64, err error) {
	in := bufio.NewReaderSize(conn, 256<<10)
	list, err := transfer.ReadList(in)
	if err != nil {
		return 0, fmt.Errorf("receive the build context: %w", err)
	}
	r := &receiving{Tree: t, in: in, list: list, touched: map[string]bool{}, told: told}
	wanted := r.compare(needed(list, patterns))
	if t.key != "" && r.changes {
		if err := t.index.write(t.path("index")); err != nil { // what may be half done from here on is known to be unsure
			return 0, fmt.Errorf("receive the build context: %w", err)
		}
	}
	if _, err := conn.Write(transfer.AppendWanted(nil, wanted)); err != nil {
		return 0, fmt.Errorf("receive the build context: %w", err)
	}
	if r.changes {
		err = r.work()
	}
	if t.key != "" {
		if r.changes {
			err = errors.Join(err, t.index.write(t.path("index")))
		} else {
			err = used(t.path("index"))
			if errors.Is(err, os.ErrNotExist) { // a new tree of which nothing is needed yet
				err = t.index.write(t.path("index"))
			}
		}
	}
	if err != nil {
		err = fmt.Errorf("receive the build context: %w", err)
	}
	return r.bytes, err
}

// receiving is a Receive under way.
type receiving struct {
	*Tree
	in      *bufio.Reader
	list    []transfer.Entry
	todo    []job // in the order of the index
	changes bool
	touched map[string]bool // directories whose times must be set
	bytes   int64
	told    func(int64)

	parent     *os.File // the directory that was used last
	parentPath string
}

// job is what is to be done at a path: at entry at of the index.
type job struct {
	at     int
	remove bool // what is there
	make   bool
	meta   bool              // only a directory's mode, times and attributes
	drop   map[string]string // attributes that were there
}

// compare makes the index that the tree will have, and says what is to be done for it and which files of the list are wanted.
func (r *receiving) compare(need []bool) (wanted []int) {
	old := r.index.all
	next := make([]kept, 0, max(len(old), len(r.list)))
	ready := make([]int, len(r.list)) // 1 + where in next an entry is that stays as it is
	add := func(k kept, j job) {
		j.at = len(next)
		next = append(next, k)
		r.todo = append(r.todo, j)
	}
	for k := range r.list {
		e := &r.list[k]
		for len(old) > 0 && transfer.Compare(old[0].Path, e.Path) < 0 {
			add(kept{Entry: transfer.Entry{Path: old[0].Path}, state: unsure}, job{remove: true})
			old = old[1:]
		}
		var was *kept
		if len(old) > 0 && old[0].Path == e.Path {
			was, old = &old[0], old[1:]
		}
		link := ""
		if e.Same > 0 {
			link = r.list[e.Same-1].Path
		}
		switch {
		case was != nil && was.same(e, link) && (e.Same == 0 || ready[e.Same-1] > 0):
			next = append(next, *was)
			ready[k] = len(next)
		case was != nil && was.state == have && was.Is(kernel.TypeDir) && e.Is(kernel.TypeDir):
			one := kept{Entry: *e}
			one.MTime = never
			add(one, job{meta: true, drop: was.Xattrs})
		case need[k]:
			one := kept{Entry: *e, state: unsure, link: link}
			one.Same = 0 // an index of the list, where link is a path
			add(one, job{remove: was != nil, make: true})
			if e.Is(kernel.TypeRegular) && link == "" {
				wanted = append(wanted, k)
			}
		case was != nil:
			add(kept{Entry: transfer.Entry{Path: e.Path}, state: unsure}, job{remove: true})
		}
	}
	for _, o := range old {
		add(kept{Entry: transfer.Entry{Path: o.Path}, state: unsure}, job{remove: true})
	}
	r.index.all, r.changes = next, len(r.todo) > 0
	return wanted
}

// same tells whether what is kept is what e says.
func (k *kept) same(e *transfer.Entry, link string) bool {
	if k.state != have || k.Mode != e.Mode || k.MTime != e.MTime || k.link != link {
		return false
	}
	if e.Is(kernel.TypeRegular) { // whatever else changes of it, CTime does
		return k.Size == e.Size && k.CTime == e.CTime && e.CTime != 0 && k.Inode == e.Inode
	}
	return k.Target == e.Target && k.Device == e.Device && maps.Equal(k.Xattrs, e.Xattrs)
}

// work does what compare found.
func (r *receiving) work() (err error) {
	if err := kernel.Room(r.top); err != nil {
		return err
	}
	defer func() {
		if r.parent != nil {
			err = errors.Join(err, r.parent.Close())
		}
	}()
	for _, j := range r.todo {
		k := &r.index.all[j.at]
		if j.meta {
			r.touched[k.Path] = true
			continue
		}
		r.touched[above(k.Path)] = true
		if j.remove {
			if err := r.remove(k.Path); err != nil {
				return fmt.Errorf("%q: %w", k.Path, err)
			}
		}
		if !j.make {
			k.state = gone
			continue
		}
		err := r.place(k)
		if errors.Is(err, os.ErrExist) { // something that the index does not know of
			if err = r.remove(k.Path); err == nil {
				err = r.place(k)
			}
		}
		if err != nil {
			return fmt.Errorf("%q: %w", k.Path, err)
		}
		if r.told != nil {
			r.told(r.bytes)
		}
	}
	return r.directories()
}

// directories gives them their modes and times, now that nothing is made in them any more.
func (r *receiving) directories() error {
	entries := map[string]*transfer.Entry{}
	for k := range r.list {
		if e := &r.list[k]; e.Is(kernel.TypeDir) && r.touched[e.Path] {
			entries[e.Path] = e
		}
	}
	drop := map[string]map[string]string{}
	for _, j := range r.todo {
		if j.meta {
			drop[r.index.all[j.at].Path] = j.drop
		}
	}
	for k := range r.index.all {
		one := &r.index.all[k]
		e := entries[one.Path]
		if e == nil || one.state != have {
			continue
		}
		dir, err := r.at(one.Path)
		if err != nil {
			return err
		}
		for name := range drop[one.Path] {
			if _, stays := e.Xattrs[name]; !stays {
				if err := kernel.RemoveXattrIn(dir, path.Base(one.Path), name); err != nil {
					return err
				}
			}
		}
		if err := r.finish(dir, e); err != nil {
			return err
		}
		one.Entry = *e
		one.Same = 0
	}
	return nil
}

// at opens the directory that a path lies in; it stays r's.
func (r *receiving) at(p string) (*os.File, error) {
	dir := above(p)
	if r.parent != nil && r.parentPath == dir {
		return r.parent, nil
	}
	name := dir
	if name == "" {
		name = "."
	}
	f, err := kernel.OpenIn(r.top, name, kernel.ODirectory, 0, kernel.Beneath|kernel.NoSymlinks)
	if err != nil {
		return nil, err
	}
	if r.parent != nil {
		if err := r.parent.Close(); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	r.parent, r.parentPath = f, dir
	return f, nil
}

func above(p string) string {
	if dir := path.Dir(p); dir != "." {
		return dir
	}
	return ""
}

// remove removes what may be at a path.
func (r *receiving) remove(p string) error {
	if r.parentPath == p || strings.HasPrefix(r.parentPath, p+"/") { // it may be the directory that is open
		if err := r.parent.Close(); err != nil {
			return err
		}
		r.parent, r.parentPath = nil, ""
	}
	dir, err := r.at(p)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) {
		return nil
	}
	if err != nil {
		return err
	}
	return kernel.RemoveIn(dir, path.Base(p))
}

// place makes what an entry says, where nothing is.
func (r *receiving) place(k *kept) (err error) {
	dir, err := r.at(k.Path)
	if err != nil {
		return err
	}
	name := path.Base(k.Path)
	switch {
	case k.link != "":
		return r.link(k, dir, name)
	case k.Is(kernel.TypeRegular):
		return r.file(k, dir, name)
	case k.Is(kernel.TypeDir):
		r.touched[k.Path] = true
		if err := kernel.MkdirIn(dir, name, 0o700); err != nil {
			return err
		}
		k.state, k.MTime = have, never // until directories has done its part
		return nil
	case k.Is(kernel.TypeSymlink):
		err = kernel.SymlinkIn(k.Target, dir, name)
	case k.Is(kernel.TypeFifo), k.Is(kernel.TypeChar), k.Is(kernel.TypeBlock):
		err = kernel.MknodIn(dir, name, k.Mode, k.Device)
	default:
		return fault.New(fault.Invalid, "it is of a kind that no build context has (mode %o)", k.Mode)
	}
	if err == nil {
		err = r.finish(dir, &k.Entry)
	}
	if err == nil {
		k.state = have
	}
	return err
}

// link gives a file a further name.
func (r *receiving) link(k *kept, dir *os.File, name string) error {
	first, ok := r.index.find(k.link)
	if !ok || first.state == gone { // it went while it was sent
		k.state = gone
		return nil
	}
	if first.state != have {
		return fault.New(fault.Invalid, "its other name %q is missing", k.link)
	}
	from, err := kernel.OpenIn(r.top, "./"+above(k.link), kernel.ODirectory, 0, kernel.Beneath|kernel.NoSymlinks)
	if err != nil {
		return err
	}
	err = kernel.LinkIn(from, path.Base(k.link), dir, name)
	if err = errors.Join(err, from.Close()); err != nil {
		return err
	}
	k.Mode, k.Size, k.MTime, k.CTime, k.Inode, k.Xattrs, k.digest, k.state = first.Mode, first.Size, first.MTime, first.CTime, first.Inode, first.Xattrs, first.digest, have
	return nil
}

// file takes a file's content from the other end.
func (r *receiving) file(k *kept, dir *os.File, name string) (err error) {
	f, err := kernel.OpenIn(dir, name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600, 0)
	if err != nil {
		return err
	}
	defer fault.Close(f, &err)
	s := &sink{f: f, h: sha256.New(), room: r.top}
	absent, err := transfer.ReadFile(r.in, &k.Entry, s.begin)
	r.bytes += s.all
	if err != nil {
		return err
	}
	if absent {
		k.state = gone
		return kernel.UnlinkIn(dir, name)
	}
	if err := attributes(k.Xattrs, func(attr, value string) error { return kernel.SetXattr(f, attr, value) }); err != nil {
		return err
	}
	if err := kernel.Chmod(f, k.Mode&0o7777); err != nil {
		return err
	}
	at := time.Unix(0, k.MTime)
	if err := kernel.Times(f, at, at); err != nil {
		return err
	}
	s.h.Sum(k.digest[:0])
	k.state = have
	return nil
}

// sink writes a file and hashes it.
type sink struct {
	f    *os.File
	h    hash.Hash
	room *os.File
	all  int64
	next int64 // when to look for room again
}

// begin takes back what was written.
func (s *sink) begin() (io.Writer, error) {
	s.h.Reset()
	_, err := s.f.Seek(0, io.SeekStart)
	return s, errors.Join(err, s.f.Truncate(0))
}

// roomEvery is after how many bytes the disk is looked at.
const roomEvery = 64 << 20

// Write implements io.Writer.
func (s *sink) Write(p []byte) (int, error) {
	if s.all += int64(len(p)); s.all > s.next {
		if err := kernel.Room(s.room); err != nil {
			return 0, err
		}
		s.next = s.all + roomEvery
	}
	s.h.Write(p)
	return s.f.Write(p)
}

// finish gives what is called as e mode, times and attributes.
func (r *receiving) finish(dir *os.File, e *transfer.Entry) error {
	name := path.Base(e.Path)
	if err := attributes(e.Xattrs, func(attr, value string) error { return kernel.SetXattrIn(dir, name, attr, value) }); err != nil {
		return err
	}
	if !e.Is(kernel.TypeSymlink) {
		if err := kernel.ChmodIn(dir, name, e.Mode&0o7777); err != nil {
			return err
		}
	}
	at := time.Unix(0, e.MTime)
	return kernel.TimesIn(dir, name, at, at)
}

// attributes sets extended attributes. A file system that can't hold one loses it, as with archives, except a program's capabilities.
func attributes(all map[string]string, set func(attr, value string) error) error {
	for attr, value := range all {
		err := set(attr, value)
		if err != nil && (attr == "security.capability" || !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, os.ErrPermission)) {
			return err
		}
	}
	return nil
}
