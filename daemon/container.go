package daemon

import (
	"errors"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"berth/engine"
	"berth/fault"
	"github.com/moby/moby/api/types/container"
)

// containers serves /containers.
type containers struct{ engine *engine.Containers }

func (s containers) routes() []route {
	return []route{
		{"GET", "/containers/json", s.list},
		{"GET", "/containers/ps", s.list}, // its name before 1.0
		{"POST", "/containers/create", s.create},
		{"GET", "/containers/{id}/json", s.inspect},
		{"GET", "/containers/{id}/top", s.top},
		{"GET", "/containers/{id}/stats", s.stats},
		{"POST", "/containers/{id}/update", s.update},
		{"GET", "/containers/{id}/logs", s.logs},
		{"POST", "/containers/{id}/logs/clear", s.clearLogs},
		{"GET", "/containers/{id}/attach/ws", s.attachSocket},
		{"POST", "/containers/{id}/start", s.start},
		{"POST", "/containers/{id}/stop", s.stop},
		{"POST", "/containers/{id}/restart", s.restart},
		{"POST", "/containers/{id}/kill", s.kill},
		{"POST", "/containers/{id}/pause", s.pause},
		{"POST", "/containers/{id}/unpause", s.unpause},
		{"POST", "/containers/{id}/rename", s.rename},
		{"POST", "/containers/{id}/resize", s.resize},
		{"POST", "/containers/{id}/attach", s.attach},
		{"POST", "/containers/{id}/wait", s.wait},
		{"DELETE", "/containers/{id...}", s.remove},
		{"HEAD", "/containers/{id}/archive", s.statPath},
		{"GET", "/containers/{id}/archive", s.archive},
		{"PUT", "/containers/{id}/archive", s.extract},
		{"GET", "/containers/{id}/export", s.export},
		{"GET", "/containers/{id}/changes", s.changes},
		{"POST", "/containers/prune", s.prune},
		{"POST", "/commit", s.commit},
	}
}

func (s containers) list(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	filters, err := parseFilters(q.Get("filters"))
	if err != nil {
		return err
	}
	limit, err := number(q, "limit", -1)
	if err != nil {
		return err
	}
	list, err := s.engine.List(r.Context(), engine.ListRequest{
		All: flag(q, "all"), Limit: limit, Size: flag(q, "size"), Filters: filters,
	})
	if err != nil {
		return err
	}
	if list == nil {
		list = []container.Summary{}
	}
	for n := range list {
		if versionOf(r) < 46 {
			list[n].HostConfig.Annotations = nil
		}
		if versionOf(r) < 48 {
			list[n].ImageManifestDescriptor = nil
		}
	}
	return writeJSON(w, http.StatusOK, list)
}

func (s containers) create(w http.ResponseWriter, r *http.Request) error {
	body, err := readCreate(r)
	if err != nil {
		return err
	}
	if body.Berth.Debug != nil {
		return fault.New(fault.Invalid, "Berth.Debug is the engine's own to set: POST /containers/{id}/debug makes a container for tools")
	}
	q := r.URL.Query()
	platform, err := parsePlatform(q.Get("platform"))
	if err != nil {
		return err
	}
	id, warnings, err := s.engine.Create(r.Context(), q.Get("name"), engine.CreateRequest{
		Config: body.Config, HostConfig: body.HostConfig, Networking: body.NetworkingConfig, Platform: platform, Settings: body.Berth,
	})
	if err != nil {
		return err
	}
	if warnings = append(body.warnings, warnings...); warnings == nil {
		warnings = []string{}
	}
	return writeJSON(w, http.StatusCreated, container.CreateResponse{ID: id, Warnings: warnings})
}

func (s containers) inspect(w http.ResponseWriter, r *http.Request) error {
	c, err := s.engine.Inspect(r.Context(), r.PathValue("id"), flag(r.URL.Query(), "size"))
	if err != nil {
		return err
	}
	old, err := oldInspect(versionOf(r), &c)
	if err != nil {
		return err
	}
	if old != nil {
		return writeJSON(w, http.StatusOK, old)
	}
	return writeJSON(w, http.StatusOK, c)
}

func (s containers) top(w http.ResponseWriter, r *http.Request) error {
	top, err := s.engine.Top(r.Context(), r.PathValue("id"), r.URL.Query().Get("ps_args"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, top)
}

// done answers 204 when err is nil.
func done(w http.ResponseWriter, err error) error {
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s containers) start(w http.ResponseWriter, r *http.Request) error {
	if q := r.URL.Query(); q.Get("checkpoint") != "" || q.Get("checkpoint-dir") != "" {
		return fault.New(fault.Unsupported, "start from a checkpoint: checkpoints are not supported by this version of berth; start without --checkpoint")
	}
	return done(w, s.engine.Start(r.Context(), r.PathValue("id")))
}

// stopOptions reads t and signal, which stop and restart share.
func stopOptions(q url.Values) (engine.StopOptions, error) {
	o := engine.StopOptions{Signal: q.Get("signal")}
	if q.Get("t") != "" {
		t, err := number(q, "t", 0)
		if err != nil {
			return o, err
		}
		o.Timeout = &t
	}
	return o, nil
}

// notes collects what the engine has to say of a stop. The function it returns puts that into the answer's header, where clients that don't know of
// it pass it over (RFC 7234, section 5.5: Warning), and gives its argument back.
func notes(w http.ResponseWriter, o *engine.StopOptions) func(error) error {
	var all []string
	o.Note = func(text string) { all = append(all, text) }
	return func(err error) error {
		if len(all) > 0 {
			w.Header().Set("Warning", `199 berth `+strconv.QuoteToASCII(strings.Join(all, "\n")))
		}
		return err
	}
}

func (s containers) stop(w http.ResponseWriter, r *http.Request) error {
	o, err := stopOptions(r.URL.Query())
	if err != nil {
		return err
	}
	tell := notes(w, &o)
	return done(w, tell(s.engine.Stop(r.Context(), r.PathValue("id"), o)))
}

func (s containers) restart(w http.ResponseWriter, r *http.Request) error {
	o, err := stopOptions(r.URL.Query())
	if err != nil {
		return err
	}
	tell := notes(w, &o)
	return done(w, tell(s.engine.Restart(r.Context(), r.PathValue("id"), o)))
}

func (s containers) kill(w http.ResponseWriter, r *http.Request) error {
	return done(w, s.engine.Kill(r.Context(), r.PathValue("id"), r.URL.Query().Get("signal")))
}

func (s containers) pause(w http.ResponseWriter, r *http.Request) error {
	return done(w, s.engine.Pause(r.Context(), r.PathValue("id")))
}

func (s containers) unpause(w http.ResponseWriter, r *http.Request) error {
	return done(w, s.engine.Unpause(r.Context(), r.PathValue("id")))
}

func (s containers) rename(w http.ResponseWriter, r *http.Request) error {
	return done(w, s.engine.Rename(r.Context(), r.PathValue("id"), r.URL.Query().Get("name")))
}

// size reads h and w, a terminal's height and width in characters.
func size(q url.Values) (height, width uint, err error) {
	if height, err = characters(q.Get("h")); err != nil {
		return 0, 0, fault.New(fault.Invalid, "invalid resize height %q: %w", q.Get("h"), err)
	}
	if width, err = characters(q.Get("w")); err != nil {
		return 0, 0, fault.New(fault.Invalid, "invalid resize width %q: %w", q.Get("w"), err)
	}
	return height, width, nil
}

// characters reads one side of a terminal, which the kernel keeps in 16 bits (ioctl_tty(2)).
func characters(s string) (uint, error) {
	n, err := strconv.Atoi(s)
	if bad := (*strconv.NumError)(nil); errors.As(err, &bad) {
		return 0, bad.Err
	}
	if n < 0 || n > math.MaxUint16 {
		return 0, strconv.ErrRange
	}
	return uint(n), nil
}

func (s containers) resize(w http.ResponseWriter, r *http.Request) error {
	height, width, err := size(r.URL.Query())
	if err != nil {
		return err
	}
	if err := s.engine.Resize(r.Context(), r.PathValue("id"), height, width); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// wait sends its header at once: clients start the container when they see it.
func (s containers) wait(w http.ResponseWriter, r *http.Request) error {
	until := container.WaitCondition(r.URL.Query().Get("condition"))
	switch until {
	case "", container.WaitConditionNotRunning, container.WaitConditionNextExit, container.WaitConditionRemoved:
	default:
		return fault.New(fault.Invalid, "invalid condition: %q", until)
	}
	waiter, err := s.engine.Wait(r.PathValue("id"), until)
	if err != nil {
		return err
	}
	defer waiter.Close()
	if versionOf(r) >= 30 {
		if err := begin(w, "application/json"); err != nil {
			return err
		}
	}
	select {
	case answer := <-waiter.C:
		return newLines(w).write(answer)
	case <-r.Context().Done():
		return nil
	}
}

func (s containers) remove(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	if flag(q, "link") {
		return done(w, s.engine.Unlink(r.PathValue("id")))
	}
	return done(w, s.engine.Remove(r.Context(), r.PathValue("id"), engine.RemoveOptions{
		Force: flag(q, "force"), Volumes: flag(q, "v"),
	}))
}
