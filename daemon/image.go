package daemon

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"berth/engine"
	service "berth/engine/images"
	"berth/fault"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/registry"
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
		{"GET", "/images/-/attestations/{name...}", s.attestations},
		{"POST", "/images/-/tag/{name...}", s.tag},
		{"POST", "/images/-/push/{name...}", s.push},
		{"DELETE", "/images/-/self/{name...}", s.remove},
		{"GET", "/images/search", s.search},
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
	v := versionOf(r)
	list, err := s.engine.List(service.ListRequest{
		SharedSize: v >= 42 && flag(q, "shared-size"), Manifests: v >= 47 && flag(q, "manifests"), Filters: filters,
	})
	if err != nil {
		return err
	}
	if list == nil {
		list = []image.Summary{}
	}
	return writeJSON(w, http.StatusOK, oldSummary(v, list))
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
	send := progressTo(out, versionOf(r))
	if name := q.Get("fromImage"); name != "" {
		ref, all := pullName(name, q.Get("tag"))
		err := s.engine.Pull(r.Context(), service.PullRequest{Ref: ref, All: all, Platform: platform, Auth: parseAuth(r.Header.Get(registry.AuthHeader))}, send)
		if errors.Is(err, fault.Unauthorized) && !out.begun {
			// Not 401: to that, a client answers by asking for a password, also where nobody is there to type it.
			writeMessage(w, http.StatusInternalServerError, err.Error())
			return nil
		}
		return out.fail(err)
	}
	source := q.Get("fromSrc")
	if source == "" {
		return fault.New(fault.Invalid, "neither fromImage (pull) nor fromSrc (import) is given")
	}
	return out.fail(s.engine.Import(r.Context(), service.ImportRequest{
		Source: source, Repository: q.Get("repo"), Tag: q.Get("tag"), Message: q.Get("message"), Changes: q["changes"], Platform: platform,
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
	q := r.URL.Query()
	platforms, err := parsePlatforms(q["platform"], versionOf(r), 48)
	if err == nil {
		err = onePlatform(versionOf(r), platforms)
	}
	if err != nil {
		return err
	}
	defer upload(w, r)()
	out := newLines(w)
	quiet := !q.Has("quiet") || flag(q, "quiet")
	return out.fail(s.engine.Load(r.Context(), r.Body, platforms, quiet, progressTo(out, versionOf(r))))
}

func (s images) save(w http.ResponseWriter, r *http.Request) error {
	names := r.URL.Query()["names"]
	if name := r.PathValue("name"); name != "" {
		names = []string{name}
	}
	if len(names) == 0 {
		return fault.New(fault.Invalid, "no image is named: give ?names=IMAGE, once or more")
	}
	platforms, err := parsePlatforms(r.URL.Query()["platform"], versionOf(r), 48)
	if err == nil {
		err = onePlatform(versionOf(r), platforms)
	}
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-tar")
	err = s.engine.Save(r.Context(), w, names, platforms)
	if err != nil && w.(*tracked).started {
		s.log.Warn("save was cut", "images", names, "error", err)
		panic(http.ErrAbortHandler) // half an archive must not look like a whole one
	}
	return err
}

func (s images) inspect(w http.ResponseWriter, r *http.Request) error {
	q, v := r.URL.Query(), versionOf(r)
	platforms, err := parsePlatforms(q["platform"], v, 49)
	if err != nil {
		return err
	}
	manifests := v >= 48 && flag(q, "manifests")
	if manifests && platforms != nil {
		return fault.New(fault.Invalid, "conflicting options: manifests and platform options cannot both be set")
	}
	i, err := s.engine.Inspect(r.PathValue("name"), first(platforms), manifests)
	if err != nil {
		return err
	}
	var from origin
	if v < 45 {
		if from, err = s.engine.Origin(r.PathValue("name")); err != nil {
			return err
		}
	}
	return writeJSON(w, http.StatusOK, oldImage(v, &i, from))
}

func (s images) history(w http.ResponseWriter, r *http.Request) error {
	platforms, err := parsePlatforms(r.URL.Query()["platform"], versionOf(r), 48)
	if err != nil {
		return err
	}
	history, err := s.engine.History(r.PathValue("name"), first(platforms))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, history)
}

func (s images) attestations(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	platforms, err := parsePlatforms(q["platform"], versionOf(r), 24)
	if err != nil {
		return err
	}
	list, err := s.engine.Attestations(r.PathValue("name"), first(platforms), q["type"], flag(q, "statement"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list)
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
	platforms, err := parsePlatforms(q["platforms"], versionOf(r), 50)
	if err != nil {
		return err
	}
	name := r.PathValue("name")
	if strings.TrimSpace(name) == "" {
		return fault.New(fault.Invalid, "image name cannot be blank")
	}
	removed, err := s.engine.Remove(r.Context(), service.RemoveRequest{Ref: name, Force: flag(q, "force"), NoPrune: flag(q, "noprune"), Platforms: platforms})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, removed)
}

// push sends an image to the registry in its name; without a tag, all that its repository has here.
func (s images) push(w http.ResponseWriter, r *http.Request) error {
	q, v := r.URL.Query(), versionOf(r)
	ref, err := reference.ParseNormalizedNamed(r.PathValue("name"))
	if tag := q.Get("tag"); err == nil && tag != "" {
		if _, digested := ref.(reference.Digested); digested {
			err = errors.New("cannot push a digest reference")
		} else {
			ref, err = reference.WithTag(reference.TrimNamed(ref), tag)
		}
	}
	if err != nil {
		return fault.Wrap(fault.Invalid, err)
	}
	platforms, err := parsePlatforms(q["platform"], v, 46)
	if err != nil {
		return err
	}
	defer upload(w, r)()
	out := newLines(w)
	return out.fail(s.engine.Push(r.Context(), service.PushRequest{
		Ref: ref, Platform: first(platforms), Auth: parseAuth(r.Header.Get(registry.AuthHeader)),
	}, progressTo(out, v)))
}

func (s images) search(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	filters, err := parseFilters(q.Get("filters"))
	if err != nil {
		return err
	}
	limit, err := number(q, "limit", 0)
	if err != nil || limit < 0 {
		return fault.New(fault.Invalid, "invalid limit specified: %q", q.Get("limit"))
	}
	found, err := s.engine.Search(r.Context(), service.SearchRequest{
		Term: q.Get("term"), Limit: limit, Filters: filters, Auth: parseAuth(r.Header.Get(registry.AuthHeader)),
	})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, found)
}
