package daemon

import (
	"io"
	"net/http"
	"strings"

	service "berth/engine/images"
	"berth/fault"

	"github.com/moby/moby/api/types/registry"
)

// registries serves what is asked of registries without an image here: /auth and /distribution.
type registries struct{ engine *service.Service }

// The patterns with "-" are made by imagePath from /distribution/NAME/VERB.
func (s registries) routes() []route {
	return []route{
		{"POST", "/auth", s.login},
		{"GET", "/distribution/-/json/{name...}", s.inspect},
		{"GET", "/distribution/-/manifest/{name...}", s.manifest},
		{"PUT", "/distribution/-/manifest/{name...}", s.put},
	}
}

func (s registries) login(w http.ResponseWriter, r *http.Request) error {
	var auth registry.AuthConfig
	if err := readJSON(r, &auth, false); err != nil {
		return err
	}
	answer, err := s.engine.Login(r.Context(), auth)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, answer)
}

// service is what answers a request: one that trusts the registry without proof when the user says so.
func (s registries) service(r *http.Request) (engine *service.Service, done func(), err error) {
	if !flag(r.URL.Query(), "insecure") {
		return s.engine, func() {}, nil
	}
	return s.engine.Insecurely(r.PathValue("name"))
}

func (s registries) inspect(w http.ResponseWriter, r *http.Request) error {
	engine, done, err := s.service(r)
	if err != nil {
		return err
	}
	defer done()
	d, err := engine.Distribution(r.Context(), r.PathValue("name"), parseAuth(r.Header.Get(registry.AuthHeader)))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, d)
}

// manifest gives a registry's document as it is.
func (s registries) manifest(w http.ResponseWriter, r *http.Request) error {
	engine, done, err := s.service(r)
	if err != nil {
		return err
	}
	defer done()
	desc, data, err := engine.Manifest(r.Context(), r.PathValue("name"), parseAuth(r.Header.Get(registry.AuthHeader)))
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", desc.MediaType)
	w.Header().Set("Docker-Content-Digest", desc.Digest.String())
	_, err = w.Write(data)
	return err
}

// maxManifest bounds a document for a registry, in bytes, as the distribution specification lets registries do.
const maxManifest = 4 << 20

// put stores a document in a registry.
func (s registries) put(w http.ResponseWriter, r *http.Request) error {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxManifest))
	if err != nil {
		return fault.New(fault.Invalid, "read the manifest: %w", err)
	}
	mediaType, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	engine, done, err := s.service(r)
	if err != nil {
		return err
	}
	defer done()
	desc, err := engine.PutManifest(r.Context(), service.PutRequest{
		Ref: r.PathValue("name"), MediaType: mediaType, Data: data, From: r.URL.Query()["from"], Auth: parseAuth(r.Header.Get(registry.AuthHeader)),
	})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, desc)
}
