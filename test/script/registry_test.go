package script

import (
	"net"
	"net/http"
	"strings"

	"berth/registry/registrytest"

	"github.com/rogpeppe/go-internal/testscript"
)

// registry NAME [basic|token] [429] [private=REPOSITORY] serves a registry on a loopback port until the script ends; NAME is set to
// its address. Its user is me, with the password secret. With 429 the next two requests are too many.
func registry(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: registry NAME [basic|token] [429] [private=REPOSITORY]")
	}
	s := registrytest.New()
	s.SetIndex([]registrytest.Result{
		{Name: "nginx", Description: "Official build of Nginx.", Stars: 20000, Official: true},
		{Name: "team/nginx", Description: "A server of our own, with a description that is much longer than what a table shows.", Stars: 7},
	})
	access := registrytest.Access{Users: map[string]string{"me": "secret"}}
	for _, a := range args[1:] {
		repository, private := strings.CutPrefix(a, "private=")
		switch {
		case a == "basic":
			access.Scheme = "basic"
		case a == "token":
			access.Scheme = "bearer"
		case a == "429":
			s.SetFaults(registrytest.Faults{TooMany: 2, RetryAfter: "1"})
		case private:
			access.Private = append(access.Private, repository)
		default:
			ts.Fatalf("registry: unknown word %q", a)
		}
	}
	s.SetAccess(access)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	server := &http.Server{Handler: s}
	go server.Serve(l)
	ts.Defer(func() { server.Close() })
	ts.Setenv(args[0], l.Addr().String())
}
