package daemon

import (
	"net/http"

	"github.com/moby/moby/api/types/network"
)

func (s *Server) networkRoutes() []route {
	return []route{
		{"GET", "/networks", s.networkList},
		{"GET", "/networks/{id}", s.networkInspect},
	}
}

func (s *Server) networkList(w http.ResponseWriter, r *http.Request) error {
	filters, err := parseFilters(r.URL.Query().Get("filters"))
	if err != nil {
		return err
	}
	list, err := s.engine.Networks.List(filters)
	if err != nil {
		return err
	}
	if list == nil {
		list = []network.Inspect{}
	}
	return writeJSON(w, http.StatusOK, list)
}

func (s *Server) networkInspect(w http.ResponseWriter, r *http.Request) error {
	n, err := s.engine.Networks.Inspect(r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, n)
}
