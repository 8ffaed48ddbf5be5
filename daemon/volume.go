package daemon

import (
	"io"
	"net/http"

	"berth/engine/volumes"

	"github.com/moby/moby/api/types/volume"
)

// volumes serves /volumes.
type volumeRoutes struct{ engine volumes.Contents }

func (s volumeRoutes) routes() []route {
	return []route{
		{"GET", "/volumes", s.list},
		{"POST", "/volumes/create", s.create},
		{"GET", "/volumes/{name}", s.inspect},
		{"DELETE", "/volumes/{name}", s.remove},
		{"PUT", "/volumes/{name}", s.update},
		{"POST", "/volumes/{name}/rename", s.rename},
		{"POST", "/volumes/{name}/clone", s.clone},
		{"GET", "/volumes/{name}/export", s.export},
		{"POST", "/volumes/{name}/import", s.fill},
		{"GET", "/volumes/{name}/snapshots", s.snapshots},
		{"POST", "/volumes/{name}/snapshots", s.snapshot},
		{"DELETE", "/volumes/{name}/snapshots", s.removeSnapshot},
		{"POST", "/volumes/{name}/rollback", s.rollback},
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

func (s volumeRoutes) update(w http.ResponseWriter, r *http.Request) error {
	v, err := s.engine.Update(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, v)
}

func (s volumeRoutes) rename(w http.ResponseWriter, r *http.Request) error {
	return done(w, s.engine.Rename(r.Context(), r.PathValue("name"), r.URL.Query().Get("name")))
}

// copied answers with what was made of a volume.
func copied(w http.ResponseWriter, c volumes.Copy, err error) error {
	if err != nil {
		return err
	}
	if c.Warnings == nil {
		c.Warnings = []string{}
	}
	return writeJSON(w, http.StatusCreated, c)
}

func (s volumeRoutes) clone(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	c, err := s.engine.Clone(r.Context(), r.PathValue("name"), q.Get("name"), flag(q, "pause"))
	return copied(w, c, err)
}

func (s volumeRoutes) export(w http.ResponseWriter, r *http.Request) error {
	return tarStream(w, func(begin func() io.Writer) error {
		return s.engine.Export(r.Context(), r.PathValue("name"), flag(r.URL.Query(), "pause"), begin)
	})
}

func (s volumeRoutes) fill(w http.ResponseWriter, r *http.Request) (err error) {
	return done(w, s.engine.Import(r.Context(), r.PathValue("name"), r.Body, flag(r.URL.Query(), "replace")))
}

func (s volumeRoutes) snapshots(w http.ResponseWriter, r *http.Request) error {
	list, err := s.engine.Snapshots(r.PathValue("name"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list)
}

func (s volumeRoutes) snapshot(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	c, err := s.engine.Snapshot(r.Context(), r.PathValue("name"), q.Get("name"), flag(q, "pause"))
	return copied(w, c, err)
}

func (s volumeRoutes) removeSnapshot(w http.ResponseWriter, r *http.Request) error {
	return done(w, s.engine.RemoveSnapshot(r.PathValue("name"), r.URL.Query().Get("name")))
}

func (s volumeRoutes) rollback(w http.ResponseWriter, r *http.Request) error {
	c, err := s.engine.Rollback(r.Context(), r.PathValue("name"), r.URL.Query().Get("snapshot"))
	return copied(w, c, err)
}
