package union

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"berth/archive"
	"berth/fault"
	"berth/kernel"
)

// How aufs, like a layer's tar, tells what is gone: by empty files (aufs(5), "Whiteout"; aufs_type.h).
const (
	goneMark   = ".wh."         // with the name behind it
	ownMark    = ".wh..wh."     // aufs' own files at the top of a writable branch
	opaqueMark = ".wh..wh..opq" // in a directory that hides what lies below
)

// dirperm1 lets a directory's topmost branch alone decide who may enter. Not every aufs has it.
const dirperm1 = "dirperm1"

func openAufs(dir string, options []string) (Driver, error) {
	by, err := aufsStack(dir)
	if err != nil {
		return nil, err
	}
	if len(options) > 0 {
		return nil, fault.New(fault.Invalid, "storage driver %s: unknown option %s: it has none", by.driver, options[0])
	}
	has, err := kernel.HasFileSystem(by.kind)
	if err != nil {
		return nil, fault.New(fault.Unsupported, "storage driver %s: %w", by.driver, err)
	}
	if !has {
		return nil, fault.New(fault.Unsupported, "storage driver aufs: this kernel has no file system aufs (it never was part of Linux): use overlay2")
	}
	return openStacking(dir, nil, by)
}

// aufsStack is the file system of that name, which a distribution has to patch into its kernel.
func aufsStack(dir string) (s stacking, err error) {
	if strings.ContainsAny(dir, ":,=\\") {
		return s, fault.New(fault.Unsupported, "storage driver aufs: the path %s has a colon, a comma, an equals sign or a backslash, by which aufs tells branches apart: choose another --data-root", dir)
	}
	return stacking{
		driver: "aufs", kind: kernel.Aufs, source: "aufs", scratch: dir + "/stage",
		// Without dio, O_DIRECT is refused. Without noplink, names of a file of a layer's would stay together when one is written to, but only until
		// the mount ends, and leave files that only a program of aufs' own removes (aufs(5), "Pseudo Link"); so it is as with overlay.
		options: []string{"dio", "noplink", dirperm1},
		// A kernel may be built for 127 branches: beside the layers these are a root's, that of a root beneath it, and an init layer's.
		most: 125, step: 100,
	}, nil
}

// refuseBelowAufs refuses file systems that can't be branches.
func refuseBelowAufs(dir string, magic int64) error {
	if magic == kernel.AufsMagic || magic == kernel.OverlayMagic || magic == kernel.BtrfsMagic {
		return fault.New(fault.Unsupported, "storage driver aufs: %s lies on a file system that aufs does not take below it (aufs, overlay, btrfs): give --data-root a directory on ext4 or xfs", dir)
	}
	return nil
}

// marks tells whether layers are in aufs' form.
func (s stacking) marks() bool { return s.kind == kernel.Aufs }

// branches is mount for aufs.
func (s stacking) branches(lower []string, upper, work string) Mount {
	m := Mount{Type: s.kind, Source: s.source}
	place := s.scratch // for a file that has no name any more when the mount is there
	if upper != "" {
		m.Options, place = append(m.Options, "br:"+upper+"=rw"), work
	}
	for _, l := range lower {
		m.Options = append(m.Options, "br:"+l+"=ro+wh")
	}
	m.Options = append(m.Options, s.options...)
	m.Options = append(m.Options, "xino="+place+"/xino")
	return m
}

// unmarked parts a directory's names into what is there and what marks take away, sorted.
func unmarked(all []string) (names, gone []string) {
	for _, n := range all {
		if hidden, is := strings.CutPrefix(n, goneMark); !is || hidden == "" { // without a name it is none
			names = append(names, n)
		} else if !strings.HasPrefix(n, ownMark) {
			gone = append(gone, hidden)
		}
	}
	slices.Sort(names)
	slices.Sort(gone)
	return names, slices.DeleteFunc(gone, func(n string) bool {
		_, here := slices.BinarySearch(names, n)
		return here
	})
}

// markedOpaque tells whether the directory called name has the mark.
func markedOpaque(dir *os.File, name string) (bool, error) {
	_, err := kernel.StatIn(dir, name+"/"+opaqueMark)
	if none(err) {
		return false, nil
	}
	return err == nil, err
}

// markTree puts aufs' marks in the place of overlay's in a layer. Times stay.
func markTree(dir *os.File) error {
	was, err := kernel.Stat(dir)
	if err != nil {
		return err
	}
	opaque, err := isOpaque(dir, ".")
	if err != nil {
		return err
	}
	if opaque {
		if err := putMark(dir, opaqueMark); err != nil {
			return err
		}
		if err := kernel.RemoveXattrIn(dir, ".", opaqueXattr); err != nil {
			return err
		}
	}
	names, err := sortedNames(dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := markOne(dir, n); err != nil {
			return err
		}
	}
	return kernel.Times(dir, unixTime(was.Atim.Unix()), unixTime(was.Mtim.Unix()))
}

func markOne(dir *os.File, name string) (err error) {
	st, err := kernel.StatIn(dir, name)
	if err != nil {
		return err
	}
	switch {
	case st.Mode&kernel.TypeMask == kernel.TypeChar && st.Rdev == 0:
		if err := kernel.UnlinkIn(dir, name); err != nil {
			return err
		}
		return putMark(dir, goneMark+name)
	case st.Mode&kernel.TypeMask != kernel.TypeDir:
		return nil
	}
	sub, err := kernel.OpenIn(dir, name, kernel.ODirectory|kernel.ONoFollow, 0, 0)
	if err != nil {
		return err
	}
	defer fault.Close(sub, &err)
	return markTree(sub)
}

func putMark(dir *os.File, name string) error {
	f, err := kernel.OpenIn(dir, name, os.O_CREATE|os.O_WRONLY|kernel.ONoFollow, 0o444, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// packMarked writes a writable branch as a layer's tar.
func packMarked(ctx context.Context, w io.Writer, upper *os.File, ids archive.IDMap, top bool) error {
	var failed error
	pick := func(dir string) (names, gone []string, all bool) {
		names, gone, err := pickMarked(upper, dir)
		if failed == nil && !none(err) && !errors.Is(err, syscall.ELOOP) { // what went or was replaced meanwhile is left out
			failed = err
		}
		return names, gone, false
	}
	err := archive.Pack(ctx, w, upper, archive.PackOptions{Live: true, IDs: ids, Pick: pick, Top: top})
	if err == nil {
		err = failed
	}
	return err
}

func pickMarked(upper *os.File, dir string) (names, gone []string, err error) {
	f, err := kernel.OpenIn(upper, "./"+dir, kernel.ODirectory|kernel.ONoFollow, 0, beneath)
	if err != nil {
		return nil, nil, err
	}
	defer fault.Close(f, &err)
	all, err := f.Readdirnames(-1)
	if err != nil {
		return nil, nil, err
	}
	names, gone = unmarked(all)
	if slices.Contains(all, opaqueMark) { // the tar's mark is the same
		gone = append([]string{strings.TrimPrefix(opaqueMark, goneMark)}, gone...)
		slices.Sort(gone)
	}
	return names, gone, nil
}

// aufsStatus are the rows that the field has for aufs.
func (o *overlay) aufsStatus() [][2]string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return [][2]string{
		{"Root Dir", o.dir},
		{"Backing Filesystem", o.backing},
		{"Dirs", strconv.Itoa(len(o.layers) + len(o.roots))},
		{"Dirperm1 Supported", strconv.FormatBool(slices.Contains(o.by.options, dirperm1))},
	}
}
