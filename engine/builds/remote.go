package builds

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"strconv"
	"strings"

	"berth/archive"
	"berth/build"
	"berth/build/dockerfile"
	"berth/build/remote"
	"berth/fault"
)

// Finder finds what a build takes from other places, with what store keeps of them.
func Finder(store *remote.Store) build.Finder {
	return func(ctx context.Context, from *dockerfile.Source, c build.Client, tell func(build.Progress)) (*build.Remote, error) {
		f, err := store.Find(ctx, from, c, func(p remote.Progress) { tell(build.Progress(p)) })
		if err != nil {
			return nil, err
		}
		return &build.Remote{Key: f.Key, Name: f.Name, Close: f.Close, Fetch: func(ctx context.Context) (*build.Files, error) {
			top, err := f.Fetch(ctx)
			if err != nil {
				return nil, err
			}
			return &build.Files{Top: top}, nil
		}}, nil
	}
}

// away is a client whose build context is in another place.
type away struct {
	Client
	files *build.Files
	close func() error
}

// leave gives the context up.
func (a *away) leave(log *slog.Logger) {
	if err := a.close(); err != nil {
		log.Warn("a build's fetched context stays until the next start", "error", err)
	}
}

// Files implements build.Client.
func (a *away) Files(ctx context.Context, name string, patterns []string) (*build.Files, error) {
	if name != "" {
		return a.Client.Files(ctx, name, patterns)
	}
	return a.files, nil
}

// elsewhere brings the build context from the address o.Remote, and reads the Dockerfile in it unless there is one. The caller closes it.
func (s *Service) elsewhere(ctx context.Context, o *Options, client Client, t Teller) (_ *away, err error) {
	source, err := contextSource(*o)
	if err != nil {
		return nil, err
	}
	end := t.Begin(LoadContext)
	defer func() { end(err) }()
	r, err := s.Builder.Find(ctx, source, client, func(p build.Progress) { t.Part(LoadContext, p.Part, p.Current, p.Total, p.Done) })
	if err != nil {
		return nil, err
	}
	a := &away{Client: client, close: r.Close}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.close())
		}
	}()
	if a.files, err = r.Fetch(ctx); err != nil {
		return nil, err
	}
	if source.Git == nil {
		if err = s.open(ctx, o, a); err != nil {
			return nil, err
		}
	}
	if o.Text == nil {
		err = o.readFrom(a.files.Top)
		o.Ignore = nil // it is for what a client sends
	}
	return a, err
}

// Elsewhere brings what a context is that is at an address. The caller calls end.
func (s *Service) Elsewhere(ctx context.Context, address string, client Client, t Teller) (top *os.File, end func() error, err error) {
	a, err := s.elsewhere(ctx, &Options{Remote: address, Text: []byte{}}, client, t)
	if err != nil {
		return nil, nil, err
	}
	return a.files.Top, a.close, nil
}

// ReadRemote reads the Dockerfile of a context in another place, unless there is one; nothing of the context stays.
func (s *Service) ReadRemote(ctx context.Context, o *Options, client Client, t Teller) error {
	if o.Remote == "" || o.Text != nil {
		return nil
	}
	a, err := s.elsewhere(ctx, o, client, t)
	if err != nil {
		return err
	}
	return a.close()
}

// contextSource is what an address of a context means.
func contextSource(o Options) (*dockerfile.Source, error) {
	address := o.Remote
	if rest, ok := strings.CutPrefix(address, "github.com/"); ok { // as older clients had it
		where, what := rest, ""
		if k := strings.IndexAny(rest, "#?"); k >= 0 {
			where, what = rest[:k], rest[k:]
		}
		address = "https://github.com/" + strings.TrimSuffix(where, ".git") + ".git" + what
	}
	git, is, err := dockerfile.ParseGit(address)
	switch {
	case err != nil:
		return nil, err
	case is:
		if keep, err := strconv.ParseBool(o.Args["BUILDKIT_CONTEXT_KEEP_GIT_DIR"]); err == nil && git.KeepDir == nil {
			git.KeepDir = &keep
		}
		if o.Args["SOURCE_DATE_EPOCH"] != "" && git.Time == "" {
			git.Time = "commit"
		}
		return &dockerfile.Source{Git: &git}, nil
	case strings.HasPrefix(address, "http://"), strings.HasPrefix(address, "https://"):
		return &dockerfile.Source{URL: address, As: "context"}, nil
	}
	return nil, fault.New(fault.Invalid, "remoteURL (%s) could not be recognized as URL", address)
}

// open makes a context of the file that an address gave: an archive's content, or nothing beside a Dockerfile.
func (s *Service) open(ctx context.Context, o *Options, a *away) (err error) {
	plain, is, err := build.OpenArchive(a.files.Top, "/context")
	if err != nil {
		return err
	}
	if is {
		defer fault.Close(plain, &err)
	}
	if !is && o.Text == nil {
		if o.Text, err = archive.ReadFile(a.files.Top, "/context", maxDockerfile); err != nil {
			return err
		}
		if bytes.IndexByte(o.Text, 0) >= 0 {
			return fault.New(fault.Invalid, "%s is neither an archive nor a Dockerfile", o.Remote)
		}
	}
	var dir *os.File
	if is {
		dir, err = s.context(ctx, plain)
	} else {
		dir, err = s.context(ctx, nil)
	}
	if err != nil {
		return err
	}
	fetched := a.close
	a.files = &build.Files{Top: dir}
	a.close = func() error { return errors.Join(dir.Close(), os.RemoveAll(dir.Name()), fetched()) }
	return nil
}
