package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"berth/build/dockerfile"
	"berth/fault"
	"berth/kernel"
)

// Bounds on what one tree has.
const (
	maxFiles      = 2_000_000 // and submodules
	maxDepth      = 10        // of submodules in submodules
	maxSubmodules = 1000
)

// treeBudget is what is left of the bounds.
type treeBudget struct {
	bytes, files, modules int64
}

// give is Found.fetch.
func (r *repository) give(ctx context.Context, f *Found, w *wanted) error {
	to := filepath.Join(f.dir, "tree")
	if err := errors.Join(os.Mkdir(to, 0o755), r.s.give(to)); err != nil {
		return err
	}
	when, err := r.checkout(ctx, w, to, 0, &treeBudget{bytes: r.s.Limit, files: r.s.files, modules: maxSubmodules})
	if err != nil {
		return err
	}
	if w.Time != "commit" {
		when = time.Time{}
	}
	top, err := os.Open(to)
	if err != nil {
		return err
	}
	if err := errors.Join(settle(ctx, top, when), top.Close()); err != nil {
		return err
	}
	f.top, err = os.Open(to)
	return err
}

// checkout writes the files of a commit to a directory, with those of submodules, and gives the commit's time.
func (r *repository) checkout(ctx context.Context, w *wanted, to string, depth int, left *treeBudget) (when time.Time, err error) {
	if len(w.commit) != 40 {
		r.at(r.remote, len(w.commit))
	}
	links, when, err := r.files(ctx, w, to, left)
	if err != nil {
		return when, err
	}
	for _, l := range links {
		if depth == maxDepth {
			return when, fault.New(fault.Denied, "git repository %s: its submodules have more than %d levels", r.remote, maxDepth)
		}
		if left.modules--; left.modules < 0 {
			return when, fault.New(fault.Denied, "git repository %s: it has more than %d submodules", r.remote, maxSubmodules)
		}
		if err := r.submodule(ctx, l, to, depth+1, left); err != nil {
			return when, fmt.Errorf("submodule %s: %w", l.path, err)
		}
	}
	return when, nil
}

// gitlink is a place where another repository's commit belongs.
type gitlink struct {
	path   string
	commit string
	url    string
}

// files does what is to be done while the mirror is nobody else's. A mirror that turns out to be broken is made anew, once.
func (r *repository) files(ctx context.Context, w *wanted, to string, left *treeBudget) (links []gitlink, when time.Time, err error) {
	unlock, err := r.s.lock(ctx, r.id)
	if err != nil {
		return nil, when, err
	}
	defer unlock()
	defer func() { err = errors.Join(err, r.close()) }()
	_, statErr := os.Stat(r.dir)
	if err := r.bring(ctx, w); err != nil {
		return nil, when, err
	}
	before := *left
	links, when, err = r.write(ctx, w, to, left)
	var f *failure
	if !errors.As(err, &f) || statErr != nil {
		return links, when, err
	}
	*left = before
	if err := errors.Join(os.RemoveAll(r.dir), os.RemoveAll(to), os.Mkdir(to, 0o755), r.s.give(to)); err != nil {
		return nil, when, err
	}
	if err := r.bring(ctx, w); err != nil {
		return nil, when, err
	}
	return r.write(ctx, w, to, left)
}

// close keeps a mirror from everybody while git does not work in it.
func (r *repository) close() error {
	if r.s.user == nil {
		return nil
	}
	if err := os.Chown(r.dir, 0, 0); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// write writes the files of a commit that is in the mirror.
func (r *repository) write(ctx context.Context, w *wanted, to string, left *treeBudget) (links []gitlink, when time.Time, err error) {
	out, err := r.run(ctx, r.dir, nil, "log", "-1", "--format=%ct", w.commit)
	if err != nil {
		return nil, when, err
	}
	sec, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	if err != nil {
		return nil, when, fault.New(fault.Corrupt, "git repository %s: commit %s has no time", r.remote, w.commit)
	}
	when = time.Unix(sec, 0)
	what := w.commit
	if w.Dir != "" {
		what += ":" + w.Dir
		if kind, err := r.run(ctx, r.dir, nil, "cat-file", "-t", what); err != nil || strings.TrimSpace(string(kind)) != "tree" {
			return nil, when, fault.New(fault.NotFound, "git repository %s has no directory %q in commit %s", r.remote, w.Dir, w.commit)
		}
	}
	if links, err = r.list(ctx, what, left); err != nil {
		return nil, when, err
	}
	in := []string{"GIT_WORK_TREE=" + to, "GIT_DIR=" + r.dir, "GIT_INDEX_FILE=" + filepath.Join(r.home, "index-"+hash(to))}
	if w.keep() {
		if in, err = r.keepDir(ctx, w, to); err != nil {
			return nil, when, err
		}
	}
	if _, err := r.run(ctx, to, in, "read-tree", "--reset", "-u", what); err != nil {
		return nil, when, err
	}
	if !w.Submodules || len(links) == 0 {
		return nil, when, nil
	}
	return links, when, r.addresses(ctx, w, links)
}

// list looks at what a tree has before it is written: how much, and which other repositories.
func (r *repository) list(ctx context.Context, what string, left *treeBudget) (links []gitlink, err error) {
	l := &listing{left: left}
	if err := r.runTo(ctx, l, r.dir, nil, "ls-tree", "-r", "-l", "-z", "--full-tree", what); err != nil {
		return nil, err
	}
	return l.links, nil
}

// listing takes what ls-tree writes, "MODE KIND NAME SIZE\tPATH\0" each.
type listing struct {
	rest  []byte
	links []gitlink
	left  *treeBudget
}

// Write implements io.Writer.
func (l *listing) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		entry, rest, ok := bytes.Cut(l.rest, []byte{0})
		if !ok {
			return len(p), nil
		}
		l.rest = rest
		if err := l.entry(string(entry)); err != nil {
			return 0, err
		}
	}
}

func (l *listing) entry(s string) error {
	head, name, ok := strings.Cut(s, "\t")
	words := strings.Fields(head)
	if !ok || len(words) != 4 {
		return fault.New(fault.Corrupt, "an entry %q", s)
	}
	if l.left.files--; l.left.files < 0 {
		return fault.New(fault.Denied, "the repository has more files than are fetched")
	}
	if words[1] == "commit" {
		l.links = append(l.links, gitlink{path: name, commit: words[2]})
		return nil
	}
	n, err := strconv.ParseInt(words[3], 10, 64)
	if err != nil {
		return fault.New(fault.Corrupt, "%q has no size", name)
	}
	if l.left.bytes -= n; l.left.bytes < 0 {
		return fault.New(fault.Denied, "the repository has more bytes than are fetched")
	}
	return nil
}

// addresses looks up where submodules are. One that the repository says nothing of has none.
func (r *repository) addresses(ctx context.Context, w *wanted, links []gitlink) error {
	out, err := r.run(ctx, r.dir, nil, "config", "-z", "--blob", w.commit+":.gitmodules", "--get-regexp", `^submodule\..*\.(path|url)$`)
	if err != nil {
		return nil
	}
	paths, urls := map[string]string{}, map[string]string{}
	for entry := range strings.SplitSeq(string(out), "\x00") {
		key, value, _ := strings.Cut(entry, "\n")
		if name, ok := strings.CutSuffix(key, ".path"); ok {
			paths[path.Clean(value)] = name
		} else if name, ok := strings.CutSuffix(key, ".url"); ok {
			urls[name] = value
		}
	}
	for k, l := range links {
		if url := urls[paths[path.Join(w.Dir, l.path)]]; url != "" {
			links[k].url = relative(r.remote, url)
		}
	}
	return nil
}

// submodule writes another repository's files into a tree.
func (r *repository) submodule(ctx context.Context, l gitlink, top string, depth int, left *treeBudget) error {
	if l.url == "" {
		return nil
	}
	to, err := inside(top, l.path)
	if err != nil {
		return err
	}
	home, err := os.MkdirTemp(r.home, "submodule-")
	if err != nil {
		return err
	}
	client := r.client
	if !sameHost(l.url, r.remote) {
		client = stranger{client}
	}
	sub, err := r.s.repository(ctx, l.url, home, client, r.tell)
	if err != nil {
		return err
	}
	_, err = sub.checkout(ctx, &wanted{Git: dockerfile.Git{Remote: l.url, Submodules: true}, commit: l.commit}, to, depth, left)
	return err
}

// inside is the place of a submodule, a directory that is reached through directories only.
func inside(top, name string) (string, error) {
	root, err := os.OpenRoot(top)
	if err != nil {
		return "", err
	}
	defer root.Close()
	at := ""
	for part := range strings.SplitSeq(name, "/") {
		at = path.Join(at, part)
		info, err := root.Lstat(at)
		if err != nil {
			return "", err
		}
		if !info.IsDir() || part == ".." || part == ".git" {
			return "", fault.New(fault.Denied, "%q is no directory", at)
		}
	}
	return filepath.Join(top, name), nil
}

// keepDir makes a repository of its own of the tree, with the one commit; its environment is that of what follows.
func (r *repository) keepDir(ctx context.Context, w *wanted, to string) ([]string, error) {
	dir := filepath.Join(to, ".git")
	in := []string{"GIT_DIR=" + dir, "GIT_WORK_TREE=" + to}
	args := []string{"init", "--quiet", "--template="}
	if len(w.commit) == 64 {
		args = append(args, "--object-format=sha256")
	}
	ref := mark(w.commit) // where the commit is to be called
	if strings.HasPrefix(w.name, "refs/") {
		ref = w.name
	}
	local := append([]string{"GIT_ALLOW_PROTOCOL=file"}, in...)
	for _, call := range []struct {
		env  []string
		args []string
	}{
		{in, args},
		{local, []string{"fetch", "--quiet", "--depth=1", "--no-tags", "--no-write-fetch-head", "--", "file://" + r.dir, mark(w.commit) + ":" + ref}},
		{in, []string{"update-ref", "--no-deref", "HEAD", w.commit}},
		{in, []string{"remote", "add", "origin", r.remote}},
	} {
		if _, err := r.run(ctx, to, call.env, call.args...); err != nil {
			return nil, err
		}
	}
	return in, nil
}

// The kinds of files in a mode (inode(7)).
const (
	kindMask    = 0o170000
	kindDir     = 0o040000
	kindSymlink = 0o120000
)

// settle gives a tree to root, with the modes that it has wherever it is fetched; and a time, unless when is zero.
func settle(ctx context.Context, dir *os.File, when time.Time) error {
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return fault.Wrap(fault.Canceled, err)
		}
		st, err := kernel.StatIn(dir, name)
		if err != nil {
			return err
		}
		if st.Mode&kindMask == kindDir {
			below, err := kernel.OpenIn(dir, name, kernel.ODirectory|kernel.ONoFollow, 0, 0)
			if err != nil {
				return err
			}
			if err := errors.Join(settle(ctx, below, when), below.Close()); err != nil {
				return err
			}
			continue
		}
		if os.Geteuid() == 0 {
			if err := kernel.ChownIn(dir, name, 0, 0); err != nil {
				return err
			}
		}
		mode := uint32(0o644)
		if st.Mode&0o100 != 0 {
			mode = 0o755
		}
		if st.Mode&kindMask != kindSymlink && st.Mode&0o7777 != mode {
			if err := kernel.ChmodIn(dir, name, mode); err != nil {
				return err
			}
		}
		if !when.IsZero() {
			if err := kernel.TimesIn(dir, name, when, when); err != nil {
				return err
			}
		}
	}
	if os.Geteuid() == 0 {
		if err := kernel.Chown(dir, 0, 0); err != nil {
			return err
		}
	}
	if err := kernel.Chmod(dir, 0o755); err != nil || when.IsZero() {
		return err
	}
	return kernel.Times(dir, when, when)
}
