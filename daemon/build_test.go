package daemon

import (
	"errors"
	"net/url"
	"testing"

	"berth/fault"
)

// TestBuildOptionsOfNothing has queries that would bring the daemon down with the build that they are for.
func TestBuildOptionsOfNothing(t *testing.T) {
	for name, value := range map[string]string{"ulimits": "[null]", "buildargs": "[]", "labels": "7", "memory": "much", "cachefrom": "{}"} {
		if _, err := buildOptions(url.Values{name: {value}}, 0); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s=%s: %v", name, value, err)
		}
	}
}
