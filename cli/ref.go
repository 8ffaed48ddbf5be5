package cli

import (
	"fmt"
	"strings"

	"berth/fault"
)

// defaultRegistry is where images without a host in their name come from.
const defaultRegistry = "docker.io"

// imageRef is an image's name in its parts (grammar: distribution/reference).
type imageRef struct {
	domain, path, tag, digest string
}

// parseRef reads an image's name.
func parseRef(s string) (imageRef, error) {
	var r imageRef
	bad := func(why string) (imageRef, error) {
		return r, fault.New(fault.Invalid, "invalid reference format: %s", why)
	}
	rest := s
	if rest == "" {
		return bad("the image's name is empty")
	}
	if i := strings.IndexByte(rest, '@'); i >= 0 {
		rest, r.digest = rest[:i], rest[i+1:]
		if algorithm, hex, ok := strings.Cut(r.digest, ":"); !ok || algorithm == "" || len(hex) < 32 || !only(strings.ToLower(hex), "0123456789abcdef") {
			return bad(fmt.Sprintf("%q: %q is not a digest", s, r.digest))
		}
	}
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, '/') {
		rest, r.tag = rest[:i], rest[i+1:]
		if !validTag(r.tag) {
			return bad(fmt.Sprintf("%q: %q is not a tag", s, r.tag))
		}
	}
	r.domain, r.path = defaultRegistry, rest
	if first, after, ok := strings.Cut(rest, "/"); ok && (strings.ContainsAny(first, ".:") || first == "localhost" || first != strings.ToLower(first)) {
		r.domain, r.path = first, after
		if r.domain == "index.docker.io" {
			r.domain = defaultRegistry
		}
	}
	if r.path != strings.ToLower(r.path) {
		return bad(fmt.Sprintf("repository name (%s) must be lowercase", r.path))
	}
	for _, part := range strings.Split(r.path, "/") {
		if name, tag, ok := strings.Cut(part, ":"); ok && r.tag != "" && validTag(tag) {
			return bad(fmt.Sprintf("%q has two tags; did you mean %s:%s.%s?", s, name, tag, r.tag))
		}
		if !validPart(part) {
			return bad(fmt.Sprintf("%q: %q is not a part of a repository's name", s, part))
		}
	}
	if len(r.domain)+len(r.path) > 254 {
		return bad("repository name must not be more than 255 characters")
	}
	if r.domain == defaultRegistry && !strings.Contains(r.path, "/") {
		if len(rest) == 64 && only(rest, "0123456789abcdef") {
			return r, fault.New(fault.Invalid, "invalid repository name (%s), cannot specify 64-byte hexadecimal strings", rest)
		}
		r.path = "library/" + r.path
	}
	return r, nil
}

func only(s, letters string) bool { return strings.Trim(s, letters) == "" }

const lowerLetters = "abcdefghijklmnopqrstuvwxyz0123456789"

func validTag(s string) bool {
	return s != "" && len(s) <= 128 && s[0] != '.' && s[0] != '-' && only(strings.ToLower(s), lowerLetters+"_.-")
}

// validPart checks a name's component: runs of letters and digits, joined by one dot, one or two underscores, or any number of dashes.
func validPart(s string) bool {
	if s == "" || !only(s, lowerLetters+"._-") {
		return false
	}
	for i := 0; i < len(s); {
		end := i
		for end < len(s) && strings.IndexByte("._-", s[end]) >= 0 {
			end++
		}
		if end > i {
			sep := s[i:end]
			if i == 0 || end == len(s) || sep != "." && sep != "_" && sep != "__" && !only(sep, "-") {
				return false
			}
		}
		i = max(end, i+1)
	}
	return true
}

// isID tells whether s is an image's ID, as a digest.
func isID(s string) bool {
	hex, ok := strings.CutPrefix(s, "sha256:")
	return ok && len(hex) == 64 && only(hex, "0123456789abcdef")
}

// tagged gives r the default tag when it names no version.
func (r imageRef) tagged() imageRef {
	if r.tag == "" && r.digest == "" {
		r.tag = "latest"
	}
	return r
}

func (r imageRef) name() string { return r.domain + "/" + r.path }

// String is the full name.
func (r imageRef) String() string { return r.name() + r.version() }

func (r imageRef) version() string {
	v := ""
	if r.tag != "" {
		v = ":" + r.tag
	}
	if r.digest != "" {
		v += "@" + r.digest
	}
	return v
}

// familiar is the short name that people write.
func (r imageRef) familiar() string {
	if r.domain != defaultRegistry {
		return r.String()
	}
	return strings.TrimPrefix(r.path, "library/") + r.version()
}
