package daemon

import (
	"net/http"
	"strings"

	"berth/fault"
)

// missing are the parts of the API that are not served yet: each says so by its name, so
// that nobody looks for a mistake in a path or takes the answer for "no such container".
func missing() []route {
	var routes []route
	for what, patterns := range map[string][]string{
		"checkpoints": {"GET /containers/{id}/checkpoints", "POST /containers/{id}/checkpoints"},
		"plugins":     {"GET /plugins/{rest...}", "POST /plugins/{rest...}", "DELETE /plugins/{rest...}"},
	} {
		refuse := func(http.ResponseWriter, *http.Request) error {
			return fault.New(fault.Unsupported, "%s: not supported by this version of berth", what)
		}
		for _, p := range patterns {
			method, path, _ := strings.Cut(p, " ")
			routes = append(routes, route{method, path, refuse})
		}
	}
	return routes
}
