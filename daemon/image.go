package daemon

import (
	"io"
	"log/slog"
	"net/http"
	"strings"

	"berth/engine"
	service "berth/engine/images"
	"berth/fault"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
)

// images serves /images.
type images struct {
	engine *service.Service
	log    *slog.Logger
}

// The patterns with "-" are made by imagePath from /images/NAME/VERB.
func (s images) routes() []route {
	return []route{
		{"GET", "/images/json", s.list},
		{"POST", "/images/create", s.create},
		{"POST", "/images/load", s.load},
		{"GET", "/images/get", s.save},
		{"GET", "/images/-/get/{name...}", s.save},
		{"GET", "/images/-/json/{name...}", s.inspect},
		{"GET", "/images/-/history/{name...}", s.history},
		{"POST", "/images/-/tag/{name...}", s.tag},
		{"DELETE", "/images/-/self/{name...}", s.remove},
	}
}

func (s images) list(w http.ResponseWriter, r *http.Request) error {
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
	list, err := s.engine.List(service.ListRequest{
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

// create pulls (fromImage) or imports (fromSrc).
func (s images) create(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	platform, err := parsePlatform(q.Get("platform"))
	if err != nil {
		return err
	}
	defer upload(w, r)()
	out := newLines(w)
	send := func(m jsonstream.Message) { out.write(m) } // a client that has gone cancels the request's context
	if name := q.Get("fromImage"); name != "" {
		ref, all := pullName(name, q.Get("tag"))
		return out.fail(s.engine.Pull(r.Context(), service.PullRequest{
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
	return out.fail(s.engine.Import(r.Context(), service.ImportRequest{
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

// maxUnread is how much of an archive is read for nothing, so that a client which sends all before it reads gets the answer.
const maxUnread = 64 << 20

// upload lets progress go out while an archive comes in; what it returns is called at the end. It reads the rest
// of the archive: padding, or all that follows a mistake. net/http can't do that itself here, because a
// body whose end it finds after a full-duplex handler makes it read the connection twice, and panic (Go 1.26).
func upload(w http.ResponseWriter, r *http.Request) (end func()) {
	http.NewResponseController(w).EnableFullDuplex()
	return func() { io.CopyN(io.Discard, r.Body, maxUnread) }
}

func (s images) load(w http.ResponseWriter, r *http.Request) error {
	defer upload(w, r)()
	out := newLines(w)
	return out.fail(s.engine.Load(r.Context(), r.Body, flag(r.URL.Query(), "quiet"), func(m jsonstream.Message) { out.write(m) }))
}

func (s images) save(w http.ResponseWriter, r *http.Request) error {
	names := r.URL.Query()["names"]
	if name := r.PathValue("name"); name != "" {
		names = []string{name}
	}
	if len(names) == 0 {
		return fault.New(fault.Invalid, "no image is named: give ?names=IMAGE, once or more")
	}
	w.Header().Set("Content-Type", "application/x-tar")
	err := s.engine.Save(r.Context(), w, names)
	if err != nil && w.(*tracked).started {
		s.log.Warn("save was cut", "images", names, "error", err)
		panic(http.ErrAbortHandler) // half an archive must not look like a whole one
	}
	return err
}

func (s images) inspect(w http.ResponseWriter, r *http.Request) error {
	i, err := s.engine.Inspect(r.PathValue("name"))
	if err != nil {
		return err
	}
	var from origin
	if versionOf(r) < 45 {
		if from, err = s.engine.Origin(r.PathValue("name")); err != nil {
			return err
		}
	}
	return writeJSON(w, http.StatusOK, oldImage(versionOf(r), &i, from))
}

func (s images) history(w http.ResponseWriter, r *http.Request) error {
	history, err := s.engine.History(r.PathValue("name"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, history)
}

func (s images) tag(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	if err := s.engine.Tag(r.PathValue("name"), q.Get("repo"), q.Get("tag")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (s images) remove(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	removed, err := s.engine.Remove(r.Context(), r.PathValue("name"), flag(q, "force"), flag(q, "noprune"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, removed)
}
