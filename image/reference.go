package image

import (
	"regexp"
	"strings"
	"sync"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"berth/fault"
)

// ParseName reads an image name as users type it: docker.io and library/ are filled in, a
// name without tag and digest gets "latest". Errors are fault.Invalid in Docker's words with a hint.
func ParseName(s string) (reference.Named, error) {
	named, err := reference.ParseNormalizedNamed(s)
	if err == nil {
		return reference.TagNameOnly(named), nil
	}
	if hint := hintFor(s); hint != "" {
		return nil, fault.New(fault.Invalid, "%w: %s", err, hint)
	}
	return nil, fault.Wrap(fault.Invalid, err)
}

// hintFor says what is wrong with a name where the grammar's own error doesn't.
func hintFor(s string) string {
	name, rest, _ := strings.Cut(s[strings.LastIndex(s, "/")+1:], ":")
	switch {
	case s == "":
		return "the name is empty"
	case strings.ContainsAny(s, " \t\r\n"):
		return "a name has no blanks"
	case strings.HasPrefix(s, "-"):
		return "a name does not start with \"-\"; options stand before the image"
	case strings.Contains(s, "://"):
		return "leave out the \"" + s[:strings.Index(s, "://")+3] + "\""
	case !strings.Contains(s, "@") && strings.Contains(rest, ":"):
		prefix := s[:strings.LastIndex(s, "/")+1]
		return "only one \":\" may follow the last \"/\", did you mean \"" + prefix + name + ":" + strings.ReplaceAll(rest, ":", ".") + "\"?"
	case strings.HasSuffix(s, ":"):
		return "the tag after \":\" is missing"
	}
	return ""
}

var idPrefix = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(?:sha256:)?[0-9a-f]{1,64}$`) })

// idDigits returns the hexadecimal digits that ref may stand for as the beginning of an ID.
func idDigits(ref string) (string, bool) {
	if !idPrefix().MatchString(ref) {
		return "", false
	}
	return strings.TrimPrefix(ref, "sha256:"), true
}

// notFound is Docker's answer about an image that isn't here.
func notFound(ref string) error {
	if named, err := reference.ParseNormalizedNamed(ref); err == nil {
		ref = reference.FamiliarString(reference.TagNameOnly(named))
	}
	return fault.New(fault.NotFound, "No such image: %s", ref)
}

// withDigest returns the digest reference of a name's repository.
func withDigest(n reference.Named, d digest.Digest) (reference.Canonical, error) {
	return reference.WithDigest(reference.TrimNamed(n), d)
}

// shortID is the form of a digest that people read: 12 digits.
func shortID(d digest.Digest) string {
	s := d.Encoded()
	return s[:min(12, len(s))]
}
