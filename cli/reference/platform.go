package reference

import (
	"encoding/json"
	"fmt"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Platform turns os[/arch[/variant]] into the JSON that newer requests want; "" stays.
func Platform(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	parts := strings.Split(s, "/")
	for _, p := range parts {
		if p == "" || len(parts) > 3 {
			return "", fmt.Errorf("invalid platform: %q is not os[/arch[/variant]]", s)
		}
	}
	parts = append(parts, "", "")
	b, err := json.Marshal(ocispec.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]})
	return string(b), err
}

// Platforms does the same for all values of an option, each of which may be several with commas between.
func Platforms(all []string) ([]string, error) {
	var out []string
	for _, v := range all {
		for _, p := range strings.Split(v, ",") {
			j, err := Platform(p)
			if err != nil {
				return nil, err
			}
			out = append(out, j)
		}
	}
	return out, nil
}
