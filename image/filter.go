package image

import (
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/reference"

	"berth/fault"
)

// Filter selects images. Keys as in the API: dangling, label, label!, before, since, reference, until.
// Values of one key are alternatives, except label, label!, before, since and until, where all must hold.
type Filter map[string][]string

// Select returns the images of list that f lets through, in their order. now is what durations in
// "until" count back from. before and since take what lookup knows. fault.Invalid: an unknown key or bad value.
func Select(list []*Image, f Filter, now time.Time, lookup func(ref string) (*Image, error)) ([]*Image, error) {
	var tests []func(*Image) bool
	for key, values := range f {
		t, err := tester(key, values, now, lookup)
		if err != nil {
			return nil, err
		}
		tests = append(tests, t)
	}
	kept := []*Image{}
	for _, img := range list {
		if !slices.ContainsFunc(tests, func(t func(*Image) bool) bool { return !t(img) }) {
			kept = append(kept, narrow(img, f["reference"]))
		}
	}
	return kept, nil
}

// narrow is img under those of its names that a filter by reference asks for: users see what they look for, once.
func narrow(img *Image, patterns []string) *Image {
	if len(patterns) == 0 {
		return img
	}
	shown := *img
	shown.Names = slices.DeleteFunc(slices.Clone(img.Names), func(n reference.Named) bool { return !matches(n, patterns) })
	return &shown
}

// tester returns the test for one key of a filter.
func tester(key string, values []string, now time.Time, lookup func(string) (*Image, error)) (func(*Image) bool, error) {
	switch key {
	case "dangling":
		return testDangling(values)
	case "label":
		return func(i *Image) bool {
			return !slices.ContainsFunc(values, func(v string) bool { return !hasLabel(i, v) })
		}, nil
	case "label!":
		return func(i *Image) bool {
			return !slices.ContainsFunc(values, func(v string) bool { return hasLabel(i, v) })
		}, nil
	case "reference":
		return testReference(values)
	case "until":
		limit, err := earliest(values, func(v string) (time.Time, error) { return parseUntil(v, now) })
		return func(i *Image) bool { return i.Created().Before(limit) }, err
	case "before":
		limit, err := earliest(values, createdOf(lookup))
		return func(i *Image) bool { return i.Created().Before(limit) }, err
	case "since":
		var limit time.Time
		for _, v := range values {
			at, err := createdOf(lookup)(v)
			if err != nil {
				return nil, err
			}
			if at.After(limit) {
				limit = at
			}
		}
		return func(i *Image) bool { return i.Created().After(limit) }, nil
	}
	return nil, fault.New(fault.Invalid, "invalid filter '%s'", key)
}

func createdOf(lookup func(string) (*Image, error)) func(string) (time.Time, error) {
	return func(ref string) (time.Time, error) {
		img, err := lookup(ref)
		if err != nil {
			return time.Time{}, err
		}
		return img.Created(), nil
	}
}

// earliest returns the first of the moments that values mean.
func earliest(values []string, moment func(string) (time.Time, error)) (first time.Time, err error) {
	for i, v := range values {
		at, err := moment(v)
		if err != nil {
			return first, err
		}
		if i == 0 || at.Before(first) {
			first = at
		}
	}
	return first, nil
}

func testDangling(values []string) (func(*Image) bool, error) {
	want := map[bool]bool{}
	for _, v := range values {
		switch strings.ToLower(v) {
		case "1", "true":
			want[true] = true
		case "0", "false":
			want[false] = true
		default:
			return nil, fault.New(fault.Invalid, "invalid filter 'dangling=[%s]': use true or false", v)
		}
	}
	return func(i *Image) bool { return want[i.Dangling()] || len(want) == 0 }, nil
}

// hasLabel tells whether an image has the label "key" or "key=value".
func hasLabel(i *Image, want string) bool {
	key, value, exact := strings.Cut(want, "=")
	have, ok := i.Config.Config.Labels[key]
	return ok && (!exact || have == value)
}

// testReference matches shell patterns on familiar names: with or without tag, as a whole.
func testReference(patterns []string) (func(*Image) bool, error) {
	for _, p := range patterns {
		if _, err := path.Match(p, ""); err != nil {
			return nil, fault.New(fault.Invalid, "invalid filter 'reference=[%s]': %w", p, err)
		}
	}
	return func(i *Image) bool {
		return slices.ContainsFunc(i.Names, func(n reference.Named) bool { return matches(n, patterns) })
	}, nil
}

func matches(n reference.Named, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		matched, _ := reference.FamiliarMatch(p, n)
		return matched
	})
}

// parseUntil reads a moment: Unix seconds, RFC 3339 (zone and tail optional), or a Go duration before now.
func parseUntil(v string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(v); err == nil {
		return now.Add(-d), nil
	}
	if s, err := strconv.ParseFloat(v, 64); err == nil {
		return time.Unix(0, int64(s*1e9)), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02T15:04Z07:00", "2006-01-02", "2006-01-02Z07:00"} {
		if at, err := time.ParseInLocation(layout, v, time.Local); err == nil {
			return at, nil
		}
	}
	return time.Time{}, fault.New(fault.Invalid, "invalid filter 'until=[%s]': use Unix seconds, a date like 2006-01-02T15:04:05 or a duration like 24h", v)
}
