package build

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"berth/archive"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

// files is a build context that is a directory.
type files struct {
	dir        string
	dockerfile string // relative to dir; one from elsewhere has another name in the context
	given      string // its name as the user wrote it
	text       []byte // of a Dockerfile from elsewhere; nil: it lies in dir
	ignore     *patternmatcher.PatternMatcher
	ignoreText []byte
	ignoreName string    // of the ignore file; "": there is none
	matchers   sync.Pool // of ignore's patterns, for several goroutines
}

// foreign is what a Dockerfile from outside of the context is called in it.
const foreign = ".dockerfile.from-elsewhere"

// openFiles finds the Dockerfile and the ignore file of a context. dockerfile is as the user wrote it; "": the default one.
func openFiles(dir, dockerfile string, stdin io.Reader) (*files, error) {
	c := &files{dir: dir, dockerfile: "Dockerfile", given: dockerfile}
	beside := filepath.Join(dir, "Dockerfile")
	switch {
	case dockerfile == "-":
		text, err := io.ReadAll(stdin)
		if err != nil {
			return nil, err
		}
		c.text, c.dockerfile = text, foreign
	case dockerfile != "":
		beside = dockerfile
		if !filepath.IsAbs(dockerfile) {
			if _, err := os.Stat(dockerfile); err != nil {
				beside = filepath.Join(dir, dockerfile) // as older clients had it
			}
		}
		if err := c.place(beside); err != nil {
			return nil, err
		}
	}
	if c.text == nil {
		if _, err := os.Stat(filepath.Join(dir, c.dockerfile)); err != nil {
			if wrong := (*os.PathError)(nil); errors.As(err, &wrong) {
				wrong.Op = "open" // which is how builders have always said it
			}
			return nil, fmt.Errorf("failed to read dockerfile: %w: name it by -f", err)
		}
	}
	return c, c.readIgnore(beside)
}

// place says what the Dockerfile at p is called in the context.
func (c *files) place(p string) error {
	top, err := filepath.Abs(c.dir)
	if err != nil {
		return err
	}
	full, err := filepath.Abs(p)
	if err != nil {
		return err
	}
	name, err := filepath.Rel(top, full)
	if err == nil && name != ".." && !strings.HasPrefix(name, "../") {
		c.dockerfile = name
		return nil
	}
	c.dockerfile = foreign
	if c.text, err = os.ReadFile(full); err != nil {
		return fmt.Errorf("failed to read dockerfile: %w", err)
	}
	return nil
}

// readIgnore reads the ignore file of the Dockerfile's own name, or the context's.
func (c *files) readIgnore(dockerfile string) error {
	for _, name := range []string{dockerfile + ".dockerignore", filepath.Join(c.dir, ".dockerignore")} {
		text, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		patterns, err := ignorefile.ReadAll(bytes.NewReader(text))
		if err == nil {
			c.ignore, err = patternmatcher.New(patterns)
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		c.ignoreText, c.ignoreName = text, name
		c.matchers.New = func() any {
			m, _ := patternmatcher.New(patterns) // they are known to be good
			return m
		}
		return nil
	}
	return nil
}

// keeps tells what becomes part of the context, and whether to look below it. The Dockerfile and the ignore files do in any case: the daemon reads them.
func (c *files) keeps(hdr *tar.Header) (keep, enter bool) {
	name := strings.TrimPrefix(strings.TrimSuffix(hdr.Name, "/"), "/")
	hdr.Uid, hdr.Gid = 0, 0
	if c.text != nil && name == ".dockerignore" { // written before
		return false, true
	}
	if c.ignore == nil || name == "" || name == c.dockerfile || name == ".dockerignore" || name == c.dockerfile+".dockerignore" {
		return name != "", true
	}
	out, err := c.ignore.MatchesOrParentMatches(name)
	if err != nil || !out {
		return true, true
	}
	above := strings.HasPrefix(c.dockerfile, name+"/") // the Dockerfile lies below it
	return false, above || c.ignore.Exclusions()
}

// leave tells what is left out, and whether there may be something below it that is not.
func (c *files) leave(p string, _ bool) (out, enter bool) {
	if c.ignore == nil {
		return false, true
	}
	m := c.matchers.Get().(*patternmatcher.PatternMatcher)
	defer c.matchers.Put(m)
	out, err := m.MatchesOrParentMatches(p)
	return out && err == nil, m.Exclusions()
}

// name is what the Dockerfile is called to people: one from elsewhere has no place in the context.
func (c *files) name() string {
	switch {
	case c.text == nil:
		return c.dockerfile
	case c.given == "-":
		return "Dockerfile"
	}
	return filepath.Base(c.given)
}

// read gives the Dockerfile's text.
func (c *files) read() ([]byte, error) {
	if c.text != nil {
		return c.text, nil
	}
	text, err := os.ReadFile(filepath.Join(c.dir, c.dockerfile))
	if err != nil {
		return nil, fmt.Errorf("failed to read dockerfile: %w", err)
	}
	return text, nil
}

// write writes the context as an archive.
func (c *files) write(ctx context.Context, w io.Writer) error {
	dir, err := os.Open(c.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	if c.text != nil {
		if err := c.writeForeign(w); err != nil {
			return err
		}
	}
	p := archive.NewPacker(ctx, w, archive.PackOptions{Live: true, Member: c.keeps})
	if err := p.Add(dir, ".", ""); err != nil {
		return err
	}
	return p.Close()
}

// writeForeign writes a Dockerfile from elsewhere, and an ignore file that has the daemon leave it out of the context once it was read. The archive has no
// end marker: what follows makes it whole.
func (c *files) writeForeign(w io.Writer) error {
	ignore := c.ignoreText
	if ignore == nil {
		ignore = []byte(".dockerignore")
	}
	ignore = append(bytes.Clone(ignore), "\n"+foreign+"\n"...)
	tw := tar.NewWriter(w)
	for _, f := range []struct {
		name string
		text []byte
	}{{c.dockerfile, c.text}, {".dockerignore", ignore}} {
		if err := tw.WriteHeader(&tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.text)), Format: tar.FormatPAX}); err != nil {
			return err
		}
		if _, err := tw.Write(f.text); err != nil {
			return err
		}
	}
	return tw.Flush()
}

// watched remembers why a context ended early: whoever sends it only sees that it did.
type watched struct {
	io.Reader
	wrong atomic.Pointer[error]
}

// Read reads the context.
func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if err != nil && err != io.EOF && !errors.Is(err, io.ErrClosedPipe) { // closed: the daemon has read enough, and the build is over
		w.wrong.Store(&err)
	}
	return n, err
}
