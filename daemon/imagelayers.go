package daemon

import (
	"bufio"
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"

	"berth/engine/layers"
	"berth/fault"
)

// imageLayers serves what looks into images.
type imageLayers struct {
	engine *layers.Explorer
	log    *slog.Logger
}

func (s imageLayers) routes() []route {
	return []route{
		{"GET", "/images/-/layers/{name...}", s.layers},
		{"GET", "/images/-/files/{name...}", s.files},
		{"GET", "/images/-/diff/{name...}", s.diff},
	}
}

func (s imageLayers) layers(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	platform, err := parsePlatform(q.Get("platform"))
	if err != nil {
		return err
	}
	top, err := number(q, "top", 10)
	if err != nil {
		return err
	}
	report, err := s.engine.Report(r.Context(), r.PathValue("name"), platform, top)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, report)
}

// files answers one JSON object a line.
func (s imageLayers) files(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	request := layers.FilesRequest{Ref: r.PathValue("name"), Merged: flag(q, "merged"), Path: q.Get("path")}
	var err error
	if request.Platform, err = parsePlatform(q.Get("platform")); err != nil {
		return err
	}
	if request.Layer, err = number(q, "layer", -1); err != nil {
		return err
	}
	if q.Has("layer") && request.Layer < 0 {
		return fault.New(fault.Invalid, "query value layer=%d: layers are counted from 0, the deepest", request.Layer)
	}
	out := newDocument(w, "application/x-ndjson")
	err = s.engine.Files(r.Context(), request, func(f layers.File) error { return out.enc.Encode(f) })
	return s.end(w, r, out, err)
}

// diff answers one object whose Files are written as they are found.
func (s imageLayers) diff(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	platform, err := parsePlatform(q.Get("platform"))
	if err != nil {
		return err
	}
	if q.Get("to") == "" {
		return fault.New(fault.Invalid, "no second image is named: give ?to=IMAGE")
	}
	out := newDocument(w, "application/json")
	separator := ""
	totals, err := s.engine.Diff(r.Context(), r.PathValue("name"), q.Get("to"), platform, func(c layers.Comparison) error {
		head, err := plain(c)
		out.WriteString(strings.TrimSuffix(head, "}") + `,"Files":[`) // the object stays open
		return err
	}, func(d layers.Difference) error {
		one, err := plain(d)
		out.WriteString(separator + one)
		separator = ","
		return err
	})
	if err == nil {
		var tail string
		if tail, err = plain(totals); err == nil {
			_, err = out.WriteString("]," + strings.TrimPrefix(tail, "{") + "\n")
		}
	}
	return s.end(w, r, out, err)
}

// plain is v as JSON in which angle brackets and ampersands stay as they are.
func plain(v any) (string, error) {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return strings.TrimSuffix(b.String(), "\n"), err
}

// document is an answer that is written while it is found. What fits its buffer can still become an error's answer.
type document struct {
	*bufio.Writer
	enc *json.Encoder
}

func newDocument(w http.ResponseWriter, contentType string) document {
	w.Header().Set("Content-Type", contentType)
	b := bufio.NewWriterSize(w, 64<<10)
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	return document{b, enc}
}

// end finishes the answer. One that breaks off must not look like a whole one.
func (s imageLayers) end(w http.ResponseWriter, r *http.Request, out document, err error) error {
	if err == nil {
		return out.Flush()
	}
	if w.(*tracked).started {
		s.log.Warn("an answer was cut", "path", r.URL.Path, "error", err)
		panic(http.ErrAbortHandler)
	}
	return err
}
