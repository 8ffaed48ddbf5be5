package daemon

import (
	"net/http"
	"net/url"

	"berth/engine"
	"berth/fault"
	"github.com/moby/moby/api/types/container"
)

func (s *Server) containerRoutes() []route {
	return []route{
		{"GET", "/containers/json", s.containerList},
		{"GET", "/containers/ps", s.containerList}, // its name before 1.0
		{"POST", "/containers/create", s.containerCreate},
		{"GET", "/containers/{id}/json", s.containerInspect},
		{"GET", "/containers/{id}/top", s.containerTop},
		{"GET", "/containers/{id}/logs", s.containerLogs},
		{"POST", "/containers/{id}/start", s.containerStart},
		{"POST", "/containers/{id}/stop", s.containerStop},
		{"POST", "/containers/{id}/restart", s.containerRestart},
		{"POST", "/containers/{id}/kill", s.containerKill},
		{"POST", "/containers/{id}/pause", s.containerPause},
		{"POST", "/containers/{id}/unpause", s.containerUnpause},
		{"POST", "/containers/{id}/rename", s.containerRename},
		{"POST", "/containers/{id}/resize", s.containerResize},
		{"POST", "/containers/{id}/attach", s.containerAttach},
		{"POST", "/containers/{id}/wait", s.containerWait},
		{"DELETE", "/containers/{id}", s.containerRemove},
	}
}

func (s *Server) containerList(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	filters, err := parseFilters(q.Get("filters"))
	if err != nil {
		return err
	}
	limit, err := number(q, "limit", -1)
	if err != nil {
		return err
	}
	list, err := s.engine.Containers.List(r.Context(), engine.ListRequest{
		All: flag(q, "all"), Limit: limit, Size: flag(q, "size"), Filters: filters,
	})
	if err != nil {
		return err
	}
	if list == nil {
		list = []container.Summary{}
	}
	return writeJSON(w, http.StatusOK, list)
}

func (s *Server) containerCreate(w http.ResponseWriter, r *http.Request) error {
	body, err := readCreate(r)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	platform, err := parsePlatform(q.Get("platform"))
	if err != nil {
		return err
	}
	id, warnings, err := s.engine.Containers.Create(r.Context(), q.Get("name"), engine.CreateRequest{
		Config: body.Config, HostConfig: body.HostConfig, Networking: body.NetworkingConfig, Platform: platform,
	})
	if err != nil {
		return err
	}
	if warnings == nil {
		warnings = []string{}
	}
	return writeJSON(w, http.StatusCreated, container.CreateResponse{ID: id, Warnings: warnings})
}

func (s *Server) containerInspect(w http.ResponseWriter, r *http.Request) error {
	c, err := s.engine.Containers.Inspect(r.Context(), r.PathValue("id"), flag(r.URL.Query(), "size"))
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

func (s *Server) containerTop(w http.ResponseWriter, r *http.Request) error {
	top, err := s.engine.Containers.Top(r.Context(), r.PathValue("id"), r.URL.Query().Get("ps_args"))
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

func (s *Server) containerStart(w http.ResponseWriter, r *http.Request) error {
	return done(w, s.engine.Containers.Start(r.Context(), r.PathValue("id")))
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

func (s *Server) containerStop(w http.ResponseWriter, r *http.Request) error {
	o, err := stopOptions(r.URL.Query())
	if err != nil {
		return err
	}
	return done(w, s.engine.Containers.Stop(r.Context(), r.PathValue("id"), o))
}

func (s *Server) containerRestart(w http.ResponseWriter, r *http.Request) error {
	o, err := stopOptions(r.URL.Query())
	if err != nil {
		return err
	}
	return done(w, s.engine.Containers.Restart(r.Context(), r.PathValue("id"), o))
}

func (s *Server) containerKill(w http.ResponseWriter, r *http.Request) error {
	return done(w, s.engine.Containers.Kill(r.Context(), r.PathValue("id"), r.URL.Query().Get("signal")))
}

func (s *Server) containerPause(w http.ResponseWriter, r *http.Request) error {
	return done(w, s.engine.Containers.Pause(r.Context(), r.PathValue("id")))
}

func (s *Server) containerUnpause(w http.ResponseWriter, r *http.Request) error {
	return done(w, s.engine.Containers.Unpause(r.Context(), r.PathValue("id")))
}

func (s *Server) containerRename(w http.ResponseWriter, r *http.Request) error {
	return done(w, s.engine.Containers.Rename(r.Context(), r.PathValue("id"), r.URL.Query().Get("name")))
}

// size reads h and w, a terminal's height and width in characters.
func size(q url.Values) (height, width uint, err error) {
	h, err := number(q, "h", -1)
	if err != nil {
		return 0, 0, err
	}
	w, err := number(q, "w", -1)
	if err != nil {
		return 0, 0, err
	}
	if h < 0 || w < 0 || h > 65535 || w > 65535 {
		return 0, 0, fault.New(fault.Invalid, "invalid terminal size %dx%d: h and w must be given, from 0 to 65535", w, h)
	}
	return uint(h), uint(w), nil
}

func (s *Server) containerResize(w http.ResponseWriter, r *http.Request) error {
	height, width, err := size(r.URL.Query())
	if err != nil {
		return err
	}
	if err := s.engine.Containers.Resize(r.Context(), r.PathValue("id"), height, width); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// containerWait sends its header at once: clients start the container when they see it.
func (s *Server) containerWait(w http.ResponseWriter, r *http.Request) error {
	until := container.WaitCondition(r.URL.Query().Get("condition"))
	switch until {
	case "", container.WaitConditionNotRunning, container.WaitConditionNextExit, container.WaitConditionRemoved:
	default:
		return fault.New(fault.Invalid, "invalid condition: %q", until)
	}
	waiter, err := s.engine.Containers.Wait(r.PathValue("id"), until)
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

func (s *Server) containerRemove(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	if flag(q, "link") {
		return fault.New(fault.Unsupported, "remove a link: links are entries of a container's network; disconnect the network instead")
	}
	return done(w, s.engine.Containers.Remove(r.Context(), r.PathValue("id"), engine.RemoveOptions{
		Force: flag(q, "force"), Volumes: flag(q, "v"),
	}))
}
