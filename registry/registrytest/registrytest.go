// Package registrytest is a small registry for tests: it takes pushes and gives
// pulls by the distribution protocol, with faults on demand.
//
// It is not a product: content lives in memory. Invariant: without faults it answers as the
// distribution specification (v1.1) says, so that other people's clients work against it.
package registrytest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
)

// Server is a registry. It is an http.Handler; the zero value is not usable, see New.
type Server struct {
	mu      sync.Mutex
	repos   map[string]*repo
	uploads map[string]*upload
	serial  int
	faults  Faults
	access  Access
	tokens  map[string]grant
	log     []string
}

type repo struct {
	blobs     map[digest.Digest][]byte
	manifests map[digest.Digest]manifest
	tags      map[string]digest.Digest
}

type manifest struct {
	mediaType string
	data      []byte
}

type upload struct {
	repo string
	data []byte
}

// Faults are what the server does wrong from now on.
type Faults struct {
	CutAfter   int64           // bytes of a blob after which the connection is cut; 0 = never
	Cuts       int             // how often; 0 = always
	Corrupt    []digest.Digest // blobs and manifests that are sent with one bit turned
	Missing    []digest.Digest // blobs that were lost
	TooMany    int             // so many next requests are answered with 429
	RetryAfter string          // the header beside them
	Failing    int             // so many next requests are answered with 503
	NoRanges   bool            // ranges are ignored
	NoDigest   bool            // the manifest's digest is not told
	NoHead     bool            // HEAD is answered with 405
}

// Access is who may do what. The zero value lets everybody do everything.
type Access struct {
	Scheme  string            // "", "basic" or "bearer"
	Users   map[string]string // passwords by name; a user may do everything
	Private []string          // repositories that an anonymous user may not pull; he may push nowhere
}

// New returns an empty registry.
func New() *Server {
	return &Server{repos: map[string]*repo{}, uploads: map[string]*upload{}, tokens: map[string]grant{}}
}

// SetFaults replaces the faults.
func (s *Server) SetFaults(f Faults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = f
}

// SetAccess replaces the rules of access.
func (s *Server) SetAccess(a Access) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.access = a
}

// Requests returns the requests so far, as "METHOD /path" with the Range behind it if there was one.
func (s *Server) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.log)
}

// Blob puts content into a repository and returns its digest.
func (s *Server) Blob(name string, data []byte) digest.Digest {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := digest.FromBytes(data)
	s.repo(name).blobs[d] = data
	return d
}

// Manifest puts a manifest or index into a repository under a tag ("" = none) and returns its digest.
func (s *Server) Manifest(name, tag, mediaType string, data []byte) digest.Digest {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := digest.FromBytes(data)
	s.repo(name).manifests[d] = manifest{mediaType, data}
	if tag != "" {
		s.repo(name).tags[tag] = d
	}
	return d
}

// repo returns a repository, made if it is new; the caller holds s.mu.
func (s *Server) repo(name string) *repo {
	r := s.repos[name]
	if r == nil {
		r = &repo{map[digest.Digest][]byte{}, map[digest.Digest]manifest{}, map[string]digest.Digest{}}
		s.repos[name] = r
	}
	return r
}

var route = regexp.MustCompile(`^/v2/([a-z0-9]+(?:[._/-]+[a-z0-9]+)*)/(blobs/uploads/|blobs|manifests|tags|referrers)/?(.*)$`)

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+r.Header.Get("Range")))
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	switch {
	case r.URL.Path == "/token":
		s.token(w, r)
		return
	case s.fail(w):
		return
	case r.URL.Path == "/v2/" || r.URL.Path == "/v2":
		if s.allowed(w, r, "", "") {
			fmt.Fprint(w, "{}")
		}
		return
	}
	m := route.FindStringSubmatch(r.URL.Path)
	if m == nil {
		refuse(w, http.StatusNotFound, "NAME_INVALID", "no such route")
		return
	}
	action := "push"
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		action = "pull"
	}
	if !s.allowed(w, r, m[1], action) {
		return
	}
	switch m[2] {
	case "blobs/uploads/":
		s.upload(w, r, m[1], m[3])
	case "blobs":
		s.blob(w, r, m[1], m[3])
	case "manifests":
		s.manifest(w, r, m[1], m[3])
	case "tags":
		s.tagList(w, m[1])
	case "referrers":
		w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
		fmt.Fprint(w, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)
	}
}

// fail answers with a fault that stands before all else.
func (s *Server) fail(w http.ResponseWriter) bool {
	switch {
	case s.faults.TooMany > 0:
		s.faults.TooMany--
		if s.faults.RetryAfter != "" {
			w.Header().Set("Retry-After", s.faults.RetryAfter)
		}
		refuse(w, http.StatusTooManyRequests, "TOOMANYREQUESTS", "you have reached your pull rate limit")
	case s.faults.Failing > 0:
		s.faults.Failing--
		refuse(w, http.StatusServiceUnavailable, "UNAVAILABLE", "under maintenance")
	default:
		return false
	}
	return true
}

// refuse answers with an error of the distribution specification.
func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]any{"errors": []map[string]string{{"code": code, "message": message}}})
}

func (s *Server) tagList(w http.ResponseWriter, name string) {
	r := s.repos[name]
	if r == nil {
		refuse(w, http.StatusNotFound, "NAME_UNKNOWN", "repository name not known to registry")
		return
	}
	tags := []string{}
	for t := range r.tags {
		tags = append(tags, t)
	}
	slices.Sort(tags)
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"name": name, "tags": tags})
}
