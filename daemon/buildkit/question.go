package buildkit

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"berth/engine/builds"

	gateway "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/errdefs"
)

// question is what a Dockerfile can be asked, as clients are told of it.
type question struct {
	Name        string `json:"name"`
	Version     string `json:"version"`
	Type        string `json:"type"`
	Description string `json:"description"`
	Metadata    []name `json:"metadata"`
}

type name struct {
	Name string `json:"name"`
}

// questions are those that there are.
var questions = []question{
	{"frontend.lint", "1.0.0", "rpc", "Lint a Dockerfile", []name{{"result.json"}, {"result.txt"}, {"result.statuscode"}}},
	{"frontend.outline", "1.0.0", "rpc", "List all parameters current build target supports", []name{{"result.json"}, {"result.txt"}}},
	{"frontend.targets", "1.0.0", "rpc", "List all targets current build supports", []name{{"result.json"}, {"result.txt"}}},
	{"frontend.subrequests.describe", "1.0.0", "rpc", "List available subrequest types", []name{{"result.json"}, {"result.txt"}}},
}

// answer answers a question about a Dockerfile.
func (s *Server) answer(ctx context.Context, j *job, about string, attrs map[string]string) (*gateway.SolveResponse, error) {
	all, err := s.ask(ctx, j, about, attrs)
	if err != nil {
		return nil, err
	}
	told := map[string][]byte{}
	for k, v := range all {
		told[k] = []byte(v)
	}
	return &gateway.SolveResponse{Result: &gateway.Result{Result: &gateway.Result_Ref{Ref: &gateway.Ref{}}, Metadata: told}}, nil
}

func (s *Server) ask(ctx context.Context, j *job, about string, attrs map[string]string) (map[string]string, error) {
	switch about {
	case "frontend.lint", "frontend.outline", "frontend.targets":
	case "frontend.subrequests.describe":
		return describe()
	default:
		return nil, errdefs.NewUnsupportedSubrequestError(about)
	}
	o, client, t, err := s.prepare(ctx, j, attrs)
	if err != nil {
		return nil, err
	}
	if err = client.dockerfile(ctx, &o); err == nil {
		err = s.Builds.ReadRemote(ctx, &o, client, t)
	}
	if err != nil {
		return nil, err
	}
	all, err := s.Builds.Call(ctx, strings.TrimPrefix(about, "frontend."), o)
	return all, located(err, &o)
}

// describe lists the questions.
func describe() (map[string]string, error) {
	text, err := json.MarshalIndent(questions, "", "  ")
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	for _, q := range questions {
		fmt.Fprintf(&b, "%-22s %-8s %s\n", strings.TrimPrefix(q.Name, "frontend."), q.Version, q.Description)
	}
	return map[string]string{"result.json": string(text), "result.txt": b.String(), "version": "1.0.0"}, nil
}

// prepare reads what a client asks of the frontend, and gives the client as it is asked for that.
func (s *Server) prepare(ctx context.Context, j *job, attrs map[string]string) (o builds.Options, client *asker, t builds.Teller, err error) {
	if o, err = readOptions(attrs); err != nil {
		return o, nil, t, err
	}
	o.Allow = j.request.Entitlements
	if o.CacheFrom, o.CacheTo, err = readCaches(j.request, attrs); err != nil {
		return o, nil, t, err
	}
	if client, err = j.asks(ctx); err != nil {
		return o, nil, t, err
	}
	t = j.status.Teller()
	return o, client.with(attrs, t), t, nil
}
