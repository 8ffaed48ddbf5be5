package daemon

import (
	"net/http"

	"berth/engine/volumes"

	"github.com/moby/moby/api/types/volume"
)

// volumes serves /volumes.
type volumeRoutes struct{ engine *volumes.Service }

func (s volumeRoutes) routes() []route {
	return []route{
		{"GET", "/volumes", s.list},
		{"POST", "/volumes/create", s.create},
		{"GET", "/volumes/{name}", s.inspect},
		{"DELETE", "/volumes/{name}", s.remove},
	}
}

func (s volumeRoutes) list(w http.ResponseWriter, r *http.Request) error {
	filters, err := parseFilters(r.URL.Query().Get("filters"))
	if err != nil {
		return err
	}
	list, err := s.engine.List(r.Context(), filters)
	if err != nil {
		return err
	}
	if list == nil {
		list = []volume.Volume{}
	}
	return writeJSON(w, http.StatusOK, volume.ListResponse{Volumes: list, Warnings: []string{}})
}

func (s volumeRoutes) create(w http.ResponseWriter, r *http.Request) error {
	var body volume.CreateRequest
	if err := readJSON(r, &body, true); err != nil {
		return err
	}
	v, err := s.engine.Create(r.Context(), body)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, v)
}

func (s volumeRoutes) inspect(w http.ResponseWriter, r *http.Request) error {
	v, err := s.engine.Inspect(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, v)
}

func (s volumeRoutes) remove(w http.ResponseWriter, r *http.Request) error {
	return done(w, s.engine.Remove(r.Context(), r.PathValue("name"), flag(r.URL.Query(), "force")))
}
