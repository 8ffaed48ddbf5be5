package daemon

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"

	"berth/daemon/buildkit"
	"berth/engine/builds"
	"berth/fault"

	"github.com/moby/moby/api/types/jsonstream"
)

// kitRoutes serve BuildKit's protocol.
func kitRoutes(s *buildkit.Server) []route {
	k := kit{s}
	return []route{{"POST", "/session", s.Session}, {"POST", "/grpc", s.Control}, {"POST", "/build/cancel", k.cancel}}
}

type kit struct{ *buildkit.Server }

func (k kit) cancel(w http.ResponseWriter, r *http.Request) error {
	id := r.URL.Query().Get("id")
	if id == "" {
		return fault.New(fault.Invalid, "build ID not provided")
	}
	k.Cancel(id)
	w.WriteHeader(http.StatusOK)
	return nil
}

// build is POST /build?version=2: a build whose client has a session, told as BuildKit tells it.
func (k kit) build(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	if id, ok := strings.CutPrefix(q.Get("buildid"), "upload-request:"); ok {
		defer upload(w, r)()
		return k.Upload(r.Context(), id, r.Body)
	}
	d := buildkit.Direct{Query: q}
	if err := readMaps(q, map[string]any{"buildargs": &d.Args, "labels": &d.Label}); err != nil {
		return err
	}
	out := newLines(w)
	d.Tell = func(id string, aux any) error {
		text, err := json.Marshal(aux)
		if err != nil {
			return err
		}
		raw := json.RawMessage(text)
		return out.write(jsonstream.Message{ID: id, Aux: &raw})
	}
	if _, err := k.Build(r.Context(), d); err != nil {
		return out.fail(builds.Told(err))
	}
	return nil
}

// readMaps reads query values that are JSON.
func readMaps(q url.Values, into map[string]any) error {
	for name, to := range into {
		if text := q.Get(name); text != "" {
			if err := json.Unmarshal([]byte(text), to); err != nil {
				return fault.New(fault.Invalid, "%s: %w", name, err)
			}
		}
	}
	return nil
}
