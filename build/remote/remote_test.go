package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"berth/archive"
	"berth/build/dockerfile"
	"berth/fault"
	"berth/internal/kerneltest"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

// secrets is a Client that has them and no agent.
type secrets map[string]string

func (s secrets) Secret(_ context.Context, id string) ([]byte, error) {
	if v, ok := s[id]; ok {
		return []byte(v), nil
	}
	return nil, fault.New(fault.NotFound, "no secret %s", id)
}

func (s secrets) Agent(context.Context, string) (io.ReadWriteCloser, error) {
	return nil, fault.New(fault.NotFound, "no agent")
}

func open(t *testing.T) *Store {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil { // as a data root is
		t.Fatal(err)
	}
	s, err := Open(filepath.Join(dir, "remote"), slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// bring finds and fetches, and gives what was found; it is closed with the test.
func bring(t *testing.T, s *Store, from dockerfile.Source, c Client) (*Found, *os.File, error) {
	t.Helper()
	f, err := s.Find(t.Context(), &from, c, nil)
	if err != nil {
		return nil, nil, err
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	top, err := f.Fetch(t.Context())
	return f, top, err
}

func read(t *testing.T, top *os.File, name string) string {
	t.Helper()
	text, err := archive.ReadFile(top, name, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// site is a server of one file, of which everything can be said.
type site struct {
	*httptest.Server
	text      string
	etag      string
	asked     atomic.Int32
	sent      atomic.Int32 // whole answers
	breakOnce atomic.Bool
	handle    func(w http.ResponseWriter, r *http.Request) bool
}

func newSite(t *testing.T, text string) *site {
	s := &site{text: text, etag: `"1"`}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.asked.Add(1)
	if s.handle != nil && s.handle(w, r) {
		return
	}
	w.Header().Set("ETag", s.etag)
	if s.breakOnce.CompareAndSwap(true, false) {
		w.Header().Set("Content-Length", fmt.Sprint(len(s.text)))
		_, _ = io.WriteString(w, s.text[:len(s.text)/2])
		panic(http.ErrAbortHandler)
	}
	if r.Header.Get("If-None-Match") != s.etag {
		s.sent.Add(1)
	}
	http.ServeContent(w, r, "", time.Unix(1e9, 0), strings.NewReader(s.text))
}

func TestAddressIsAskedOnceWhenNothingChanged(t *testing.T) {
	web, s := newSite(t, "hello"), open(t)
	from := dockerfile.Source{URL: web.URL + "/dir/file.txt?x=1"}
	first, top, err := bring(t, s, from, secrets{})
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(top.Name(), "file.txt"))
	if err != nil || info.Mode() != 0o600 || info.ModTime().Unix() != 1e9 {
		t.Errorf("got %v %v, want mode 0600 of 1e9", info, err)
	}
	again, _, err := bring(t, s, from, secrets{})
	if err != nil || again.Key != first.Key || web.asked.Load() != 2 || web.sent.Load() != 1 {
		t.Errorf("again: %v, %d requests, %d answers; want 2 and 1", err, web.asked.Load(), web.sent.Load())
	}
	web.text, web.etag = "changed", `"2"`
	changed, newTop, err := bring(t, s, from, secrets{})
	if err != nil || changed.Key == first.Key || read(t, newTop, "file.txt") != "changed" || read(t, top, "file.txt") != "hello" {
		t.Errorf("a changed file: %v, key %q", err, changed.Key)
	}
	if all := s.Entries(); len(all) != 1 || all[0].Size != 7 {
		t.Errorf("entries %v", all)
	} else if err := s.Remove([]string{all[0].ID, "http/../..", "x/y"}); err != nil || len(s.Entries()) != 0 {
		t.Errorf("remove: %v, left %v", err, s.Entries())
	}
	if read(t, newTop, "file.txt") != "changed" {
		t.Error("a removed copy is gone for who has it")
	}
}

func TestNames(t *testing.T) {
	web, s := newSite(t, "x"), open(t)
	web.handle = func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Disposition", r.URL.Query().Get("cd"))
		return false
	}
	for _, c := range []struct{ path, as, want string }{
		{"/a/b.tar", "", "b.tar"},
		{"/a/b.tar", "context", "context"},
		{"/", "", "__unnamed__"},
		{"/?cd=attachment;filename=%22../../n%22", "", "n"},
		{"/?cd=attachment;filename=..", "", "__unnamed__"},
		{"/a/..", "", "__unnamed__"},
		{"/a%2Fb%00", "", "__unnamed__"},
	} {
		f, _, err := bring(t, s, dockerfile.Source{URL: web.URL + strings.ReplaceAll(c.path, ";", "%3B"), As: c.as}, secrets{})
		if err != nil || f.Name != c.want {
			t.Errorf("%s: %v, %v; want %s", c.path, f, err, c.want)
		}
	}
}

func TestBrokenDownloadGoesOn(t *testing.T) {
	web, s := newSite(t, strings.Repeat("0123456789", 100_000)), open(t)
	web.breakOnce.Store(true)
	_, top, err := bring(t, s, dockerfile.Source{URL: web.URL + "/f"}, secrets{})
	if err != nil {
		t.Fatal(err)
	}
	if read(t, top, "f") != web.text || web.asked.Load() != 2 {
		t.Errorf("%d requests, or another content", web.asked.Load())
	}
}

func TestChecksum(t *testing.T) {
	web, s := newSite(t, "hello"), open(t)
	const good = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
	f, err := s.Find(t.Context(), &dockerfile.Source{URL: web.URL + "/f", Checksum: good}, secrets{}, nil)
	if err != nil || web.asked.Load() != 0 {
		t.Fatalf("a known checksum: %v, %d requests", err, web.asked.Load())
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	for range 2 {
		if _, _, err := bring(t, s, dockerfile.Source{URL: web.URL + "/f", Checksum: good}, secrets{}); err != nil || web.asked.Load() != 1 {
			t.Errorf("%v, %d requests", err, web.asked.Load())
		}
	}
	bad := strings.Replace(good, "2cf", "2cd", 1)
	_, _, err = bring(t, s, dockerfile.Source{URL: web.URL + "/f", Checksum: bad}, secrets{})
	if want := "digest mismatch for " + web.URL + "/f: " + good + " (expected: " + bad + ")"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestSecretsOfServers(t *testing.T) {
	web, s := newSite(t, "hello"), open(t)
	var got []string
	web.handle = func(w http.ResponseWriter, r *http.Request) bool {
		got = append(got, r.Header.Get("Authorization"))
		if r.URL.Path == "/denied" {
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		return false
	}
	for _, c := range []struct {
		c    secrets
		user string
		want string
	}{
		{secrets{"HTTP_AUTH_TOKEN_127.0.0.1": "abc\n"}, "", "Bearer abc"},
		{secrets{"HTTP_AUTH_HEADER_127.0.0.1": "Basic xyz"}, "", "Basic xyz"},
		{secrets{"HTTP_AUTH_TOKEN_other": "abc"}, "", ""},
		{secrets{}, "me:pw@", "Basic bWU6cHc="},
	} {
		got = nil
		_, _, err := bring(t, s, dockerfile.Source{URL: strings.Replace(web.URL, "://", "://"+c.user, 1) + "/f"}, c.c)
		if err != nil || len(got) != 1 || got[0] != c.want {
			t.Errorf("%v: sent %q, %v", c, got, err)
		}
	}
	_, _, err := bring(t, s, dockerfile.Source{URL: strings.Replace(web.URL, "://", "://me:hidden@", 1) + "/denied"}, secrets{})
	if !errors.Is(err, fault.Denied) || strings.Contains(err.Error(), "hidden") {
		t.Errorf("%v", err)
	}
	err = filepath.WalkDir(s.dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if text, _ := os.ReadFile(p); bytes.Contains(text, []byte("hidden")) || bytes.Contains(text, []byte("abc")) || bytes.Contains(text, []byte("bWU6cHc")) {
				t.Errorf("%s has a secret", p)
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestServersThatHurt(t *testing.T) {
	web, s := newSite(t, strings.Repeat("x", 5000)), open(t)
	s.Limit = 4000
	web.handle = func(w http.ResponseWriter, r *http.Request) bool {
		switch r.URL.Path {
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case "/gone":
			w.WriteHeader(http.StatusNotFound)
		case "/endless":
			for { // without a length
				if _, err := io.WriteString(w, strings.Repeat("x", 1000)); err != nil {
					return true
				}
			}
		default:
			return false
		}
		return true
	}
	for path, want := range map[string]string{"/loop": "more than 10 redirects", "/gone": "404 Not Found", "/endless": "more than 4000 bytes", "/big": "more than 4000 bytes"} {
		_, _, err := bring(t, s, dockerfile.Source{URL: web.URL + path}, secrets{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
	}
	for _, bad := range []string{"http:///x", "ftp://host/x", "http://%zz/"} {
		if _, _, err := bring(t, s, dockerfile.Source{URL: bad}, secrets{}); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	left, err := filepath.Glob(filepath.Join(s.dir, "http", "*", "content-*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// forge serves the repositories in a directory, by git's own program or as plain files.
type forge struct {
	*httptest.Server
	dir   string
	auth  string // that is wanted
	asked atomic.Int32
}

func newForge(t *testing.T, dumb bool) *forge {
	t.Helper()
	f := &forge{dir: t.TempDir()}
	var h http.Handler = &cgi.Handler{Path: gitCore(t), Env: []string{"GIT_PROJECT_ROOT=" + f.dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}, InheritEnv: []string{"PATH"}, Logger: nil}
	if dumb {
		h = http.FileServer(http.Dir(f.dir))
	}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.asked.Add(1)
		if f.auth != "" && r.Header.Get("Authorization") != f.auth {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if p := r.Header.Get("Git-Protocol"); p != "" {
			r.Header.Set("Git-Protocol", p)
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(f.Close)
	return f
}

func gitCore(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Skip("git is not installed")
	}
	return filepath.Join(strings.TrimSpace(string(out)), "git-http-backend")
}

// do runs git in the repository called name, made when it is missing.
func (f *forge) do(t *testing.T, name, script string) string {
	t.Helper()
	dir := filepath.Join(f.dir, name)
	if _, err := os.Stat(dir); err != nil {
		script = "git init -q -b main .\n" + script
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("sh", "-ec", script+"\ngit update-server-info")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+f.dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b",
		"GIT_AUTHOR_DATE=1000000000 +0000", "GIT_COMMITTER_DATE=1000000000 +0000")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (f *forge) git(t *testing.T, address string) dockerfile.Source {
	t.Helper()
	g, is, err := dockerfile.ParseGit(f.URL + "/" + address)
	if err != nil || !is {
		t.Fatalf("%s: %v", address, err)
	}
	return dockerfile.Source{Git: &g}
}

const project = `echo one >a; mkdir -p sub/deep; echo deep >sub/deep/b; echo '#!/bin/sh' >run; chmod 755 run; ln -s a link; ln -s /etc/passwd out
git add .; git commit -qm one; git tag light; echo two >a; git commit -qam two; git tag -am note noted; git checkout -q -b side; echo side >a; git commit -qam side; git checkout -q main`

func TestRefs(t *testing.T) {
	for _, dumb := range []bool{false, true} {
		forge, s := newForge(t, dumb), open(t)
		forge.do(t, "p.git", project)
		path := "p.git"
		if dumb {
			path = "p.git/.git" // what a web server of files shows
		}
		two := forge.do(t, "p.git", "git rev-parse HEAD")
		one := forge.do(t, "p.git", "git rev-parse light")
		for _, c := range []struct{ ref, want string }{
			{"", "two"}, {"#light", "one"}, {"#noted", "two"}, {"#side", "side"}, {"#refs/heads/side", "side"}, {"?branch=side", "side"}, {"?tag=noted", "two"}, {"?ref=" + two + "&checksum=" + two[:7], "two"},
			{"#" + one, "one"}, {"?checksum=" + one + "&fetch-by-commit=1", "one"}, {"?tag=noted&checksum=" + two[:10], "two"},
		} {
			f, top, err := bring(t, s, forge.git(t, path+c.ref), secrets{})
			if err != nil {
				t.Errorf("dumb %v %q: %v", dumb, c.ref, err)
				continue
			}
			if got := strings.TrimSpace(read(t, top, "a")); got != c.want || f.Name != "" {
				t.Errorf("dumb %v %q: got %q, want %q", dumb, c.ref, got, c.want)
			}
		}
		for ref, want := range map[string]string{
			"#nosuch": "does not contain ref nosuch", "?checksum=abcd": "expected checksum to match abcd, got ", "?checksum=xyz": "expected hex commit hash",
			"?fetch-by-commit=1": "requires a full commit SHA", "#:nosuch": `no directory "nosuch"`, "#:a": `no directory "a"`, "#:link": `no directory "link"`, "#" + strings.Repeat("0", 40): "git ",
		} {
			if _, _, err := bring(t, s, forge.git(t, path+ref), secrets{}); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("dumb %v %q: %v, want %s", dumb, ref, err, want)
			}
		}
	}
}

func TestTree(t *testing.T) {
	forge, s := newForge(t, false), open(t)
	forge.do(t, "p.git", project)
	_, top, err := bring(t, s, forge.git(t, "p.git?mtime=commit"), secrets{})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a": "-rw-r--r--", "run": "-rwxr-xr-x", "sub": "drwxr-xr-x", "link": "Lrwxrwxrwx", "out": "Lrwxrwxrwx", ".": "drwxr-xr-x"} {
		info, err := os.Lstat(filepath.Join(top.Name(), name))
		if err != nil || info.Mode().String() != want || info.ModTime().Unix() != 1e9 {
			t.Errorf("%s: %v %v, want %s of 1e9", name, info, err, want)
		}
	}
	if _, err := os.Lstat(filepath.Join(top.Name(), ".git")); err == nil {
		t.Error(".git is there")
	}
	_, top, err = bring(t, s, forge.git(t, "p.git#:sub/deep"), secrets{})
	if err != nil || read(t, top, "b") != "deep\n" {
		t.Errorf("a directory of it: %v", err)
	}
	_, top, err = bring(t, s, forge.git(t, "p.git?keep-git-dir=1&branch=side"), secrets{})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-ec", "git status --porcelain; git rev-list --count side; git config remote.origin.url; git rev-parse HEAD side")
	cmd.Dir = top.Name()
	cmd.Env = append(os.Environ(), "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*")
	out, err := cmd.CombinedOutput()
	words := strings.Fields(string(out))
	if err != nil || len(words) != 4 || words[0] != "1" || words[1] != forge.URL+"/p.git" || words[2] != words[3] {
		t.Errorf("kept .git: %v %s", err, out)
	}
}

func TestUnchangedRepositoryIsAskedForItsRefOnly(t *testing.T) {
	forge, s := newForge(t, false), open(t)
	forge.do(t, "p.git", project)
	first, _, err := bring(t, s, forge.git(t, "p.git"), secrets{})
	if err != nil {
		t.Fatal(err)
	}
	before := forge.asked.Load()
	again, _, err := bring(t, s, forge.git(t, "p.git"), secrets{})
	if err != nil || again.Key != first.Key || forge.asked.Load()-before != 2 { // what the server can do, and its refs
		t.Errorf("%v: %d requests", err, forge.asked.Load()-before)
	}
	forge.do(t, "p.git", "echo three >a; git commit -qam three")
	changed, top, err := bring(t, s, forge.git(t, "p.git"), secrets{})
	if err != nil || changed.Key == first.Key || read(t, top, "a") != "three\n" {
		t.Errorf("a new commit: %v", err)
	}
	all := s.Entries()
	if len(all) != 1 || all[0].Size == 0 || !strings.Contains(all[0].From, "/p.git") {
		t.Errorf("entries %v", all)
	}
	if err := s.Remove([]string{all[0].ID}); err != nil || len(s.Entries()) != 0 {
		t.Error(err)
	}
	if _, _, err := bring(t, s, forge.git(t, "p.git"), secrets{}); err != nil {
		t.Errorf("after its mirror is gone: %v", err)
	}
}

func TestBrokenMirrorIsMadeAnew(t *testing.T) {
	forge, s := newForge(t, false), open(t)
	forge.do(t, "p.git", project)
	if _, _, err := bring(t, s, forge.git(t, "p.git"), secrets{}); err != nil {
		t.Fatal(err)
	}
	packs, err := filepath.Glob(filepath.Join(s.dir, "git", "*", "objects", "*", "*"))
	if err != nil || len(packs) == 0 {
		t.Fatal(packs, err)
	}
	for _, p := range packs {
		if err := os.Truncate(p, 0); err != nil {
			t.Fatal(err)
		}
	}
	locks, err := filepath.Glob(filepath.Join(s.dir, "git", "*", "shallow"))
	if err != nil || len(locks) != 1 || os.WriteFile(locks[0]+".lock", nil, 0o600) != nil {
		t.Fatal(locks, err)
	}
	if _, top, err := bring(t, s, forge.git(t, "p.git"), secrets{}); err != nil || read(t, top, "a") != "two\n" {
		t.Error(err)
	}
}

func TestSubmodules(t *testing.T) {
	forge, s := newForge(t, false), open(t)
	forge.do(t, "inner.git", "echo in >in; git add .; git commit -qm x")
	add := func(path, url string) string {
		return fmt.Sprintf("git -c protocol.file.allow=always submodule add -q %s %s; git config -f .gitmodules submodule.%s.url %s; git add .gitmodules; ", forge.dir+"/inner.git", path, path, url)
	}
	forge.do(t, "mid.git", add("i", "../inner.git")+"git commit -qm x")
	forge.do(t, "top.git", "mkdir d; echo d >d/d; "+strings.ReplaceAll(add("d/m", forge.URL+"/mid.git"), "inner.git", "mid.git")+"git add .; git commit -qm x")
	_, top, err := bring(t, s, forge.git(t, "top.git"), secrets{})
	if err != nil || read(t, top, "d/m/i/in") != "in\n" {
		t.Errorf("%v", err)
	}
	_, top, err = bring(t, s, forge.git(t, "top.git#:d"), secrets{})
	if err != nil || read(t, top, "m/i/in") != "in\n" {
		t.Errorf("below a directory: %v", err)
	}
	_, top, err = bring(t, s, forge.git(t, "top.git?submodules=0"), secrets{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(top.Name(), "d/m/i")); err == nil {
		t.Error("submodules are there")
	}
	for _, url := range []string{"/etc", "file:///etc", "ext::sh -c touch% /tmp/x", "--upload-pack=touch", "ssh://-oProxyCommand=x/y", "-u@h:x"} {
		name := "bad" + hash(url)[:8] + ".git"
		forge.do(t, name, add("i", "'"+url+"'")+"git commit -qm x")
		if _, _, err := bring(t, s, forge.git(t, name), secrets{}); err == nil || !strings.Contains(err.Error(), "submodule i") {
			t.Errorf("%s: %v", url, err)
		}
	}
	// One that has itself, which only ends as it goes too deep: its commit can't be in itself, so another's is.
	forge.do(t, "inner.git", "echo '[submodule \"s\"]\npath = s\nurl = ../inner.git' >.gitmodules; git add .gitmodules; git update-index --add --cacheinfo 160000,$(git rev-parse HEAD),s; git commit -qm x")
	if _, top, err := bring(t, s, forge.git(t, "inner.git"), secrets{}); err != nil || read(t, top, "s/in") != "in\n" {
		t.Errorf("its own older commit: %v", err)
	}
}

func TestRepositoriesThatHurt(t *testing.T) {
	forge, s := newForge(t, false), open(t)
	// A file behind a symbolic link of the same name: trees that git itself would not make.
	forge.do(t, "links.git", `echo x >x; git add .; git commit -qm x
blob=$(printf /tmp | git hash-object -w --stdin); x=$(git rev-parse HEAD:x)
tree=$(printf '100644 blob %s\tx\n' $x | git mktree)
two=$(printf '120000 blob %s\ta\n040000 tree %s\ta\n' $blob $tree | git mktree)
git update-ref refs/heads/main $(git commit-tree -m y $two)`)
	if _, top, err := bring(t, s, forge.git(t, "links.git"), secrets{}); err == nil {
		if info, err := os.Lstat(filepath.Join(top.Name(), "a")); err == nil && info.Mode()&os.ModeSymlink != 0 {
			if _, err := os.Stat("/tmp/x"); err == nil {
				t.Error("a file was written outside of the tree")
			}
		}
	}
	// A directory called .git, with a hook and a configuration of its own.
	forge.do(t, "dotgit.git", `mkdir h; echo 'touch hooked' >h/post-checkout; chmod 755 h/post-checkout; git add .; git commit -qm x; tree=$(git rev-parse HEAD^{tree})
two=$(printf '040000 tree %s\t.git\n' $tree | git mktree); git update-ref refs/heads/main $(git commit-tree -m y $two)`)
	if _, _, err := bring(t, s, forge.git(t, "dotgit.git"), secrets{}); err == nil {
		t.Error("a tree with .git was taken")
	}
	// A few objects that are a million files.
	forge.do(t, "bomb.git", `tree=$(printf '100644 blob %s\tf\n' $(echo x | git hash-object -w --stdin) | git mktree)
for level in 1 2 3 4 5 6 7; do tree=$(for k in 0 1 2 3 4 5 6 7 8 9; do printf '040000 tree %s\t%s\n' $tree $k; done | git mktree); done
git update-ref refs/heads/main $(git commit-tree -m y $tree)`)
	s.files = 1000
	if _, _, err := bring(t, s, forge.git(t, "bomb.git"), secrets{}); !errors.Is(err, fault.Denied) {
		t.Errorf("a bomb: %v", err)
	}
	s.Limit = 100_000
	forge.do(t, "zeros.git", "truncate -s 10M z; git add .; git commit -qm x")
	if _, _, err := bring(t, s, forge.git(t, "zeros.git"), secrets{}); !errors.Is(err, fault.Denied) {
		t.Errorf("a file that is too big: %v", err)
	}
	forge.do(t, "random.git", "head -c 1M /dev/urandom >z; git add .; git commit -qm x")
	if _, _, err := bring(t, s, forge.git(t, "random.git"), secrets{}); !errors.Is(err, fault.Denied) {
		t.Errorf("a repository that is too big: %v", err)
	}
}

func TestGitSecrets(t *testing.T) {
	forge, s := newForge(t, false), open(t)
	forge.do(t, "p.git", project)
	host := strings.TrimPrefix(forge.URL, "http://")
	for _, c := range []struct {
		want string
		c    secrets
		user string
	}{
		{"basic eC1hY2Nlc3MtdG9rZW46c2VzYW1l", secrets{"GIT_AUTH_TOKEN": "sesame\n"}, ""},
		{"basic eC1hY2Nlc3MtdG9rZW46c2VzYW1l", secrets{"GIT_AUTH_TOKEN." + host: "sesame", "GIT_AUTH_TOKEN": "other"}, ""},
		{"Bearer sesame", secrets{"GIT_AUTH_HEADER": "Bearer sesame"}, ""},
		{"Basic bWU6c2VzYW1l", secrets{}, "me:sesame@"},
	} {
		forge.auth = c.want
		from := forge.git(t, "p.git")
		from.Git.Remote = strings.Replace(from.Git.Remote, "://", "://"+c.user, 1)
		if _, _, err := bring(t, s, from, c.c); err != nil {
			t.Errorf("%v: %v", c, err)
		}
	}
	forge.auth = "nobody knows"
	if _, _, err := bring(t, s, forge.git(t, "p.git"), secrets{"GIT_AUTH_TOKEN": "sesame"}); err == nil || strings.Contains(err.Error(), "sesame") {
		t.Errorf("a wrong token: %v", err)
	}
	out, err := exec.Command("grep", "-rl", "sesame\\|c2VzYW1l", s.dir).CombinedOutput()
	if err == nil || len(out) > 0 {
		t.Errorf("a secret is in %s", out)
	}
}

// TestTokensStayWithTheirServer has a submodule on another server, which wants to see what the builder's is.
func TestTokensStayWithTheirServer(t *testing.T) {
	forge, other, s := newForge(t, false), newForge(t, false), open(t)
	other.do(t, "inner.git", "echo in >in; git add .; git commit -qm x")
	forge.do(t, "top.git", fmt.Sprintf("git -c protocol.file.allow=always submodule add -q %s i; git config -f .gitmodules submodule.i.url %s; git add .; git commit -qm x", other.dir+"/inner.git", other.URL+"/inner.git"))
	forge.auth = "Bearer sesame"
	var seen sync.Map
	other.Config.Handler = keeping(other.Config.Handler, &seen)
	if _, _, err := bring(t, s, forge.git(t, "top.git"), secrets{"GIT_AUTH_HEADER": "Bearer sesame"}); err != nil {
		t.Error(err)
	}
	if _, ok := seen.Load("Bearer sesame"); ok {
		t.Error("the token went to a submodule's server")
	}
	if _, ok := seen.Load(""); !ok {
		t.Error("the submodule's server was never asked")
	}
	host := strings.TrimPrefix(other.URL, "http://")
	other.auth = "Bearer mine"
	if _, _, err := bring(t, open(t), forge.git(t, "top.git"), secrets{"GIT_AUTH_HEADER": "Bearer sesame", "GIT_AUTH_HEADER." + host: "Bearer mine"}); err != nil {
		t.Errorf("with a token of its own: %v", err)
	}
}

// keeping notes what requests are authorized by.
func keeping(h http.Handler, seen *sync.Map) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen.Store(r.Header.Get("Authorization"), true)
		h.ServeHTTP(w, r)
	})
}

func TestCanceledFetchLeavesNothing(t *testing.T) {
	hang := make(chan struct{})
	asked := make(chan struct{}, 10)
	web := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked <- struct{}{}; <-hang }))
	defer web.Close()
	defer close(hang)
	s := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := s.Find(ctx, &dockerfile.Source{Git: &dockerfile.Git{Remote: web.URL + "/p.git"}}, secrets{}, nil)
		ended <- err
	}()
	<-asked
	cancel()
	if err := <-ended; !errors.Is(err, fault.Canceled) {
		t.Errorf("%v, want canceled", err)
	}
	left, err := os.ReadDir(filepath.Join(s.dir, "use"))
	if err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
	for deadline := time.Now().Add(time.Minute); ; {
		running := ""
		lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range lines {
			if line, err := os.ReadFile(name); err == nil && bytes.Contains(line, []byte(web.URL)) {
				running = string(line)
			}
		}
		if running == "" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("git still runs: %q", running)
		}
		_ = exec.Command("sleep", "0.05").Run()
	}
}

func TestRelativeAddresses(t *testing.T) {
	for _, c := range [][3]string{
		{"https://h/a/b.git", "../c.git", "https://h/a/c.git"}, {"https://h/a/b.git/", "./c", "https://h/a/b.git/c"}, {"https://h/b.git", "../../../c", "https://h/c"},
		{"git@h:a/b", "../c", "git@h:a/c"}, {"git@h:b", "../c", "git@h:c"}, {"https://h/a", "ssh://x/y", "ssh://x/y"}, {"https://h/a/b", "../x/../y", "https://h/a/y"},
	} {
		if got := relative(c[0], c[1]); got != c[2] {
			t.Errorf("relative(%q, %q) = %q, want %q", c[0], c[1], got, c[2])
		}
	}
}

func FuzzAddress(f *testing.F) {
	for _, s := range []string{"https://u:p@h/x.git", "git@h:x", "ssh://u@h:22/x", "-u@h:x", "ext::sh", "http://-h/", "git://h/%0a", "https://h\n/x"} {
		f.Add(s, "../y")
	}
	f.Fuzz(func(t *testing.T, address, to string) {
		bare, _, err := split(address)
		if err != nil {
			return
		}
		if strings.HasPrefix(bare, "-") || strings.ContainsAny(bare, "\n\x00") || strings.HasPrefix(bare, "file:") || strings.HasPrefix(bare, "ext:") {
			t.Errorf("%q became %q", address, bare)
		}
		if again, secret, err := split(bare); err != nil || again != bare || secret != "" {
			t.Errorf("%q is no address that stays: %q, %v", bare, again, err)
		}
		relative(bare, to)
	})
}

// agents is a Client that has an ssh agent.
type agents struct {
	secrets
	socket string
}

func (a agents) Agent(context.Context, string) (io.ReadWriteCloser, error) {
	return net.Dial("unix", a.socket)
}

// TestAgent fetches by a program that is called as ssh is: it asks the agent for its keys, and serves the repository itself.
func TestAgent(t *testing.T) {
	for _, name := range []string{"ssh-agent", "ssh-keygen", "ssh-add", "git"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip(name, " is not installed")
		}
	}
	forge, s := newForge(t, false), open(t)
	forge.do(t, "p.git", project)
	dir := t.TempDir()
	agent := exec.Command("ssh-agent", "-D", "-a", filepath.Join(dir, "agent"))
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = agent.Process.Kill()
		_ = agent.Wait()
	}()
	script := `until [ -S agent ]; do sleep 0.05; done; ssh-keygen -q -t ed25519 -N "" -C of-the-client -f key; SSH_AUTH_SOCK=$PWD/agent ssh-add -q key`
	setup := exec.Command("sh", "-ec", script)
	setup.Dir = dir
	if out, err := setup.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	bin := t.TempDir()
	fake := "#!/bin/sh\nssh-add -l | grep -q of-the-client || { echo no key >&2; exit 1; }\nfor last; do :; done\nGIT_CONFIG_GLOBAL=" + bin + "/config eval \"$last\"\n"
	if err := errors.Join(os.WriteFile(filepath.Join(bin, "ssh"), []byte(fake), 0o755), os.WriteFile(filepath.Join(bin, "config"), []byte("[safe]\ndirectory = *\n"), 0o644), os.Chmod(forge.dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	for _, address := range []string{"git@host:" + forge.dir + "/p.git", "ssh://git@host" + forge.dir + "/p.git"} {
		g, _, err := dockerfile.ParseGit(address)
		if err != nil {
			t.Fatal(err)
		}
		_, top, err := bring(t, s, dockerfile.Source{Git: &g}, agents{socket: filepath.Join(dir, "agent")})
		if err != nil || read(t, top, "a") != "two\n" {
			t.Errorf("%s: %v", address, err)
		}
		if _, _, err := bring(t, s, dockerfile.Source{Git: &g}, secrets{}); err == nil || !strings.Contains(err.Error(), "--ssh default") {
			t.Errorf("%s without an agent: %v", address, err)
		}
	}
}

// TestGitHasNoPower looks whom git runs as: a user that owns nothing, and no mirror either when it is done.
func TestGitHasNoPower(t *testing.T) {
	kerneltest.Root(t)
	forge, s := newForge(t, false), open(t)
	forge.do(t, "p.git", project)
	if s.user == nil || s.user.uid != nobody {
		t.Fatalf("git runs as %v", s.user)
	}
	bin := t.TempDir()
	real, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	fake := "#!/bin/sh\n[ $(id -u) = 65534 ] && [ $(id -G) = 65534 ] && [ $$ = 1 ] || exit 1\n! grep -q 'CapEff:.*[1-9a-f]' /proc/self/status || exit 1\nexec " + real + " \"$@\"\n"
	if err := os.WriteFile(filepath.Join(bin, "git"), []byte(fake), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	_, top, err := bring(t, s, forge.git(t, "p.git"), secrets{})
	if err != nil {
		t.Fatal(err)
	}
	mirrors, err := filepath.Glob(filepath.Join(s.dir, "git", "*", "HEAD"))
	if err != nil || len(mirrors) != 1 {
		t.Fatal(mirrors, err)
	}
	for _, name := range []string{filepath.Dir(mirrors[0]), filepath.Join(top.Name(), "a"), filepath.Join(top.Name(), "link"), top.Name()} {
		info, err := os.Lstat(name)
		if err != nil {
			t.Fatal(err)
		}
		if st := info.Sys().(*syscall.Stat_t); st.Uid != 0 || st.Gid != 0 {
			t.Errorf("%s belongs to %d:%d", name, st.Uid, st.Gid)
		}
	}
}
