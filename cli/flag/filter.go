package flag

import (
	"errors"
	"strings"
)

// Filters collects key=value filters.
func Filters(to *[]string) Value {
	a := Checked(to, func(v string) (string, error) {
		if v == "" {
			return "", nil
		}
		if !strings.Contains(v, "=") {
			return "", errors.New("bad format of filter (expected name=value)")
		}
		return v, nil
	})
	a.Kind = "filter"
	return a
}
