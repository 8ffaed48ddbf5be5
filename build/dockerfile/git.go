package dockerfile

import (
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"berth/fault"
)

// Git names something in a git repository.
type Git struct {
	Remote     string // what git itself takes
	Ref        string // branch, tag or commit; "": the default branch
	Dir        string // below the top; "": all
	Checksum   string // the commit, or its first digits, that Ref must be
	KeepDir    *bool  // whether .git stays
	Submodules bool
	ByCommit   bool // fetch Checksum without asking what Ref is
	Time       string
}

// scp is the form user@host:path.
var scp = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-zA-Z0-9_.-]+@[a-zA-Z0-9.-]+:[^\s]+$`) })

// ParseGit reads the address of something in a git repository: URL#ref:dir, or with ?branch=, tag=, ref=, subdir=, checksum=, commit=,
// submodules=, keep-git-dir=, fetch-by-commit= and mtime=. is tells whether it is one at all.
func ParseGit(s string) (g Git, is bool, err error) {
	remote, fragment, _ := strings.Cut(s, "#")
	address, query, _ := strings.Cut(remote, "?")
	switch {
	case scp().MatchString(address):
	case strings.HasPrefix(address, "git://"), strings.HasPrefix(address, "ssh://"):
	case strings.HasPrefix(address, "http://") || strings.HasPrefix(address, "https://"):
		u, err := url.Parse(address)
		if err != nil || !strings.HasSuffix(strings.TrimSuffix(u.Path, "/"), ".git") {
			return g, false, nil
		}
	default:
		return g, false, nil
	}
	g = Git{Remote: address, Submodules: true}
	g.Ref, g.Dir, _ = strings.Cut(fragment, ":")
	if err := g.options(query); err != nil {
		return g, true, err
	}
	if g.Dir = strings.TrimPrefix(path.Clean("/"+g.Dir), "/"); strings.HasPrefix(g.Ref, "-") || strings.HasPrefix(g.Remote, "-") {
		return g, true, fault.New(fault.Invalid, "invalid git address %q: no part of it begins with a dash", s)
	}
	return g, true, nil
}

// options reads what follows the question mark.
func (g *Git) options(query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return fault.New(fault.Invalid, "invalid git address: %w", err)
	}
	truth := func(v string) (bool, error) {
		if v == "" {
			return true, nil
		}
		return strconv.ParseBool(v)
	}
	for key, list := range values {
		v := list[0]
		var err error
		switch key {
		case "ref", "branch", "tag":
			if kind := map[string]string{"branch": "refs/heads/", "tag": "refs/tags/"}[key]; !strings.HasPrefix(v, kind) {
				v = kind + v
			}
			if g.Ref != "" && g.Ref != v {
				return fault.New(fault.Invalid, "a git address names two refs, %q and %q", g.Ref, v)
			}
			g.Ref = v
		case "subdir":
			g.Dir = v
		case "checksum", "commit":
			g.Checksum = v
		case "mtime":
			if g.Time = v; v != "checkout" && v != "commit" {
				return fault.New(fault.Invalid, "invalid mtime value: %q (must be \"checkout\" or \"commit\")", v)
			}
		case "submodules":
			g.Submodules, err = truth(v)
		case "fetch-by-commit":
			g.ByCommit, err = truth(v)
		case "keep-git-dir":
			var keep bool
			keep, err = truth(v)
			g.KeepDir = &keep
		default:
			return fault.New(fault.Invalid, "unexpected query %q in a git address: known are ref, branch, tag, subdir, checksum, commit, submodules, keep-git-dir, fetch-by-commit and mtime", key)
		}
		if err != nil {
			return fault.New(fault.Invalid, "invalid %s in a git address: %w", key, err)
		}
	}
	return nil
}
