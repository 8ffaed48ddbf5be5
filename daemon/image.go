package daemon

import (
	"net/http"
	"strings"

	"berth/engine"
	"berth/fault"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
)

// The patterns with "-" are made by imagePath from /images/NAME/VERB.
func (s *Server) imageRoutes() []route {
	return []route{
		{"GET", "/images/json", s.imageList},
		{"POST", "/images/create", s.imageCreate},
		{"POST", "/images/load", s.imageLoad},
		{"GET", "/images/get", s.imageSave},
		{"GET", "/images/-/get/{name...}", s.imageSave},
		{"GET", "/images/-/json/{name...}", s.imageInspect},
		{"GET", "/images/-/history/{name...}", s.imageHistory},
		{"POST", "/images/-/tag/{name...}", s.imageTag},
		{"DELETE", "/images/-/self/{name...}", s.imageRemove},
	}
}

func (s *Server) imageList(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	filters, err := parseFilters(q.Get("filters"))
	if err != nil {
		return err
	}
	if name := q.Get("filter"); name != "" && versionOf(r) < 41 { // what is now filters={"reference":…}
		if filters == nil {
			filters = engine.Filters{}
		}
		filters["reference"] = append(filters["reference"], name)
	}
	list, err := s.engine.Images.List(engine.ImageListRequest{
		All: flag(q, "all"), SharedSize: flag(q, "shared-size"), Manifests: flag(q, "manifests"), Filters: filters,
	})
	if err != nil {
		return err
	}
	if list == nil {
		list = []image.Summary{}
	}
	return writeJSON(w, http.StatusOK, oldSummary(versionOf(r), list))
}

// imageCreate pulls (fromImage) or imports (fromSrc).
func (s *Server) imageCreate(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	platform, err := parsePlatform(q.Get("platform"))
	if err != nil {
		return err
	}
	http.NewResponseController(w).EnableFullDuplex() // progress goes out while an archive comes in
	out := newLines(w)
	send := func(m jsonstream.Message) { out.write(m) } // a client that has gone cancels the request's context
	if name := q.Get("fromImage"); name != "" {
		ref, all := pullName(name, q.Get("tag"))
		return out.fail(s.engine.Images.Pull(r.Context(), engine.PullRequest{
			Ref: ref, All: all, Platform: platform, Auth: parseAuth(r.Header.Get("X-Registry-Auth")),
		}, send))
	}
	source := q.Get("fromSrc")
	if source == "" {
		return fault.New(fault.Invalid, "neither fromImage (pull) nor fromSrc (import) is given")
	}
	ref := q.Get("repo")
	if tag := q.Get("tag"); tag != "" && ref != "" {
		ref += ":" + tag
	}
	return out.fail(s.engine.Images.Import(r.Context(), engine.ImportRequest{
		Source: source, Ref: ref, Message: q.Get("message"), Changes: q["changes"], Platform: platform,
	}, r.Body, send))
}

// pullName joins the two parameters of a pull. Neither tag nor digest in either means every tag.
func pullName(name, tag string) (ref string, all bool) {
	switch {
	case tag == "":
		last := name[strings.LastIndexByte(name, '/')+1:]
		return name, !strings.ContainsAny(last, ":@")
	case strings.Contains(tag, ":"):
		return name + "@" + tag, false
	}
	return name + ":" + tag, false
}

func (s *Server) imageLoad(w http.ResponseWriter, r *http.Request) error {
	http.NewResponseController(w).EnableFullDuplex()
	out := newLines(w)
	return out.fail(s.engine.Images.Load(r.Context(), r.Body, flag(r.URL.Query(), "quiet"), func(m jsonstream.Message) { out.write(m) }))
}

func (s *Server) imageSave(w http.ResponseWriter, r *http.Request) error {
	names := r.URL.Query()["names"]
	if name := r.PathValue("name"); name != "" {
		names = []string{name}
	}
	if len(names) == 0 {
		return fault.New(fault.Invalid, "no image is named: give ?names=IMAGE, once or more")
	}
	w.Header().Set("Content-Type", "application/x-tar")
	err := s.engine.Images.Save(r.Context(), w, names)
	if err != nil && w.(*tracked).started {
		s.log.Warn("save was cut", "images", names, "error", err)
		panic(http.ErrAbortHandler) // half an archive must not look like a whole one
	}
	return err
}

func (s *Server) imageInspect(w http.ResponseWriter, r *http.Request) error {
	i, err := s.engine.Images.Inspect(r.PathValue("name"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, oldImage(versionOf(r), &i))
}

func (s *Server) imageHistory(w http.ResponseWriter, r *http.Request) error {
	history, err := s.engine.Images.History(r.PathValue("name"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, history)
}

func (s *Server) imageTag(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	if err := s.engine.Images.Tag(r.PathValue("name"), q.Get("repo"), q.Get("tag")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (s *Server) imageRemove(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	removed, err := s.engine.Images.Remove(r.Context(), r.PathValue("name"), flag(q, "force"), flag(q, "noprune"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, removed)
}
