package daemon

import (
	"errors"
	"net/url"
	"testing"

	"berth/fault"
)

// TestBuildOptionsOfNothing has queries that would bring the daemon down with the build that they are for, or ask for what there is not.
func TestBuildOptionsOfNothing(t *testing.T) {
	for name, value := range map[string]string{"ulimits": "[null]", "buildargs": "[]", "labels": "7", "memory": "much", "cachefrom": "{}", "isolation": "hyperv", "version": "3"} {
		if _, err := buildOptions(url.Values{name: {value}}, 0); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s=%s: %v", name, value, err)
		}
	}
}
