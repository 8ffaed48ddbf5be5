package daemon

import (
	"net/http"

	"berth/fault"
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
	h.Set("Builder-Version", "2")
	h.Set("Berth-Build", "asks")
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

// noPlugins answers the clean-up code of test frameworks, which lists plugins after each test.
func noPlugins(w http.ResponseWriter, r *http.Request) error {
	return writeJSON(w, http.StatusOK, []struct{}{})
}

func noSwarm(w http.ResponseWriter, r *http.Request) error {
	return fault.New(fault.Unavailable, "This node is not a swarm manager. berth has no swarm mode: run services with compose or a cluster scheduler instead.")
}
