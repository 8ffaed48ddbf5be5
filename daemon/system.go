package daemon

import (
	"net/http"

	"berth/engine"
	"berth/fault"
	"github.com/moby/moby/api/types"
	"github.com/moby/moby/api/types/events"
)

func (s *Server) systemRoutes() []route {
	routes := []route{
		{"GET", "/_ping", s.ping}, // HEAD too
		{"GET", "/version", s.version},
		{"GET", "/info", s.info},
		{"GET", "/events", s.events},
		{"GET", "/plugins", noPlugins},
	}
	for _, top := range []string{"swarm", "nodes", "services", "tasks", "secrets", "configs"} {
		routes = append(routes, route{"GET", "/" + top, noSwarm}, route{"POST", "/" + top + "/{rest...}", noSwarm}, route{"GET", "/" + top + "/{rest...}", noSwarm})
	}
	return routes
}

func (s *Server) ping(w http.ResponseWriter, r *http.Request) error {
	h := w.Header()
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Pragma", "no-cache")
	h.Set("Builder-Version", "1")
	h.Set("Swarm", "inactive")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	if r.Method == http.MethodHead {
		h.Set("Content-Length", "0")
		return nil
	}
	_, err := w.Write([]byte("OK"))
	return err
}

func (s *Server) version(w http.ResponseWriter, r *http.Request) error {
	v := s.engine.System.Version()
	v.APIVersion, v.MinAPIVersion = apiVersion(newestMinor).String(), apiVersion(oldestMinor).String()
	for i := range v.Components {
		if c := &v.Components[i]; c.Name == "Engine" {
			c.Details["ApiVersion"], c.Details["MinAPIVersion"] = v.APIVersion, v.MinAPIVersion
		}
	}
	return writeJSON(w, http.StatusOK, v)
}

func (s *Server) info(w http.ResponseWriter, r *http.Request) error {
	info, err := s.engine.System.Info()
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, oldInfo(versionOf(r), &info))
}

// events streams what happens. Below API 1.52 an event carries the fields of the first releases too.
func (s *Server) events(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	filters, err := parseFilters(q.Get("filters"))
	if err != nil {
		return err
	}
	since, err := parseTime("since", q.Get("since"))
	if err != nil {
		return err
	}
	until, err := parseTime("until", q.Get("until"))
	if err != nil {
		return err
	}
	past, sub, err := s.engine.Events.Subscribe(engine.EventsRequest{Since: since, Until: until, Filters: filters})
	if err != nil {
		return err
	}
	defer sub.Close()
	if err := begin(w, eventType(r)); err != nil {
		return err
	}
	out := newLines(w)
	out.begun = true
	send := func(m events.Message) error {
		if versionOf(r) < 52 {
			return out.write(oldEvent{m, string(m.Action), m.Actor.ID, m.Actor.Attributes["image"]})
		}
		return out.write(m)
	}
	for _, m := range past {
		if err := send(m); err != nil {
			return err
		}
	}
	for {
		select {
		case m, ok := <-sub.C:
			if !ok {
				return nil
			}
			if err := send(m); err != nil {
				return err
			}
		case <-r.Context().Done():
			return nil
		}
	}
}

// oldEvent is an event as clients below API 1.52 read it.
type oldEvent struct {
	events.Message
	Status string `json:"status,omitempty"`
	ID     string `json:"id,omitempty"`
	From   string `json:"from,omitempty"`
}

// eventType is the media type that the client prefers among those the stream fits.
func eventType(r *http.Request) string {
	for _, accepted := range r.Header.Values("Accept") {
		switch accepted {
		case types.MediaTypeNDJSON, types.MediaTypeJSONLines:
			return accepted
		}
	}
	return types.MediaTypeJSON
}

// noPlugins answers the clean-up code of test frameworks, which lists plugins after each test.
func noPlugins(w http.ResponseWriter, r *http.Request) error {
	return writeJSON(w, http.StatusOK, []struct{}{})
}

func noSwarm(w http.ResponseWriter, r *http.Request) error {
	return fault.New(fault.Unavailable, "This node is not a swarm manager. berth has no swarm mode: run services with compose or a cluster scheduler instead.")
}
