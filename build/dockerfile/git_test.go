package dockerfile

import (
	"strings"
	"testing"
)

func TestGitAddresses(t *testing.T) {
	for address, want := range map[string]Git{
		"https://h/p.git":                      {Remote: "https://h/p.git"},
		"https://h/p.git#v1:sub/dir":           {Remote: "https://h/p.git", Ref: "v1", Dir: "sub/dir"},
		"https://h/p.git#:../../etc":           {Remote: "https://h/p.git", Dir: "etc"},
		"git@h:p#main":                         {Remote: "git@h:p", Ref: "main"},
		"ssh://git@h:22/p?branch=x&subdir=d":   {Remote: "ssh://git@h:22/p", Ref: "refs/heads/x", Dir: "d"},
		"https://h/p.git?tag=v1&checksum=abcd": {Remote: "https://h/p.git", Ref: "refs/tags/v1", Checksum: "abcd"},
		"https://h/p.git?mtime=commit":         {Remote: "https://h/p.git", Time: "commit"},
	} {
		got, is, err := ParseGit(address)
		if want.Submodules = true; err != nil || !is || got != want {
			t.Errorf("%s: %+v, %v, %v", address, got, is, err)
		}
	}
	for address, want := range map[string]string{
		"https://h/p.git?tag=a&branch=b": "two refs", "https://h/p.git?mtime=now": "invalid mtime", "https://h/p.git?x=1": "unexpected query", "https://h/p.git#--upload-pack=x": "begins with a dash",
		"https://h/p.git?submodules=maybe": "invalid submodules",
	} {
		if _, is, err := ParseGit(address); !is || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v, want %s", address, is, err, want)
		}
	}
	for _, address := range []string{"https://h/p.tar.gz", "./p.git", "/p.git", "file:///p.git", "ext::sh -c x"} {
		if _, is, _ := ParseGit(address); is {
			t.Errorf("%s is taken for a repository", address)
		}
	}
}

func FuzzGit(f *testing.F) {
	f.Add("https://h/p.git#v1:sub")
	f.Add("git@h:p?branch=x&tag=y&mtime=commit")
	f.Fuzz(func(t *testing.T, address string) {
		g, is, err := ParseGit(address)
		if !is || err != nil {
			return
		}
		if strings.HasPrefix(g.Remote, "-") || strings.HasPrefix(g.Ref, "-") || strings.HasPrefix(g.Dir, "/") || g.Dir == ".." || strings.HasPrefix(g.Dir, "../") {
			t.Errorf("%q became %+v", address, g)
		}
	})
}
