package remote

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"berth/build/dockerfile"
	"berth/fault"
	"berth/internal/record"
)

var (
	commitName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`) })
	hexDigits  = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-9a-fA-F]+$`) })
	scp        = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^([a-zA-Z0-9_][a-zA-Z0-9_.-]*)@([a-zA-Z0-9][a-zA-Z0-9.-]*):([^\s]*)$`)
	})
)

// repository is one that things are taken from.
type repository struct {
	*git
	s      *Store
	id     string // of its mirror
	dir    string // that
	client Client
}

// wanted is what is taken from a repository.
type wanted struct {
	dockerfile.Git
	commit string
	name   string // of the ref that was found; "": the commit is known without
}

// findGit asks what a ref is. Nobody is asked about a commit.
func (s *Store) findGit(ctx context.Context, what dockerfile.Git, c Client, tell func(Progress)) (_ *Found, err error) {
	f := &Found{s: s}
	if err := f.own(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	r, err := s.repository(ctx, what.Remote, f.dir, c, tell)
	if err != nil {
		return nil, err
	}
	w := &wanted{Git: what}
	if err := r.resolve(ctx, w); err != nil {
		return nil, err
	}
	f.Key = fmt.Sprintf("commit %s directory %q submodules %v time %s", w.commit, what.Dir, what.Submodules, what.Time)
	if w.keep() {
		f.Key += fmt.Sprintf(" kept as %s of %s", w.name, r.remote)
	}
	f.fetch = func(ctx context.Context, f *Found) error { return r.give(ctx, f, w) }
	return f, nil
}

// keep tells whether the directory .git becomes part of the tree; below another directory there is none.
func (w *wanted) keep() bool { return w.KeepDir != nil && *w.KeepDir && w.Dir == "" }

// repository prepares to call git. home is a directory that is gone when what was found is closed.
func (s *Store) repository(ctx context.Context, address, home string, c Client, tell func(Progress)) (*repository, error) {
	bare, secret, err := split(address)
	if err != nil {
		return nil, err
	}
	if err := s.give(home); err != nil {
		return nil, err
	}
	r := &repository{s: s, client: c, git: &git{s: s, remote: bare, home: home, tell: tell}}
	r.at(bare, 40)
	if strings.HasPrefix(bare, "http://") || strings.HasPrefix(bare, "https://") {
		return r, r.authorize(ctx, secret)
	}
	if strings.HasPrefix(bare, "ssh://") || scp().MatchString(bare) {
		r.known = r.dir + ".hosts"
		r.agent, err = s.serveAgent(ctx, home, c)
		return r, err
	}
	return r, nil
}

// at says where the mirror is. Commits with names of another length have another one.
func (r *repository) at(address string, length int) {
	words := []string{address}
	if length != 40 {
		words = append(words, "sha256")
	}
	r.id = "git/" + hash(words...)
	r.dir = filepath.Join(r.s.dir, r.id)
}

// split takes user and password out of an address, which then is one that git may see on a command line; secret is what HTTP sends of them.
// fault.Invalid: it is none that is fetched from.
func split(address string) (bare, secret string, err error) {
	if strings.ContainsFunc(address, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", "", fault.New(fault.Invalid, "invalid git address %q", address)
	}
	if m := scp().FindStringSubmatch(address); m != nil && !strings.HasPrefix(m[3], "-") {
		return address, "", nil
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || strings.HasPrefix(u.Host, "-") || strings.HasPrefix(u.User.Username(), "-") {
		return "", "", fault.New(fault.Invalid, "invalid git address: it is https://HOST/PATH.git, ssh://, git:// or USER@HOST:PATH")
	}
	switch u.Scheme {
	case "http", "https":
		if u.User != nil {
			p, _ := u.User.Password()
			secret = "Basic " + base64.StdEncoding.EncodeToString([]byte(u.User.Username()+":"+p))
			u.User = nil
		}
	case "ssh", "git":
		if u.User != nil {
			u.User = url.User(u.User.Username())
		}
	default:
		return "", "", fault.New(fault.Invalid, "git repositories are fetched by https, http, ssh and git, not by %s", u.Scheme)
	}
	u.Fragment, u.RawQuery = "", ""
	return u.String(), secret, nil
}

// authorize asks the client for what the server may want. It goes to git by its environment, and to that server alone.
func (r *repository) authorize(ctx context.Context, secret string) error {
	u, err := url.Parse(r.remote)
	if err != nil {
		return err
	}
	for _, s := range []struct {
		id    string
		token bool
	}{{"GIT_AUTH_HEADER." + u.Host, false}, {"GIT_AUTH_TOKEN." + u.Host, true}, {"GIT_AUTH_HEADER", false}, {"GIT_AUTH_TOKEN", true}} {
		text, err := r.client.Secret(ctx, s.id)
		if errors.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if secret = strings.TrimSpace(string(text)); s.token {
			secret = "basic " + base64.StdEncoding.EncodeToString([]byte("x-access-token:"+secret))
		}
		break
	}
	if secret != "" {
		r.config = append(r.config, "http."+u.Scheme+"://"+u.Host+"/.extraHeader", "Authorization: "+secret)
	}
	return nil
}

// resolve finds the commit.
func (r *repository) resolve(ctx context.Context, w *wanted) error {
	sum := strings.ToLower(w.Checksum)
	switch {
	case sum != "" && !hexDigits().MatchString(sum):
		return fault.New(fault.Invalid, "invalid checksum %s for Git URL, expected hex commit hash", w.Checksum)
	case commitName().MatchString(w.Ref):
		w.commit = w.Ref
		return matches(sum, w.commit)
	case w.ByCommit && !commitName().MatchString(sum):
		return fault.New(fault.Invalid, "fetch-by-commit requires a full commit SHA checksum, got %q", w.Checksum)
	case w.ByCommit:
		w.commit = sum
		return nil
	}
	if w.Ref == "" || w.Ref == "HEAD" {
		out, err := r.run(ctx, r.home, nil, "ls-remote", "--symref", "--", r.remote, "HEAD")
		if err != nil {
			return err
		}
		refs := parseRefs(out)
		if w.commit, w.name = refs["HEAD"], refs["ref: HEAD"]; !commitName().MatchString(w.commit) {
			return fault.New(fault.NotFound, "could not find default branch for repository: %s", r.remote)
		}
		return matches(sum, w.commit)
	}
	out, err := r.run(ctx, r.home, nil, "ls-remote", "--", r.remote, w.Ref, w.Ref+"^{}")
	if err != nil {
		return err
	}
	refs := parseRefs(out)
	for _, name := range []string{"refs/" + strings.TrimPrefix(w.Ref, "refs/"), "refs/heads/" + w.Ref, "refs/tags/" + w.Ref} { // as git has it, a branch comes before a tag
		if !commitName().MatchString(refs[name]) {
			continue
		}
		w.commit, w.name = refs[name], name
		if peeled := refs[name+"^{}"]; commitName().MatchString(peeled) { // a tag with a text of its own
			w.commit = peeled
		}
		return matches(sum, w.commit, refs[name])
	}
	return fault.New(fault.NotFound, "repository does not contain ref %s: %s", w.Ref, r.remote)
}

// matches compares a checksum, or its beginning, with what was found.
func matches(sum string, found ...string) error {
	for _, f := range found {
		if strings.HasPrefix(f, sum) {
			return nil
		}
	}
	return fault.New(fault.Invalid, "expected checksum to match %s, got %s", sum, found[0])
}

// parseRefs reads what ls-remote says: what each ref is; and as "ref: NAME" which one NAME stands for.
func parseRefs(out []byte) map[string]string {
	refs := map[string]string{}
	for line := range strings.Lines(string(out)) {
		value, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if target, ok := strings.CutPrefix(value, "ref: "); ok {
			name, value = "ref: "+name, target
		}
		refs[name] = value
	}
	return refs
}

// mirror makes the repository's mirror when there is none, and clears away what a call that was cut off left locked. Its lock is held.
func (r *repository) mirror(ctx context.Context, length int) error {
	if _, err := os.Stat(filepath.Join(r.dir, "HEAD")); err == nil {
		return errors.Join(r.tidy(), r.s.give(r.dir))
	}
	if err := errors.Join(os.RemoveAll(r.dir), os.Mkdir(r.dir, 0o700), r.s.give(r.dir)); err != nil {
		return err
	}
	args := []string{"init", "--quiet", "--bare", "--template="}
	if length == 64 {
		args = append(args, "--object-format=sha256")
	}
	_, err := r.run(ctx, r.dir, nil, append(args, ".")...)
	return err
}

func (r *repository) tidy() error {
	locks, err := filepath.Glob(filepath.Join(r.dir, "*.lock"))
	for _, pattern := range []string{"refs/*/*.lock", "objects/pack/tmp_*", "objects/tmp_objdir-*", "objects/incoming-*"} {
		more, globErr := filepath.Glob(filepath.Join(r.dir, pattern))
		locks, err = append(locks, more...), errors.Join(err, globErr)
	}
	for _, l := range locks {
		err = errors.Join(err, os.RemoveAll(l))
	}
	return err
}

// mark is the ref that a commit has that is here whole.
func mark(commit string) string { return "refs/berth/" + commit }

// bring sees to it that a commit is in the mirror. Its lock is held.
func (r *repository) bring(ctx context.Context, w *wanted) (err error) {
	if err := r.mirror(ctx, len(w.commit)); err != nil {
		return err
	}
	if _, err := r.run(ctx, r.dir, nil, "rev-parse", "--verify", "--quiet", mark(w.commit)); err == nil {
		return r.remember()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	end := r.watch(cancel)
	defer end()
	tries := [][]string{{"--depth=1", "--no-tags", "--", r.remote, w.commit}, {"--no-tags", "--", r.remote, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"}}
	if w.name != "" && !w.ByCommit {
		tries = append([][]string{{"--depth=1", "--no-tags", "--", r.remote, w.name}}, tries...)
	}
	for k, args := range tries {
		if _, statErr := os.Stat(filepath.Join(r.dir, "shallow")); statErr == nil && k == len(tries)-1 {
			args = append([]string{"--unshallow"}, args...)
		}
		_, err = r.run(ctx, r.dir, nil, append([]string{"fetch", "--quiet", "--force", "--no-write-fetch-head"}, args...)...)
		if err != nil && !refused(err) {
			return err
		}
		if _, markErr := r.run(ctx, r.dir, nil, "update-ref", mark(w.commit), w.commit+"^{commit}"); err == nil && markErr == nil {
			return r.remember()
		} else if err == nil {
			err = fault.New(fault.NotFound, "commit %s is not in the repository %s any more", w.commit, r.remote)
		}
	}
	return err
}

// refused tells whether a server just doesn't do what was asked, but may do otherwise.
func refused(err error) bool {
	var f *failure
	if !errors.As(err, &f) {
		return false
	}
	for _, words := range []string{"shallow", "--depth", "not our ref", "unadvertised object", "couldn't find remote ref", "find remote ref", "does not allow request"} {
		if strings.Contains(f.words, words) {
			return true
		}
	}
	return false
}

// watch ends a fetch that brings more than the limit; end ends the watch.
func (r *repository) watch(cancel context.CancelCauseFunc) (end func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended) // whoever hears of it is not told any more when the fetch is over
		every := time.NewTicker(time.Second)
		defer every.Stop()
		for {
			select {
			case <-done:
				return
			case <-every.C:
			}
			size := sizeOf(filepath.Join(r.dir, "objects"))
			r.tell(Progress{Part: "fetch " + r.remote, Current: size})
			if size > r.s.Limit {
				cancel(fault.New(fault.Denied, "git fetch %s: the repository has more than %d bytes", r.remote, r.s.Limit))
				return
			}
		}
	}()
	return func() { close(done); <-ended; r.tell(Progress{Part: "fetch " + r.remote, Done: true}) }
}

// sizeOf sums up the files below dir, as far as they stay there.
func sizeOf(dir string) (sum int64) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	for _, e := range entries {
		if e.IsDir() {
			sum += sizeOf(filepath.Join(dir, e.Name()))
		} else if info, err := e.Info(); err == nil {
			sum += info.Size()
		}
	}
	return sum
}

// remember writes down that the mirror was used.
func (r *repository) remember() error {
	size := sizeOf(r.dir)
	if size > r.s.Limit {
		return errors.Join(fault.New(fault.Denied, "git fetch %s: the repository has more than %d bytes", r.remote, r.s.Limit), os.RemoveAll(r.dir))
	}
	k := &kept{}
	if err := record.Load(r.dir+".json", k); err != nil {
		*k = kept{}
	}
	k.From, k.Size = r.remote, size
	k.use()
	return record.Put(r.dir+".json", k)
}

// stranger is a client that is asked for what belongs to a named host only: what is for whatever host the builder names must not go where a
// repository's author would like to have it.
type stranger struct{ Client }

// Secret implements Client.
func (s stranger) Secret(ctx context.Context, id string) ([]byte, error) {
	if !strings.Contains(id, ".") {
		return nil, fault.New(fault.NotFound, "secret %s is not for submodules elsewhere", id)
	}
	return s.Client.Secret(ctx, id)
}

// sameHost tells whether two addresses are on one server, reached in one way.
func sameHost(a, b string) bool {
	x, errX := url.Parse(a)
	y, errY := url.Parse(b)
	return errX == nil && errY == nil && x.Scheme == y.Scheme && x.Host == y.Host
}

// relative is the address of a submodule, which may be seen from that of its repository, as gitmodules(5) has it.
func relative(remote, to string) string {
	if !strings.HasPrefix(to, "./") && !strings.HasPrefix(to, "../") {
		return to
	}
	base, sep := strings.TrimSuffix(remote, "/"), "/"
	for {
		if rest, ok := strings.CutPrefix(to, "./"); ok {
			to = rest
			continue
		}
		rest, ok := strings.CutPrefix(to, "../")
		if !ok {
			break
		}
		to = rest
		k := strings.LastIndexAny(base, "/:")
		if k < 0 || strings.HasSuffix(base[:k], ":/") || strings.HasSuffix(base[:k+1], "://") {
			continue // above the host there is nothing
		}
		sep = base[k : k+1]
		base = base[:k]
	}
	return base + sep + path.Clean(to)
}
