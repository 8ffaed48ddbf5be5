package container

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"berth/archive"
)

// local is a source on this machine.
type local struct {
	end
	dir  *os.File // where it lies
	name string   // in dir; "." for dir itself
}

// openLocal looks at a source; follow goes through it when it is a symbolic link. The caller closes dir.
func openLocal(p place, follow bool) (*local, error) {
	abs, err := filepath.Abs(p.path)
	if err != nil {
		return nil, err
	}
	look := abs
	if p.mustBeDir() {
		look += "/"
	}
	info, err := os.Lstat(look)
	if err != nil {
		return nil, err
	}
	if follow && info.Mode()&fs.ModeSymlink != 0 {
		if abs, err = filepath.EvalSymlinks(abs); err != nil {
			return nil, err
		}
		if info, err = os.Lstat(abs); err != nil {
			return nil, err
		}
	}
	if base := filepath.Base(abs); !p.contentOnly() && (p.path == ".." || filepath.Base(p.path) == "..") {
		p.path = base // the copy is called as the directory is
	}
	l := &local{end: end{p, true, info.IsDir()}, name: "."}
	at := abs
	if !info.IsDir() {
		at, l.name = filepath.Dir(abs), filepath.Base(abs)
	}
	l.dir, err = os.Open(at)
	return l, err
}

// pack gives the source as an archive, made while it is read. The caller closes the reader.
func (l *local) pack(ctx context.Context, as string) io.Reader {
	r, w := io.Pipe()
	go func() {
		p := archive.NewPacker(ctx, w, archive.PackOptions{Live: true, Holes: true})
		err := p.Add(l.dir, l.name, as)
		w.CloseWithError(errors.Join(err, p.Close()))
	}()
	return r
}

// localDestination looks at where something goes on this machine. Symbolic links are followed, also one that leads to nothing yet.
func localDestination(p place) (end, error) {
	if p.path == "-" {
		return end{place: p}, nil
	}
	for range maxLinks {
		info, err := os.Lstat(p.path)
		if errors.Is(err, fs.ErrNotExist) {
			return end{place: p}, nil
		}
		if err != nil {
			return end{}, err
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			return end{p, true, info.IsDir()}, nil
		}
		target, err := os.Readlink(p.path)
		if err != nil {
			return end{}, err
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(p.path), target)
		}
		p.path = target
	}
	return end{}, errors.New("too many symbolic links: " + p.path)
}

const maxLinks = 40

// unpackLocal unpacks an archive that a container has written into a directory. Nothing in it gets out of there.
func unpackLocal(ctx context.Context, r io.Reader, dir string, owners bool) error {
	root, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("no such directory")
	}
	if err != nil {
		return err
	}
	defer root.Close()
	_, err = archive.Unpack(ctx, r, root, archive.UnpackOptions{Live: true, KeepKinds: true, Mine: !owners, Holes: true})
	return err
}
