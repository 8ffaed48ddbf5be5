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
	"strconv"
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
	tokens  map[string]*grant
	log     []string
	shown   []string
	index   []Result
}

// Result is a repository that a search finds.
type Result struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	Stars       int    `json:"star_count"`
	Official    bool   `json:"is_official"`
	Automated   bool   `json:"is_automated"`
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
	Lying      bool            // so are all blobs
	Missing    []digest.Digest // blobs that were lost
	TooMany    int             // so many next requests are answered with 429
	RetryAfter string          // the header beside them
	Failing    int             // so many next requests are answered with 503
	NoRanges   bool            // ranges are ignored
	NoDigest   bool            // the manifest's digest is not told
	NoHead     bool            // HEAD is answered with 405
	Quota      string          // Ratelimit-Limit and Ratelimit-Remaining, such as "100;w=21600 0;w=21600"

	CutUpload   int64  // bytes of an upload's request after which the connection is cut, and kept as far as they came; 0 = never
	CutUploads  int    // how often; 0 = always
	LostUploads int    // so many next requests to an upload find it forgotten
	NoMounts    bool   // nothing is mounted from another repository
	Absolute    bool   // a Location is a whole address
	UploadHost  string // such as "http://127.0.0.1:5001": uploads go on there
	BlobHost    string // blobs are had there, with ?signature=secret
	PageSize    int    // tags in one answer; 0 = all
}

// Access is who may do what. The zero value lets everybody do everything.
type Access struct {
	Scheme  string            // "", "basic" or "bearer"
	Users   map[string]string // passwords by name; a user may do everything
	Private []string          // repositories that an anonymous user may not pull; he may push nowhere
	Realm   string            // of the token server; "" = /token on the host that was asked
	// Identity tokens that stand for users' names. A user who asks for one by name and password gets "identity-of-NAME".
	Identity map[string]string
	Uses     int // requests that a token is good for; 0 = any number
}

// New returns an empty registry.
func New() *Server {
	return &Server{repos: map[string]*repo{}, uploads: map[string]*upload{}, tokens: map[string]*grant{}}
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

// Shown returns the requests that carried credentials, as "METHOD host/path".
func (s *Server) Shown() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.shown)
}

// SetIndex replaces what searches find.
func (s *Server) SetIndex(list []Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.index = list
}

// Content returns a blob or manifest that a repository has, nil if it hasn't.
func (s *Server) Content(name string, d digest.Digest) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.repos[name]
	if r == nil {
		return nil
	}
	if m, ok := r.manifests[d]; ok {
		return m.data
	}
	return r.blobs[d]
}

// Tag returns what a tag of a repository means, "" if nothing.
func (s *Server) Tag(name, tag string) digest.Digest {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.repos[name]; r != nil {
		return r.tags[tag]
	}
	return ""
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
	if r.Header.Get("Authorization") != "" {
		s.shown = append(s.shown, r.Method+" "+r.Host+r.URL.Path)
	}
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	switch {
	case r.URL.Path == "/token":
		s.token(w, r)
		return
	case s.fail(w):
		return
	case r.URL.Path == "/v1/search":
		s.search(w, r)
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
		s.tagList(w, r, m[1])
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
		if limit, left, ok := strings.Cut(s.faults.Quota, " "); ok {
			w.Header().Set("Ratelimit-Limit", limit)
			w.Header().Set("Ratelimit-Remaining", left)
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

func (s *Server) tagList(w http.ResponseWriter, req *http.Request, name string) {
	r := s.repos[name]
	if r == nil {
		refuse(w, http.StatusNotFound, "NAME_UNKNOWN", "repository name not known to registry")
		return
	}
	tags := []string{}
	for t := range r.tags {
		if t > req.URL.Query().Get("last") {
			tags = append(tags, t)
		}
	}
	slices.Sort(tags)
	size := s.faults.PageSize
	if n, err := strconv.Atoi(req.URL.Query().Get("n")); err == nil && n > 0 && (size == 0 || n < size) {
		size = n
	}
	if size > 0 && len(tags) > size {
		tags = tags[:size]
		w.Header().Set("Link", fmt.Sprintf(`</v2/%s/tags/list?n=%d&last=%s>; rel="next"`, name, size, tags[size-1]))
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"name": name, "tags": tags})
}

// search answers as an index does: names that hold the word.
func (s *Server) search(w http.ResponseWriter, r *http.Request) {
	found := []Result{}
	for _, one := range s.index {
		if strings.Contains(one.Name, r.URL.Query().Get("q")) {
			found = append(found, one)
		}
	}
	if n, err := strconv.Atoi(r.URL.Query().Get("n")); err == nil && len(found) > n {
		found = found[:n]
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"query": r.URL.Query().Get("q"), "num_results": len(found), "results": found})
}
