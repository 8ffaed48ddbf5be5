package request

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/container"
)

// PruneFilter reads the filters of a prune of containers (until, label, label!). fault.Invalid for others.
func PruneFilter(f map[string][]string, now time.Time) (func(*container.Record) bool, error) {
	var before time.Time
	for key, values := range f {
		switch key {
		case "label", "label!":
		case "until":
			if len(values) > 1 {
				return nil, invalid("more than one until filter specified")
			}
			for _, v := range values {
				t, err := ParseUntil(v, now)
				if err != nil {
					return nil, err
				}
				before = t
			}
		default:
			return nil, invalid("invalid filter '%s'", key)
		}
	}
	return func(r *container.Record) bool {
		has := func(want string) bool { return labelMatches(r.Config.Labels, want) }
		switch {
		case !before.IsZero() && !r.Created.Before(before):
			return false
		case slices.ContainsFunc(f["label"], func(w string) bool { return !has(w) }):
			return false
		}
		return !slices.ContainsFunc(f["label!"], has)
	}, nil
}

// ParseUntil reads a moment: Unix seconds with a fraction, an RFC 3339 time whose zone and tail may be missing, or a
// duration before now.
func ParseUntil(v string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(v); err == nil {
		return now.Add(-d), nil
	}
	seconds, fraction, _ := strings.Cut(v, ".")
	if s, err := strconv.ParseInt(seconds, 10, 64); err == nil {
		n, err := strconv.ParseInt((fraction + "000000000")[:9], 10, 64)
		if err == nil && n >= 0 {
			return time.Unix(s, n), nil
		}
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04Z07:00", "2006-01-02T15:04", "2006-01-02Z07:00", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, v, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, invalid("invalid filter 'until=%s': give Unix seconds, a time such as 2006-01-02T15:04:05, or a duration such as 24h", v)
}

// labelMatches reads "key" or "key=value".
func labelMatches(labels map[string]string, want string) bool {
	key, value, hasValue := strings.Cut(want, "=")
	have, ok := labels[key]
	return ok && (!hasValue || have == value)
}
