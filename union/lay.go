package union

import (
	"bytes"
	"errors"
	"os"
	"path"
	"strings"
	"syscall"

	"berth/fault"
	"berth/kernel"
	"berth/union/clone"
)

// names is what a layer itself has and takes away, each directory's entries together and directories before what is in them. In its file each takes a
// letter, its path and a zero byte.
type names []layerName

type layerName struct {
	what byte
	path string // relative; "." for the top
}

// What a layer has under a name.
const (
	hasName    = '+'
	hasDir     = 'd'
	hasOpaque  = 'o' // a directory that hides what the layers below have there
	hasntName  = '-'
	terminator = "\x00"
)

func (n names) encode() []byte {
	var b bytes.Buffer
	for _, one := range n {
		b.WriteByte(one.what)
		b.WriteString(one.path)
		b.WriteString(terminator)
	}
	return b.Bytes()
}

// parseNames reads what encode wrote; fault.Corrupt for anything else.
func parseNames(data []byte) (n names, err error) {
	if len(data) > 0 && data[len(data)-1] != 0 {
		return nil, fault.New(fault.Corrupt, "a layer's list of names ends in the middle")
	}
	for one := range strings.SplitSeq(strings.TrimSuffix(string(data), terminator), terminator) {
		if one == "" && len(data) == 0 {
			break
		}
		if len(one) < 2 || strings.IndexByte("+do-", one[0]) < 0 || path.Clean(one[1:]) != one[1:] || strings.HasPrefix(one[1:], "/") || one[1:] == ".." || strings.HasPrefix(one[1:], "../") {
			return nil, fault.New(fault.Corrupt, "a layer's list of names has %q", one)
		}
		n = append(n, layerName{one[0], one[1:]})
	}
	return n, nil
}

// laying puts a layer in overlay's form over a whole tree, as overlay would show the two.
type laying struct {
	copier *clone.Copier
	names  names
	apart  bool // the layer lies on another file system, or another part of it, than the tree
}

// lay moves or copies what is in layer to tree; what it leaves of layer is to be discarded. It returns the layer's names.
func lay(layer, tree *os.File) (names, error) {
	l := &laying{copier: clone.New(tree)}
	l.copier.Skip = isOverlays
	opaque, err := isOpaque(layer, ".")
	if err != nil {
		return nil, err
	}
	if err := l.dir(layer, tree, ".", opaque); err != nil {
		return nil, err
	}
	return l.names, nil
}

func isOpaque(dir *os.File, name string) (bool, error) {
	value, _, err := kernel.XattrIn(dir, name, opaqueXattr)
	return value == "y", err
}

func (l *laying) note(what byte, at string) { l.names = append(l.names, layerName{what, at}) }

// dir lays one directory's entries, and gives the tree's directory the attributes of the layer's.
func (l *laying) dir(from, to *os.File, at string, opaque bool) error {
	if opaque {
		l.note(hasOpaque, at)
	} else {
		l.note(hasDir, at)
	}
	was, err := kernel.Stat(from) // before its entries move
	if err != nil {
		return err
	}
	list, err := sortedNames(from)
	if err != nil {
		return err
	}
	if opaque {
		if err := clearDir(to); err != nil {
			return err
		}
	}
	var subs []string
	for _, n := range list {
		st, err := kernel.StatIn(from, n)
		if err != nil {
			return err
		}
		full := path.Join(at, n)
		switch kind := st.Mode & kernel.TypeMask; {
		case kind == kernel.TypeDir:
			subs = append(subs, n)
			continue
		case kind == kernel.TypeChar && st.Rdev == 0:
			l.note(hasntName, full)
			err = kernel.RemoveIn(to, n)
		default:
			l.note(hasName, full)
			err = l.one(from, n, to, full)
		}
		if err != nil {
			return err
		}
	}
	for _, n := range subs {
		if err := l.sub(from, n, to, path.Join(at, n)); err != nil {
			return err
		}
	}
	if err := l.copier.Attributes(from, ".", to); err != nil {
		return err
	}
	return kernel.Times(to, unixTime(was.Atim.Unix()), unixTime(was.Mtim.Unix()))
}

// one brings what is no directory.
func (l *laying) one(from *os.File, name string, to *os.File, full string) error {
	if err := kernel.RemoveIn(to, name); err != nil {
		return err
	}
	if !l.apart {
		err := kernel.RenameIn(from, name, to, name)
		if !errors.Is(err, syscall.EXDEV) {
			return err
		}
		l.apart = true
	}
	return l.copier.One(from, name, to, full)
}

func (l *laying) sub(from *os.File, name string, to *os.File, full string) (err error) {
	have, err := kernel.StatIn(to, name)
	if err == nil && have.Mode&kernel.TypeMask != kernel.TypeDir {
		if err := kernel.RemoveIn(to, name); err != nil {
			return err
		}
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := kernel.MkdirIn(to, name, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	in, err := kernel.OpenIn(from, name, kernel.ODirectory|kernel.ONoFollow, 0, 0)
	if err != nil {
		return err
	}
	defer fault.Close(in, &err)
	out, err := kernel.OpenIn(to, name, kernel.ODirectory|kernel.ONoFollow, 0, 0)
	if err != nil {
		return err
	}
	defer fault.Close(out, &err)
	opaque, err := isOpaque(in, ".")
	if err != nil {
		return err
	}
	return l.dir(in, out, full, opaque)
}

// clearDir removes all that is in a directory.
func clearDir(dir *os.File) error {
	list, err := sortedNames(dir)
	for _, n := range list {
		err = errors.Join(err, kernel.RemoveIn(dir, n))
	}
	return err
}
