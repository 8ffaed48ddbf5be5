// Package reference reads and writes the names of images and platforms as people type them.
//
// It asks no registry and no engine whether they exist. Invariant: a name that was read is written such that it is read the same.
package reference

import (
	"fmt"
	"strings"

	"berth/fault"
)

// defaultRegistry is where images without a host in their name come from.
const defaultRegistry = "docker.io"

// Name is an image's name in its parts (grammar: distribution/reference).
type Name struct {
	Domain, Path, Tag, Digest string
}

// Parse reads an image's name.
func Parse(s string) (Name, error) {
	var r Name
	bad := func(why string) (Name, error) {
		return r, fault.New(fault.Invalid, "invalid reference format: %s", why)
	}
	rest := s
	if rest == "" {
		return bad("the image's name is empty")
	}
	if i := strings.IndexByte(rest, '@'); i >= 0 {
		rest, r.Digest = rest[:i], rest[i+1:]
		if algorithm, hex, ok := strings.Cut(r.Digest, ":"); !ok || algorithm == "" || len(hex) < 32 || !Only(strings.ToLower(hex), "0123456789abcdef") {
			return bad(fmt.Sprintf("%q: %q is not a digest", s, r.Digest))
		}
	}
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, '/') {
		rest, r.Tag = rest[:i], rest[i+1:]
		if !validTag(r.Tag) {
			return bad(fmt.Sprintf("%q: %q is not a tag", s, r.Tag))
		}
	}
	r.Domain, r.Path = defaultRegistry, rest
	if first, after, ok := strings.Cut(rest, "/"); ok && (strings.ContainsAny(first, ".:") || first == "localhost" || first != strings.ToLower(first)) {
		r.Domain, r.Path = first, after
		if r.Domain == "index.docker.io" {
			r.Domain = defaultRegistry
		}
	}
	if r.Path != strings.ToLower(r.Path) {
		return bad(fmt.Sprintf("repository name (%s) must be lowercase", r.Path))
	}
	for _, part := range strings.Split(r.Path, "/") {
		if name, tag, ok := strings.Cut(part, ":"); ok && r.Tag != "" && validTag(tag) {
			return bad(fmt.Sprintf("%q has two tags; did you mean %s:%s.%s?", s, name, tag, r.Tag))
		}
		if !validPart(part) {
			return bad(fmt.Sprintf("%q: %q is not a part of a repository's name", s, part))
		}
	}
	if len(r.Domain)+len(r.Path) > 254 {
		return bad("repository name must not be more than 255 characters")
	}
	if r.Domain == defaultRegistry && !strings.Contains(r.Path, "/") {
		if len(rest) == 64 && Only(rest, "0123456789abcdef") {
			return r, fault.New(fault.Invalid, "invalid repository name (%s), cannot specify 64-byte hexadecimal strings", rest)
		}
		r.Path = "library/" + r.Path
	}
	return r, nil
}

// Only tells whether s has no other characters than letters.
func Only(s, letters string) bool { return strings.Trim(s, letters) == "" }

const lowerLetters = "abcdefghijklmnopqrstuvwxyz0123456789"

func validTag(s string) bool {
	return s != "" && len(s) <= 128 && s[0] != '.' && s[0] != '-' && Only(strings.ToLower(s), lowerLetters+"_.-")
}

// validPart checks a name's component: runs of letters and digits, joined by one dot, one or two underscores, or any number of dashes.
func validPart(s string) bool {
	if s == "" || !Only(s, lowerLetters+"._-") {
		return false
	}
	for i := 0; i < len(s); {
		end := i
		for end < len(s) && strings.IndexByte("._-", s[end]) >= 0 {
			end++
		}
		if end > i {
			sep := s[i:end]
			if i == 0 || end == len(s) || sep != "." && sep != "_" && sep != "__" && !Only(sep, "-") {
				return false
			}
		}
		i = max(end, i+1)
	}
	return true
}

// IsID tells whether s is an image's ID, as a digest.
func IsID(s string) bool {
	hex, ok := strings.CutPrefix(s, "sha256:")
	return ok && len(hex) == 64 && Only(hex, "0123456789abcdef")
}

// Tagged gives r the default tag when it names no version.
func (r Name) Tagged() Name {
	if r.Tag == "" && r.Digest == "" {
		r.Tag = "latest"
	}
	return r
}

// Repository is the name without tag and digest, with its registry.
func (r Name) Repository() string { return r.Domain + "/" + r.Path }

// String is the full name.
func (r Name) String() string { return r.Repository() + r.version() }

func (r Name) version() string {
	v := ""
	if r.Tag != "" {
		v = ":" + r.Tag
	}
	if r.Digest != "" {
		v += "@" + r.Digest
	}
	return v
}

// Familiar is the short name that people write.
func (r Name) Familiar() string {
	if r.Domain != defaultRegistry {
		return r.String()
	}
	return strings.TrimPrefix(r.Path, "library/") + r.version()
}
