package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"berth/archive"
	"berth/cli/format"
	"berth/cli/session"
	"berth/cli/terminal"
	"berth/client"
	"berth/fault"

	"github.com/spf13/cobra"
)

type copyOptions struct {
	owners, follow, quiet bool
	chown                 string
}

// Copy is the command "container cp".
func Copy(s *session.Session) *cobra.Command {
	var o copyOptions
	cmd := &cobra.Command{
		Use: "cp [OPTIONS] CONTAINER:SRC_PATH|SRC_PATH|- ... CONTAINER:DEST_PATH|DEST_PATH|-", Args: session.AtLeast(2),
		Example: "cp web:/etc/nginx .\ncp app.conf other.conf web:/etc/\ncp 'web:/var/log/*.log' .\ncp db:/dump.sql backup:/in/",
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("quiet") {
				o.quiet = !terminal.Is(s.Out)
			}
			return copyAll(cmd.Context(), s, o, args)
		},
	}
	fs := cmd.Flags()
	fs.BoolVarP(&o.owners, "archive", "a", false, "Archive mode (copy all uid/gid information)")
	fs.BoolVarP(&o.follow, "follow-link", "L", false, "Always follow symbol link in SRC_PATH")
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Suppress progress output during copy. Progress output is automatically suppressed if no terminal is attached")
	fs.StringVar(&o.chown, "chown", "", "User, and group, of the container who gets the copied files (\"user[:group]\", names or numbers)")
	return cmd
}

// place is one end of a copy: a path of a container, or with container "" of this machine.
type place struct{ container, path string }

func (p place) String() string {
	if p.container == "" {
		return p.path
	}
	return p.container + ":" + p.path
}

// parsePlace reads an argument of cp: what begins as a path is one, and only else may be CONTAINER:PATH.
func parsePlace(arg string) place {
	if filepath.IsAbs(arg) {
		return place{"", arg}
	}
	c, p, ok := strings.Cut(arg, ":")
	if !ok || strings.HasPrefix(c, ".") {
		return place{"", arg}
	}
	return place{c, p}
}

// end is what is known of a place.
type end struct {
	place
	exists, dir bool
}

// mustBeDir tells whether the path says by its end that it means a directory.
func (p place) mustBeDir() bool {
	return strings.HasSuffix(p.path, "/") || p.path == "." || strings.HasSuffix(p.path, "/.")
}

// contentOnly tells whether the path means what is in a directory.
func (p place) contentOnly() bool { return p.path == "." || strings.HasSuffix(p.path, "/.") }

// base is the name that a copy gets where nothing else is said; "." for a directory's content.
func (p place) base() string {
	if p.contentOnly() {
		return "."
	}
	return path.Base(path.Clean("/" + p.path))
}

// planCopy decides by the field's rules (docker container cp) into which directory a source goes and what it is called there.
func planCopy(src, dst end) (dir, as string, err error) {
	switch {
	case dst.exists && dst.dir:
		return dst.path, src.base(), nil
	case dst.exists && src.dir:
		return "", "", errors.New("cannot copy directory")
	case dst.exists && dst.mustBeDir():
		return "", "", errors.New("not a directory")
	case !dst.exists && !src.dir && dst.mustBeDir():
		return "", "", errors.New("no such directory")
	}
	clean := path.Clean(dst.path)
	return path.Dir(clean), path.Base(clean), nil
}

func copyAll(ctx context.Context, s *session.Session, o copyOptions, args []string) error {
	dst := parsePlace(args[len(args)-1])
	var sources []place
	for _, a := range args[:len(args)-1] {
		p := parsePlace(a)
		switch {
		case p.path == "":
			return errors.New("source can not be empty")
		case p == place{"", "-"} && len(args) > 2:
			return errors.New("the standard input can only be the one source")
		case p.container == "" && dst.container == "":
			return errors.New("must specify at least one container source")
		}
		sources = append(sources, p)
	}
	switch {
	case dst.path == "":
		return errors.New("destination can not be empty")
	case o.chown != "" && dst.container == "":
		return errors.New("--chown is for copies into containers: its names are looked up there")
	case dst == place{"", "-"} && len(sources) > 1:
		return errors.New("the standard output takes one source only; copy a directory, or use a pattern")
	}
	api, err := s.API()
	if err != nil {
		return err
	}
	c := &copier{Session: s, api: api.Containers, o: o}
	to, err := c.destination(ctx, dst)
	if err != nil {
		return err
	}
	if len(sources) > 1 && (!to.exists || !to.dir) {
		return fmt.Errorf("destination %q must be a directory that exists, as there are several sources", dst)
	}
	for _, src := range sources {
		if err := c.one(ctx, src, to); err != nil {
			return err
		}
	}
	return nil
}

// copier copies what one command line names.
type copier struct {
	*session.Session
	api client.Containers
	o   copyOptions
}

// destination looks at where it goes; links are followed. That the place of a new file can't be had shows at the copy.
func (c *copier) destination(ctx context.Context, p place) (end, error) {
	if p.container == "" {
		return localDestination(p)
	}
	stat, err := c.api.StatPath(ctx, p.container, p.path)
	if err == nil && stat.Mode&os.ModeSymlink != 0 {
		p.path = stat.LinkTarget
		stat, err = c.api.StatPath(ctx, p.container, p.path)
	}
	if errors.Is(err, fault.NotFound) || errors.Is(err, fault.Invalid) {
		return end{place: p}, nil
	}
	return end{p, err == nil, stat.Mode.IsDir()}, err
}

// one copies one argument.
func (c *copier) one(ctx context.Context, src place, dst end) error {
	if src.container == "" {
		return c.into(ctx, src, dst)
	}
	if dst.place == (place{"", "-"}) {
		return c.print(ctx, src)
	}
	q, dir, err := c.from(ctx, src, dst)
	if err != nil {
		return err
	}
	r, err := c.api.CopyFrom(ctx, src.container, q)
	if err != nil {
		return err
	}
	defer r.Close()
	m := c.meter("Copying from container", r)
	if dst.container != "" {
		err = c.api.CopyTo(ctx, dst.container, c.upload(dir), m)
	} else {
		err = unpackLocal(ctx, m, dir, c.o.owners)
	}
	return m.done(err, dst.String())
}

// from finds out what the source is, and returns the query for it and the directory that it goes into.
func (c *copier) from(ctx context.Context, src place, dst end) (url.Values, string, error) {
	q := url.Values{"path": {src.path}, "sparse": {"1"}}
	stat, err := c.api.StatPath(ctx, src.container, src.path)
	if errors.Is(err, fault.NotFound) && archive.IsPattern(src.path) {
		if !dst.dir {
			return nil, "", fmt.Errorf("destination %q must be a directory that exists, as the source is a pattern", dst.place)
		}
		q.Set("glob", "1")
		return q, dst.path, nil
	}
	if errors.Is(err, fault.NotFound) || errors.Is(err, fault.Invalid) { // the answer to the real request says what is wrong
		return q, ".", nil
	}
	if err != nil {
		return nil, "", err
	}
	from := end{src, true, stat.Mode.IsDir()}
	if c.o.follow && stat.Mode&os.ModeSymlink != 0 {
		q.Set("path", stat.LinkTarget)
		if stat, err = c.api.StatPath(ctx, src.container, stat.LinkTarget); err != nil {
			return nil, "", err
		}
		from.dir = stat.Mode.IsDir()
	}
	dir, as, err := planCopy(from, dst)
	if as != "." && as != "/" {
		q.Set("as", as)
	}
	return q, dir, err
}

// upload is the query for an archive that goes into a container's directory.
func (c *copier) upload(dir string) url.Values {
	q := url.Values{"path": {dir}, "noOverwriteDirNonDir": {"true"}}
	if c.o.chown != "" {
		q.Set("chown", c.o.chown)
	}
	return q
}

// print writes the archive itself to the standard output.
func (c *copier) print(ctx context.Context, src place) error {
	q := url.Values{"path": {src.path}}
	if stat, err := c.api.StatPath(ctx, src.container, src.path); err == nil && c.o.follow && stat.Mode&os.ModeSymlink != 0 {
		q.Set("path", stat.LinkTarget)
		q.Set("as", src.base())
	} else if errors.Is(err, fault.NotFound) && archive.IsPattern(src.path) {
		q.Set("glob", "1")
	}
	r, err := c.api.CopyFrom(ctx, src.container, q)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(c.Out, r)
	return err
}

// into copies from this machine to a container.
func (c *copier) into(ctx context.Context, src place, dst end) error {
	if src.path == "-" {
		if !dst.dir {
			return fmt.Errorf("destination %q must be a directory", dst.place)
		}
		m := c.meter("Copying to container", c.In)
		return m.done(c.api.CopyTo(ctx, dst.container, c.upload(dst.path), m), dst.String())
	}
	l, err := openLocal(src, c.o.follow)
	if err != nil {
		return err
	}
	defer l.dir.Close()
	dir, as, err := planCopy(l.end, dst)
	if err != nil {
		return err
	}
	m := c.meter("Copying to container", l.pack(ctx, as))
	defer m.Close()
	return m.done(c.api.CopyTo(ctx, dst.container, c.upload(dir), m), dst.String())
}

// copyMeter counts what passes and shows it, unless it is to be quiet.
type copyMeter struct {
	io.Reader
	what  string
	err   io.Writer // nil: quiet
	live  bool      // progress too, on a terminal
	bytes int64
	shown int64
}

func (c *copier) meter(what string, r io.Reader) *copyMeter {
	m := &copyMeter{Reader: r, what: what}
	if !c.o.quiet {
		m.err, m.live = c.Err, terminal.Is(c.Err)
	}
	return m
}

// everyBytes is how much passes between two figures on the screen.
const everyBytes = 1 << 20

func (m *copyMeter) Read(p []byte) (int, error) {
	n, err := m.Reader.Read(p)
	m.bytes += int64(n)
	if m.live && m.bytes-m.shown >= everyBytes {
		m.shown = m.bytes
		fmt.Fprintf(m.err, "\r%s - %-10s", m.what, format.FineSize(m.bytes))
	}
	return n, err
}

// Close ends the reader below.
func (m *copyMeter) Close() error {
	if c, ok := m.Reader.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// done says how it ended.
func (m *copyMeter) done(err error, to string) error {
	if m.err == nil {
		return err
	}
	if m.shown > 0 {
		fmt.Fprint(m.err, "\r\x1b[K")
	}
	if err == nil {
		fmt.Fprintf(m.err, "Successfully copied %s to %s\n", format.FineSize(m.bytes), to)
	}
	return err
}
