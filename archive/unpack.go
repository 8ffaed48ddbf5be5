package archive

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"berth/fault"
	"berth/kernel"
)

// UnpackOptions says how far a foreign archive is trusted.
type UnpackOptions struct {
	// Whiteouts translates .wh. members into overlay's form: a 0/0 character
	// device, and trusted.overlay.opaque on directories. Unset, they are ordinary files.
	Whiteouts bool
	// MaxBytes bounds the tar stream and, separately, the sum of file sizes; 0 is no bound but the disk's.
	MaxBytes int64
	// MaxMembers bounds the number of members; 0 is no bound.
	MaxMembers int
	// Budget, when not nil, is charged with what the members take; and the file system is not filled to its end (kernel.Room).
	Budget *Budget
	// Live says that the tree has a life of its own: a directory that is there keeps its owner and mode unless a member names it, the top
	// keeps them always; what is mounted is overwritten or left alone, never replaced; nothing is written where the kernel makes up what there is.
	Live bool
	// Into is the directory below root that members go into; links, in Into and in the members' ways, see root as "/". "" is root itself,
	// which no link leads out of.
	Into string
	// KeepKinds refuses members that would replace a directory by something else, or the reverse.
	KeepKinds bool
	// Owner, when not nil, gets every member instead of whom the archive names.
	Owner *Owner
	// IDs are those of a container whose tree it is: the archive's owners are as the container sees them.
	IDs IDMap
	// Mine makes members belong to the calling process: the archive's owners, setuid bits and what only root may set are left out, and
	// devices are for the owner alone.
	Mine bool
	// Ahead says that the stream is filled ahead by a goroutine of its own already, and small reads of it are cheap.
	Ahead bool
	// Holes leaves blocks of zeros out of files, so that they become holes.
	Holes bool
}

// Owner is a user and a group, as numbers.
type Owner struct{ UID, GID uint32 }

// Unpacked tells what Unpack made.
type Unpacked struct {
	Size    int64    // sum of the regular files' sizes in bytes, holes counted, hard links once
	Implied []string // directories that no member named, sorted, parents first, "." for the root itself
}

// Unpack reads a plain tar stream to its end (bytes after the archive's end included, so that a
// digest over the stream is complete) and makes its members beneath root, an open directory that
// stays the caller's. Of two members with one name the later wins; a symbolic link as a parent is followed as
// long as it stays beneath root. A member that would leave root is fault.Invalid, a damaged stream
// fault.Corrupt; a full disk keeps ENOSPC in the chain. After an error the tree is partial, and the caller discards it unless it is Live.
func Unpack(ctx context.Context, r io.Reader, root *os.File, o UnpackOptions) (done Unpacked, err error) {
	if o.IDs.Empty() {
		return unpack(ctx, r, root, o)
	}
	// A tree with id-mapped layers takes no files of owners that it has no number for, not even for a moment.
	uid, gid, err := o.IDs.ToHost(0, 0)
	if err != nil {
		return Unpacked{}, err
	}
	err = kernel.Thread(func() error {
		if err := kernel.ActAs(uid, gid); err != nil {
			return err
		}
		done, err = unpack(ctx, r, root, o)
		return err
	})
	return done, err
}

func unpack(ctx context.Context, r io.Reader, root *os.File, o UnpackOptions) (Unpacked, error) {
	in := &input{ctx: ctx, r: r, max: o.MaxBytes}
	var stream io.Reader = in
	if !o.Ahead {
		read := newAhead(r)
		defer read.close()
		in.r = read
		stream = bufio.NewReaderSize(in, 64<<10)
	}
	u := &unpacker{ctx: ctx, o: o, tree: newTree(root, o), in: in, tr: tar.NewReader(stream), dirs: map[string]dirMeta{}, meter: meter{of: o.Budget, root: root}}
	defer u.tree.close()
	if err := u.all(); err != nil {
		if o.Live { // nobody discards it: what was made so far is to be of use
			err = errors.Join(err, u.finishDirs())
		}
		return Unpacked{}, err
	}
	if _, err := io.Copy(io.Discard, stream); err != nil {
		return Unpacked{}, in.blame(err)
	}
	if err := u.finishDirs(); err != nil {
		return Unpacked{}, err
	}
	return Unpacked{u.size, u.implied()}, nil
}

// unpacker is one run of Unpack.
type unpacker struct {
	ctx     context.Context
	o       UnpackOptions
	tree    *tree
	in      *input
	tr      *tar.Reader
	dirs    map[string]dirMeta // by member path; applied at the end
	size    int64
	members int
	meter   meter
}

// dirMeta is what a directory gets when nothing is made in it any more: a read-only
// or setgid mode would disturb its content on the way, and its time would not stay.
type dirMeta struct {
	ino     uint64 // of the directory that was meant; another one at the path now is left alone
	mode    uint32
	mtime   time.Time
	implied bool
}

// input is the tar stream with its bound; it remembers its own errors.
type input struct {
	ctx  context.Context
	r    io.Reader
	read int64
	max  int64
	err  error
}

func (in *input) Read(p []byte) (int, error) {
	if err := in.ctx.Err(); err != nil {
		in.err = fault.New(fault.Canceled, "unpack: %w", err)
		return 0, in.err
	}
	n, err := in.r.Read(p)
	in.read += int64(n)
	if in.max > 0 && in.read > in.max {
		err = fault.New(fault.Invalid, "the archive is longer than the %d bytes allowed", in.max)
	}
	if err != nil && err != io.EOF {
		in.err = err
	}
	return n, err
}

// blame turns a parser's error into the stream's own, or into damage.
func (in *input) blame(err error) error {
	switch {
	case in.err != nil:
		return in.err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fault.New(fault.Corrupt, "the tar archive is truncated: %w", err)
	}
	return fault.New(fault.Corrupt, "the tar archive is damaged: %w", err)
}

func (u *unpacker) all() error {
	for {
		hdr, err := u.tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return u.in.blame(err)
		}
		if u.members++; u.o.MaxMembers > 0 && u.members > u.o.MaxMembers {
			return fault.New(fault.Invalid, "the archive has more than the %d members allowed", u.o.MaxMembers)
		}
		if err := u.meter.take(attributes(hdr), 1); err != nil {
			return err
		}
		u.tree.reap()
		if err := u.member(hdr); err != nil {
			return err
		}
	}
}

// member makes one member.
func (u *unpacker) member(hdr *tar.Header) error {
	switch hdr.Typeflag {
	case tar.TypeXGlobalHeader, 'V': // comments, and GNU's volume label
		return nil
	}
	p, err := memberPath(hdr.Name)
	if err != nil {
		return err
	}
	if err := u.owners(hdr); err != nil {
		return err
	}
	if p == "." && u.o.Live && hdr.Typeflag == tar.TypeDir {
		return nil
	}
	dir, name := split(p)
	if u.o.Whiteouts {
		if skip, err := u.marks(hdr, p, dir, name); skip || err != nil {
			return u.named(hdr, err)
		}
	}
	if hdr.Typeflag == tar.TypeDir {
		return u.named(hdr, u.dir(hdr, p, dir, name))
	}
	if p == "." {
		return fault.New(fault.Invalid, "the archive's member %q would replace the root directory", hdr.Name)
	}
	parent, err := u.parent(dir)
	if err != nil {
		return u.named(hdr, err)
	}
	switch hdr.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		err = u.file(hdr, parent, name)
	case tar.TypeLink:
		err = u.link(hdr, p, parent, name)
	case tar.TypeSymlink:
		err = u.replace(parent, name, func() error { return kernel.SymlinkIn(hdr.Linkname, parent, name) })
		err = u.finish(hdr, parent, name, err)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		err = u.replace(parent, name, func() error { return kernel.MknodIn(parent, name, nodeMode(hdr), device(hdr)) })
		err = u.finish(hdr, parent, name, err)
	default:
		err = fault.New(fault.Invalid, "unknown kind %q", hdr.Typeflag)
	}
	return u.named(hdr, err)
}

// named puts the member in front of what went wrong with it, and gives a kind
// to what the archive, not the system, is to blame for.
func (u *unpacker) named(hdr *tar.Header, err error) error {
	if err == nil {
		return nil
	}
	if u.in.err != nil {
		return u.in.err
	}
	msg := fmt.Errorf("unpack %s: %w", shown(hdr.Name), err)
	if errors.Is(err, syscall.EXDEV) || errors.Is(err, syscall.ELOOP) { // openat2(2), RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS
		msg = fmt.Errorf("unpack %s: a symbolic link lies in its path, perhaps one that leaves the directory: %w", shown(hdr.Name), err)
	}
	if fault.Of(err) != "" {
		return msg
	}
	for _, e := range []error{syscall.EXDEV, syscall.ELOOP, syscall.ENOTDIR, syscall.ENAMETOOLONG, syscall.EISDIR, syscall.ENOENT, syscall.EINVAL} {
		if errors.Is(err, e) {
			return fault.Wrap(fault.Invalid, msg)
		}
	}
	return msg
}

// shown quotes a name for a message, which is to stay readable.
func shown(name string) string { return strconv.Quote(shorten(name)) }

func shorten(name string) string {
	if len(name) <= 200 {
		return name
	}
	return name[:90] + "…" + name[len(name)-90:]
}

// owners checks the member's owner and replaces it by the one that it gets.
func (u *unpacker) owners(hdr *tar.Header) error {
	const none = 1<<32 - 1 // chown(2) takes it as "leave"
	if hdr.Uid < 0 || hdr.Gid < 0 || int64(hdr.Uid) >= none || int64(hdr.Gid) >= none {
		return fault.New(fault.Invalid, "the archive's member %s has the impossible owner %d:%d", shown(hdr.Name), hdr.Uid, hdr.Gid)
	}
	if u.o.Owner != nil {
		hdr.Uid, hdr.Gid = int(u.o.Owner.UID), int(u.o.Owner.GID)
	}
	uid, gid, err := u.o.IDs.ToHost(uint32(hdr.Uid), uint32(hdr.Gid))
	if err != nil {
		return fmt.Errorf("unpack %q: %w", hdr.Name, err)
	}
	hdr.Uid, hdr.Gid = int(uid), int(gid)
	return nil
}

func nodeMode(hdr *tar.Header) uint32 {
	kind := map[byte]uint32{tar.TypeChar: kernel.TypeChar, tar.TypeBlock: kernel.TypeBlock, tar.TypeFifo: kernel.TypeFifo}[hdr.Typeflag]
	return kind | 0o600
}

func device(hdr *tar.Header) uint64 {
	if hdr.Typeflag == tar.TypeFifo {
		return 0
	}
	return kernel.Dev(uint32(hdr.Devmajor), uint32(hdr.Devminor))
}

// replace calls mk and, when the name is taken, removes what is there and calls it again.
func (u *unpacker) replace(parent *os.File, name string, mk func() error) error {
	err := mk()
	if !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := u.remove(parent, name); err != nil {
		return err
	}
	// In a tree with a life of its own somebody may be as fast.
	if err = mk(); u.o.Live && errors.Is(err, os.ErrExist) {
		return fault.New(fault.Conflict, "something else is made under that name again and again")
	}
	return err
}

// remove takes away what a later member replaces.
func (u *unpacker) remove(parent *os.File, name string) error {
	st, err := kernel.StatIn(parent, name)
	if err != nil {
		return err
	}
	switch kind := st.Mode & kernel.TypeMask; kind {
	case kernel.TypeDir, kernel.TypeSymlink:
		if kind == kernel.TypeDir && u.o.KeepKinds {
			return fault.New(fault.Invalid, "cannot overwrite directory %q with non-directory %q", name, u.into())
		}
		u.tree.forget() // open directories may have been reached through it
	}
	if u.o.Live {
		return removeUnmounted(parent, name)
	}
	return kernel.RemoveIn(parent, name)
}

// removeUnmounted removes name with all below it and stops with EBUSY before anything that is mounted. The kernel itself refuses only
// what is mounted in the caller's namespace, and would take a container's mounts away.
func removeUnmounted(dir *os.File, name string) error {
	if mounted, err := kernel.IsMount(dir, name); err != nil || mounted {
		if mounted {
			err = &os.PathError{Op: "remove", Path: name, Err: syscall.EBUSY}
		}
		return err
	}
	sub, err := kernel.OpenIn(dir, name, kernel.ODirectory|kernel.ONoFollow, 0, 0)
	if errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.ENXIO) {
		return kernel.UnlinkIn(dir, name)
	}
	if err != nil {
		return err
	}
	defer sub.Close()
	names, err := sub.Readdirnames(-1)
	for _, n := range names {
		err = errors.Join(err, removeUnmounted(sub, n))
	}
	if err != nil {
		return err
	}
	return kernel.RmdirIn(dir, name)
}

// finish gives owner, attributes, mode and time to what is neither file nor directory.
func (u *unpacker) finish(hdr *tar.Header, parent *os.File, name string, err error) error {
	if err != nil {
		return err
	}
	if !u.o.Mine {
		if err := kernel.ChownIn(parent, name, uint32(hdr.Uid), uint32(hdr.Gid)); err != nil {
			return err
		}
	}
	if err := u.xattrs(hdr, func(attr, value string) error { return kernel.SetXattrIn(parent, name, attr, value) }); err != nil {
		return err
	}
	if hdr.Typeflag != tar.TypeSymlink {
		if err := kernel.ChmodIn(parent, name, u.mode(hdr)); err != nil {
			return err
		}
	}
	return kernel.TimesIn(parent, name, hdr.ModTime, hdr.ModTime)
}

// mode gives the member's permissions. What becomes the caller's lends nobody the caller's rights.
func (u *unpacker) mode(hdr *tar.Header) uint32 {
	bits := uint32(hdr.Mode) & 0o7777
	switch {
	case u.o.Mine && (hdr.Typeflag == tar.TypeChar || hdr.Typeflag == tar.TypeBlock):
		return bits & 0o700
	case u.o.Mine:
		return bits & 0o1777
	}
	return bits
}

// xattrs sets the member's extended attributes. A file system that can't hold
// one loses it, as the field does, except a program's capabilities, without which it would be broken silently.
func (u *unpacker) xattrs(hdr *tar.Header, set func(attr, value string) error) error {
	for key, value := range hdr.PAXRecords {
		attr, ok := strings.CutPrefix(key, "SCHILY.xattr.")
		if !ok || !Carries(attr) {
			continue
		}
		err := set(attr, value)
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.E2BIG) || errors.Is(err, syscall.ERANGE) {
			err = fmt.Errorf("extended attribute %q of %d bytes, which is more than this file system holds, or it is full: %w", shorten(attr), len(value), err)
		}
		if err == nil || (u.o.Mine || attr != "security.capability") && (errors.Is(err, errors.ErrUnsupported) || errors.Is(err, os.ErrPermission)) {
			continue
		}
		return err
	}
	return nil
}

// attributes is what a member's extended attributes take, in bytes.
func attributes(hdr *tar.Header) (sum int64) {
	for key, value := range hdr.PAXRecords {
		if attr, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok && Carries(attr) {
			sum += int64(len(attr) + len(value))
		}
	}
	return sum
}

// into names the top for messages.
func (u *unpacker) into() string {
	if u.o.Into == "" {
		return "/"
	}
	return u.o.Into
}

// link makes a hard link to what an earlier member made.
func (u *unpacker) link(hdr *tar.Header, p string, parent *os.File, name string) error {
	target, err := memberPath(hdr.Linkname)
	if err != nil {
		return fmt.Errorf("hard link: %w", err)
	}
	if target == p {
		_, err := kernel.StatIn(parent, name)
		return err // a link to itself changes nothing
	}
	dir, old := split(target)
	from, err := u.tree.open(dir)
	if err != nil {
		return fmt.Errorf("hard link to %s: %w", shown(hdr.Linkname), err)
	}
	st, err := kernel.StatIn(from, old)
	switch {
	case errors.Is(err, os.ErrNotExist), err == nil && u.o.Whiteouts && isWhiteout(st.Mode, st.Rdev):
		return fault.New(fault.Invalid, "hard link to %s, which does not come before it in the archive", shown(hdr.Linkname))
	case err != nil:
		return fmt.Errorf("hard link to %s: %w", shown(hdr.Linkname), err)
	case st.Mode&kernel.TypeMask == kernel.TypeDir:
		return fault.New(fault.Invalid, "hard link to the directory %s", shown(hdr.Linkname))
	}
	return u.replace(parent, name, func() error { return kernel.LinkIn(from, old, parent, name) })
}

// implied lists what no member named.
func (u *unpacker) implied() []string {
	var list []string
	if _, named := u.dirs["."]; !named {
		list = append(list, ".")
	}
	for p, d := range u.dirs {
		if d.implied {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b string) int {
		switch { // the root comes before names such as "+x"
		case a == ".":
			return -1
		case b == ".":
			return 1
		}
		return strings.Compare(a, b)
	})
	return list
}
