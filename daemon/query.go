package daemon

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/engine"
	"berth/fault"
	"berth/image"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// parseFilters reads the filters parameter: a map of lists, or, as clients
// before 1.22 wrote it, a map of maps to true.
func parseFilters(v string) (engine.Filters, error) {
	if v == "" {
		return nil, nil
	}
	lists := engine.Filters{}
	if json.Unmarshal([]byte(v), &lists) == nil {
		return lists, nil
	}
	sets := map[string]map[string]bool{}
	if err := json.Unmarshal([]byte(v), &sets); err != nil {
		return nil, fault.New(fault.Invalid, "invalid filter: %w", err)
	}
	lists = engine.Filters{}
	for key, set := range sets {
		lists[key] = slices.Sorted(maps.Keys(set))
	}
	return lists, nil
}

// parseTime reads Unix seconds with an optional fraction; "" is no time.
func parseTime(name, v string) (time.Time, error) {
	if v == "" || v == "0" {
		return time.Time{}, nil
	}
	seconds, fraction, _ := strings.Cut(v, ".")
	s, err := strconv.ParseInt(seconds, 10, 64)
	var n int64
	if err == nil && fraction != "" {
		n, err = strconv.ParseInt((fraction + "000000000")[:9], 10, 64)
	}
	if err != nil || n < 0 {
		return time.Time{}, fault.New(fault.Invalid, "query value %s=%q is not a time in Unix seconds", name, v)
	}
	return time.Unix(s, n), nil
}

// parsePlatform reads "os[/arch[/variant]]" or an OCI platform in JSON; "" is nil.
func parsePlatform(v string) (*ocispec.Platform, error) {
	if v == "" {
		return nil, nil
	}
	var p ocispec.Platform
	if strings.HasPrefix(v, "{") {
		if err := json.Unmarshal([]byte(v), &p); err != nil {
			return nil, fault.New(fault.Invalid, "invalid platform: %w", err)
		}
		return &p, nil
	}
	p, err := image.ParsePlatform(v)
	return &p, err
}

// parsePlatforms reads platforms in JSON, as everywhere but in a pull. What stands there is passed over when the API did not have it in
// the client's version v, but since a later one.
func parsePlatforms(values []string, v, since apiVersion) ([]ocispec.Platform, error) {
	known := v >= since
	var list []ocispec.Platform
	for _, v := range values {
		if v == "" || !known {
			continue
		}
		var p ocispec.Platform
		if err := json.Unmarshal([]byte(v), &p); err != nil {
			return nil, fault.New(fault.Invalid, "failed to parse platform: %w", err)
		}
		switch {
		case p.OS == "" && p.Architecture == "" && (p.Variant != "" || p.OSVersion != "" || len(p.OSFeatures) > 0):
			return nil, fault.New(fault.Invalid, "optional platform fields provided, but OS and Architecture are missing")
		case p.OS == "" || p.Architecture == "":
			return nil, fault.New(fault.Invalid, "both OS and Architecture must be provided")
		}
		list = append(list, p)
	}
	return list, nil
}

// first is the first platform, nil where there is none.
func first(list []ocispec.Platform) *ocispec.Platform {
	if len(list) == 0 {
		return nil
	}
	return &list[0]
}

// parseAuth reads the X-Registry-Auth header. One that can't be read counts as none, as in every engine before.
func parseAuth(header string) registry.AuthConfig {
	var auth registry.AuthConfig
	data, err := base64.URLEncoding.DecodeString(header)
	if err != nil {
		data, err = base64.RawURLEncoding.DecodeString(header)
	}
	if err != nil || json.Unmarshal(data, &auth) != nil {
		return registry.AuthConfig{}
	}
	return auth
}
