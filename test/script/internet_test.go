package script

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"berth/registry/registrytest"

	"github.com/rogpeppe/go-internal/testscript"
)

// registries are a script's, by name.
type registries map[string]*registrytest.Server

// internet NAME=ORIGIN... lets registries answer at origins such as https://quay.example, behind the proxy that PROXY is set to.
// A name that comes again is the same registry at another origin. What a registry is like, its name says: broken, busy, cutting, lying, basic or
// token (their user is me, with the password secret). CA is set to the file with
// the certificate of the authority that all of them have theirs from.
func internet(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: internet NAME=ORIGIN...")
	}
	n, err := registrytest.NewInternet()
	ts.Check(err)
	ts.Defer(n.Close)
	servers := ts.Value("registries").(registries)
	for _, a := range args {
		name, origin, ok := strings.Cut(a, "=")
		if !ok {
			ts.Fatalf("internet: %q is not NAME=ORIGIN", a)
		}
		if servers[name] == nil {
			servers[name] = registrytest.New()
		}
		like(servers[name], name)
		n.Host(origin, servers[name])
	}
	ca := filepath.Join(ts.Getenv("WORK"), "ca.crt")
	ts.Check(os.WriteFile(ca, n.PEM(), 0o644))
	ts.Setenv("CA", ca)
	ts.Setenv("PROXY", n.URL())
}

// like makes a registry what its name says.
func like(s *registrytest.Server, name string) {
	access := registrytest.Access{Users: map[string]string{"me": "secret"}, Private: []string{"team/app"}}
	switch name {
	case "broken":
		s.SetFaults(registrytest.Faults{Failing: 1 << 30})
	case "busy": // for the next three requests, for a second each
		s.SetFaults(registrytest.Faults{TooMany: 3, RetryAfter: "1", Quota: "100;w=21600 0;w=21600"})
	case "cutting": // each connection
		s.SetFaults(registrytest.Faults{CutAfter: 300_000, CutUpload: 300_000})
	case "lying":
		s.SetFaults(registrytest.Faults{Lying: true})
	case "basic":
		access.Scheme = "basic"
		s.SetAccess(access)
	case "token": // good for three requests
		access.Scheme, access.Uses = "bearer", 3
		s.SetAccess(access)
	}
}

// asked NAME REGEXP looks whether a registry was sent such a request, as "METHOD /path".
func asked(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 || ts.Value("registries").(registries)[args[0]] == nil {
		ts.Fatalf("usage: [!] asked NAME REGEXP")
	}
	wanted, err := regexp.Compile(args[1])
	ts.Check(err)
	requests := ts.Value("registries").(registries)[args[0]].Requests()
	if slices.ContainsFunc(requests, wanted.MatchString) == neg {
		ts.Fatalf("%s was asked:\n%s", args[0], strings.Join(requests, "\n"))
	}
}
