package daemon

import (
	"net/http"

	"berth/engine"

	"github.com/moby/moby/api/types/network"
)

// networks serves /networks.
type networks struct{ engine *engine.Networks }

func (s networks) routes() []route {
	return []route{
		{"GET", "/networks", s.list},
		{"GET", "/networks/{id}", s.inspect},
	}
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
