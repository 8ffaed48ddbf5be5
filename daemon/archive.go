package daemon

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"

	"berth/engine"
	"berth/engine/files"
	"berth/fault"
	"github.com/moby/moby/api/types/container"
)

// statHeader carries a path's description beside an archive (Docker Engine API, "Get information about files in a container").
const statHeader = "X-Docker-Container-Path-Stat"

func setStat(w http.ResponseWriter, s container.PathStat) error {
	data, err := json.Marshal(s)
	if err == nil {
		w.Header().Set(statHeader, base64.StdEncoding.EncodeToString(data))
	}
	return err
}

// paths reads the path, of which our own clients give several.
func paths(q url.Values) ([]string, error) {
	list := q["path"]
	if len(list) == 0 || list[0] == "" {
		return nil, fault.New(fault.Invalid, "bad parameter: path cannot be empty")
	}
	return list, nil
}

func (s containers) statPath(w http.ResponseWriter, r *http.Request) error {
	list, err := paths(r.URL.Query())
	if err != nil {
		return err
	}
	stat, err := s.engine.StatPath(r.Context(), r.PathValue("id"), list[0])
	if err != nil {
		return err
	}
	return setStat(w, stat)
}

// tarStream answers with an archive that write makes once it has called begin. Half an archive must not look like a whole one.
func tarStream(w http.ResponseWriter, write func(begin func() io.Writer) error) error {
	err := write(func() io.Writer {
		w.Header().Set("Content-Type", "application/x-tar")
		return w
	})
	if err != nil && w.(*tracked).started {
		panic(http.ErrAbortHandler)
	}
	return err
}

func (s containers) archive(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	list, err := paths(q)
	if err != nil {
		return err
	}
	if as := q.Get("as"); strings.Contains(as, "/") || as == ".." {
		return fault.New(fault.Invalid, "bad parameter: as must be a name without slashes")
	}
	request := files.ArchiveRequest{Paths: list, Glob: flag(q, "glob"), As: q.Get("as"), Holes: flag(q, "sparse")}
	return tarStream(w, func(begin func() io.Writer) error {
		return s.engine.Archive(r.Context(), r.PathValue("id"), request, func(stat container.PathStat) io.Writer {
			setStat(w, stat) // numbers and a name always encode
			return begin()
		})
	})
}

func (s containers) extract(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	list, err := paths(q)
	if err != nil {
		return err
	}
	defer io.CopyN(io.Discard, r.Body, maxUnread)
	err = s.engine.Extract(r.Context(), r.PathValue("id"), files.ExtractRequest{
		Path: list[0], KeepKinds: flag(q, "noOverwriteDirNonDir"), Owner: q.Get("chown"),
	}, flag(q, "copyUIDGID"), r.Body)
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (s containers) export(w http.ResponseWriter, r *http.Request) error {
	return tarStream(w, func(begin func() io.Writer) error {
		return s.engine.Export(r.Context(), r.PathValue("id"), begin)
	})
}

func (s containers) changes(w http.ResponseWriter, r *http.Request) error {
	list, err := s.engine.Changes(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list) // null when there are none, as in every engine before
}

func (s containers) prune(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	filters, err := parseFilters(q.Get("filters"))
	if err != nil {
		return err
	}
	report, err := s.engine.Prune(r.Context(), filters, flag(q, "dryrun"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, report)
}

// commit serves /commit. Its body, a config that is merged over the container's, is empty with most clients.
func (s containers) commit(w http.ResponseWriter, r *http.Request) error {
	var config *container.Config
	if err := readJSON(r, &config, true); err != nil {
		return err
	}
	q := r.URL.Query()
	ref := q.Get("repo")
	if tag := q.Get("tag"); tag != "" && ref != "" {
		if strings.Contains(tag, ":") {
			return fault.New(fault.Invalid, "invalid tag %q", tag)
		}
		ref += ":" + tag
	}
	id, err := s.engine.Commit(r.Context(), q.Get("container"), engine.CommitRequest{
		Ref: ref, Author: q.Get("author"), Message: q.Get("comment"), Changes: q["changes"], Config: config, Pause: !q.Has("pause") || flag(q, "pause"),
	})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, container.CommitResponse{ID: id})
}
