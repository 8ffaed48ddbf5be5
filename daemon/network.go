package daemon

import (
	"net/http"
	"strings"

	"berth/engine"
	service "berth/engine/networks"
	"berth/engine/resolver"

	"github.com/moby/moby/api/types/network"
)

// networks serves /networks.
type networks struct {
	engine     *service.Service
	containers *engine.Containers
	names      *resolver.Service
}

func (s networks) routes() []route {
	return []route{
		{"GET", "/networks", s.list},
		{"GET", "/networks/{$}", s.list},
		{"GET", "/networks/{id}", s.inspect},
		{"GET", "/networks/dns/{name}", s.lookup},
		{"GET", "/ports", s.audit},
		{"POST", "/networks/create", s.create},
		{"POST", "/networks/prune", s.prune},
		{"DELETE", "/networks/{id}", s.remove},
		{"POST", "/networks/{id}/connect", s.connect},
		{"POST", "/networks/{id}/disconnect", s.disconnect},
	}
}

// lookup tells how a name is looked up; ours.
func (s networks) lookup(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	l, err := s.names.Lookup(r.Context(), r.PathValue("name"), q.Get("type"), q.Get("container"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, l)
}

func (s networks) create(w http.ResponseWriter, r *http.Request) error {
	var body network.CreateRequest
	if err := readJSON(r, &body, false); err != nil {
		return err
	}
	oldNetwork(versionOf(r), &body)
	id, warnings, err := s.engine.Create(r.Context(), body)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, network.CreateResponse{ID: id, Warning: strings.Join(warnings, "\n")})
}

// audit is ours: who can reach which port.
func (s networks) audit(w http.ResponseWriter, _ *http.Request) error {
	a, err := s.engine.Audit()
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, a)
}

func (s networks) remove(w http.ResponseWriter, r *http.Request) error {
	if err := s.engine.Remove(r.PathValue("id")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s networks) prune(w http.ResponseWriter, r *http.Request) error {
	f, dry, err := filtered(r)
	if err != nil {
		return err
	}
	report, err := s.engine.Prune(f, dry)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, report)
}

func (s networks) connect(w http.ResponseWriter, r *http.Request) error {
	var body network.ConnectRequest
	if err := readJSON(r, &body, false); err != nil {
		return err
	}
	return s.containers.Connect(r.Context(), body.Container, r.PathValue("id"), body.EndpointConfig)
}

func (s networks) disconnect(w http.ResponseWriter, r *http.Request) error {
	var body network.DisconnectRequest
	if err := readJSON(r, &body, false); err != nil {
		return err
	}
	return s.containers.Disconnect(r.Context(), body.Container, r.PathValue("id"), body.Force)
}

func (s networks) list(w http.ResponseWriter, r *http.Request) error {
	filters, err := parseFilters(r.URL.Query().Get("filters"))
	if err != nil {
		return err
	}
	list, err := s.engine.List(filters)
	if err != nil {
		return err
	}
	if list == nil {
		list = []network.Inspect{}
	}
	return writeJSON(w, http.StatusOK, list)
}

func (s networks) inspect(w http.ResponseWriter, r *http.Request) error {
	n, err := s.engine.Inspect(r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, n)
}
