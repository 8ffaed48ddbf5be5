package build

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"berth/archive"
	"berth/cli/session"
)

// receive takes output number name, an archive, to where it goes.
func (o *outputs) receive(ctx context.Context, s *session.Session, name string, from io.Reader) error {
	n, err := strconv.Atoi(name)
	if err != nil || n < 0 || n >= len(o.list) {
		return fmt.Errorf("the daemon sends an output %q, which was not asked for", name)
	}
	one := o.list[n]
	whole, plain := one.attributes["tar"] == "" || one.attributes["tar"] == "true", one.kind != "local"
	switch {
	case one.dest == "":
		return fmt.Errorf("the daemon sends output %s, which has no place here", one.kind)
	case plain && whole && one.dest == "-":
		_, err := io.Copy(s.Out, from)
		return err
	case plain && whole:
		return o.toFile(one.dest, from)
	}
	if err := o.toDirectory(ctx, one.dest, from, one.attributes["mode"] == "delete"); err != nil {
		return fmt.Errorf("output to %s: %w", one.dest, err)
	}
	return nil
}

// toFile writes a file beside its place. It gets there when all of the build has succeeded: a stream that is cut off looks like one that ends.
func (o *outputs) toFile(dest string, from io.Reader) (err error) {
	f, err := os.CreateTemp(filepath.Dir(dest), "."+filepath.Base(dest)+".tmp-")
	if err != nil {
		return err
	}
	o.later(written{temporary: f.Name(), dest: dest})
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Chmod(0o644), f.Close())
}

// written is a file that is not in its place yet, or a directory that has more than it should.
type written struct {
	temporary, dest string
	names           *listing // what the directory should have; nil: it is a file
}

func (o *outputs) later(w written) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.written = append(o.written, w)
}

// place puts files where they belong and clears directories.
func (o *outputs) place() error {
	for ; len(o.written) > 0; o.written = o.written[1:] {
		w := o.written[0]
		if w.names != nil {
			if err := w.names.clear(w.dest); err != nil {
				return err
			}
			continue
		}
		if err := os.Rename(w.temporary, w.dest); err != nil {
			return err
		}
	}
	return nil
}

// discard removes what came of a build that failed; nothing when finish has succeeded.
func (o *outputs) discard() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	var err error
	for _, w := range o.written {
		if w.names == nil {
			err = errors.Join(err, os.Remove(w.temporary))
		}
	}
	o.written = nil
	return err
}

// toDirectory unpacks into a directory, made when missing. What is there stays unless the archive has it too; with only
// set, the rest goes when all of the build has succeeded. Who is not root
// gets what belongs to others as their own.
func (o *outputs) toDirectory(ctx context.Context, dest string, from io.Reader, only bool) (err error) {
	if err := os.MkdirAll(dest, 0o755); err != nil {
		return err
	}
	top, err := os.Open(dest)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, top.Close()) }()
	names := &listing{}
	if only {
		from = names.of(from)
	}
	_, err = archive.Unpack(ctx, from, top, archive.UnpackOptions{Live: true, Mine: true})
	if !only {
		return err
	}
	names.copy.CloseWithError(err) // nothing more comes
	if err = errors.Join(err, <-names.done); err == nil {
		o.later(written{dest: dest, names: names})
	}
	return err
}

// listing collects the names in an archive that passes by.
type listing struct {
	names map[string]bool
	copy  *io.PipeWriter
	done  chan error
}

func (l *listing) of(from io.Reader) io.Reader {
	l.names, l.done = map[string]bool{}, make(chan error, 1)
	r, w := io.Pipe()
	l.copy = w
	go func() {
		err := l.read(r)
		r.CloseWithError(err)
		l.done <- err
	}()
	return io.TeeReader(from, w)
}

func (l *listing) read(r io.Reader) error {
	tr := tar.NewReader(r)
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			_, err = io.Copy(io.Discard, r)
			return err
		}
		if err != nil {
			return err
		}
		for p := strings.Trim(path.Clean("/"+hdr.Name), "/"); p != "" && p != "." && !l.names[p]; p = path.Dir(p) {
			l.names[p] = true
		}
	}
}

// clear removes what is below dir and was not in the archive.
func (l *listing) clear(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == "." || l.names[p] {
			return err
		}
		if err := root.RemoveAll(p); err != nil {
			return err
		}
		if d.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
}
