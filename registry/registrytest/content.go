package registrytest

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// blob answers GET, HEAD and DELETE of a blob. It gives s.mu back while the bytes flow.
func (s *Server) blob(w http.ResponseWriter, r *http.Request, name, ref string) {
	d := digest.Digest(ref)
	data, ok := s.repo(name).blobs[d]
	if !ok || slices.Contains(s.faults.Missing, d) {
		refuse(w, http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown to registry")
		return
	}
	switch r.Method {
	case http.MethodDelete:
		delete(s.repo(name).blobs, d)
		w.WriteHeader(http.StatusAccepted)
		return
	case http.MethodGet, http.MethodHead:
	default:
		refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED", r.Method)
		return
	}
	data = s.spoiled(d, data, s.faults.Lying)
	if s.faults.BlobHost != "" && !strings.HasSuffix(s.faults.BlobHost, "//"+r.Host) {
		http.Redirect(w, r, s.faults.BlobHost+r.URL.Path+"?signature=secret", http.StatusTemporaryRedirect)
		return
	}
	if s.faults.NoRanges {
		r.Header.Del("Range")
	}
	if s.faults.CutAfter > 0 && r.Method == http.MethodGet {
		w = &cutting{w, s, s.faults.CutAfter}
	}
	w.Header().Set("Docker-Content-Digest", ref)
	w.Header().Set("Content-Type", "application/octet-stream")
	s.mu.Unlock()
	defer s.mu.Lock()
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}

// spoiled returns data as it is sent: damaged if it shall be.
func (s *Server) spoiled(d digest.Digest, data []byte, lying bool) []byte {
	if (lying || slices.Contains(s.faults.Corrupt, d)) && len(data) > 0 {
		data = slices.Clone(data)
		data[len(data)/2] ^= 1
	}
	return data
}

// cutting ends the connection after so many bytes.
type cutting struct {
	http.ResponseWriter
	s    *Server
	left int64
}

// Write passes bytes on until it is time to cut.
func (c *cutting) Write(p []byte) (int, error) {
	if int64(len(p)) <= c.left {
		c.left -= int64(len(p))
		return c.ResponseWriter.Write(p)
	}
	c.ResponseWriter.Write(p[:c.left])
	c.s.cut()
	if f, ok := c.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
	// ServeHTTP's own unlock still runs, as blob takes the lock again while the panic passes.
	panic(http.ErrAbortHandler)
}

// cut counts a cut and ends them when there were enough.
func (s *Server) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.faults.Cuts > 0 {
		if s.faults.Cuts--; s.faults.Cuts == 0 {
			s.faults.CutAfter = 0
		}
	}
}

func (s *Server) manifest(w http.ResponseWriter, r *http.Request, name, ref string) {
	known := s.repos[name]
	if r.Method == http.MethodPut {
		s.putManifest(w, r, name, ref)
		return
	}
	if known == nil {
		refuse(w, http.StatusNotFound, "NAME_UNKNOWN", "repository name not known to registry")
		return
	}
	d := digest.Digest(ref)
	if d.Validate() != nil {
		d = known.tags[ref]
	}
	m, ok := known.manifests[d]
	if !ok {
		refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown")
		return
	}
	switch {
	case r.Method == http.MethodDelete:
		delete(known.manifests, d)
		w.WriteHeader(http.StatusAccepted)
		return
	case r.Method == http.MethodHead && s.faults.NoHead:
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	if !s.faults.NoDigest {
		w.Header().Set("Docker-Content-Digest", d.String())
	}
	w.Header().Set("Content-Type", m.mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(m.data)))
	if r.Method == http.MethodGet {
		w.Write(s.spoiled(d, m.data, false))
	}
}

func (s *Server) putManifest(w http.ResponseWriter, r *http.Request, name, ref string) {
	data, err := io.ReadAll(io.LimitReader(r.Body, 4<<20))
	if err != nil {
		refuse(w, http.StatusBadRequest, "MANIFEST_INVALID", err.Error())
		return
	}
	d := digest.FromBytes(data)
	if want := digest.Digest(ref); want.Validate() == nil {
		if want != d {
			refuse(w, http.StatusBadRequest, "DIGEST_INVALID", "content has digest "+d.String())
			return
		}
	} else {
		s.repo(name).tags[ref] = d
	}
	s.repo(name).manifests[d] = manifest{r.Header.Get("Content-Type"), data}
	w.Header().Set("Location", "/v2/"+name+"/manifests/"+d.String())
	w.Header().Set("Docker-Content-Digest", d.String())
	w.WriteHeader(http.StatusCreated)
}

// upload takes a blob in one request (POST with digest), in two (POST, PUT) or in parts (POST, PATCH…, PUT), or from
// another repository (POST with mount). It gives s.mu back while the bytes flow.
func (s *Server) upload(w http.ResponseWriter, r *http.Request, name, id string) {
	query := r.URL.Query()
	if r.Method == http.MethodPost {
		if s.mount(name, query.Get("from"), digest.Digest(query.Get("mount"))) {
			s.created(w, name, digest.Digest(query.Get("mount")))
			return
		}
		s.serial++
		id = strconv.Itoa(s.serial)
		s.uploads[id] = &upload{repo: name}
	} else if s.faults.LostUploads > 0 {
		s.faults.LostUploads--
		delete(s.uploads, id)
	}
	u := s.uploads[id]
	if u == nil || u.repo != name {
		refuse(w, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "upload unknown to registry")
		return
	}
	if r.Method == http.MethodDelete {
		delete(s.uploads, id)
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if first, _, ok := strings.Cut(r.Header.Get("Content-Range"), "-"); ok && first != strconv.Itoa(len(u.data)) {
		s.uploadState(w, r, name, id, u, http.StatusRequestedRangeNotSatisfiable)
		return
	}
	if err := s.receive(u, r); err != nil {
		refuse(w, http.StatusBadRequest, "BLOB_UPLOAD_INVALID", err.Error())
		return
	}
	if want := digest.Digest(query.Get("digest")); want != "" && (r.Method == http.MethodPut || r.Method == http.MethodPost) {
		delete(s.uploads, id)
		if d := digest.FromBytes(u.data); d != want {
			refuse(w, http.StatusBadRequest, "DIGEST_INVALID", "content has digest "+d.String())
			return
		}
		s.repo(name).blobs[want] = u.data
		s.created(w, name, want)
		return
	}
	status := http.StatusAccepted
	if r.Method == http.MethodGet {
		status = http.StatusNoContent
	}
	s.uploadState(w, r, name, id, u, status)
}

func (s *Server) mount(name, from string, d digest.Digest) bool {
	if d == "" || s.repos[from] == nil || s.faults.NoMounts {
		return false
	}
	data, ok := s.repos[from].blobs[d]
	if ok {
		s.repo(name).blobs[d] = data
	}
	return ok
}

// receive appends a request's body to an upload, unless the connection is to be cut before its end: what came is kept.
func (s *Server) receive(u *upload, r *http.Request) error {
	var limit int64
	if r.ContentLength != 0 && r.Method != http.MethodGet {
		limit = s.faults.CutUpload
	}
	s.mu.Unlock()
	var data []byte
	var err error
	if limit > 0 {
		data, err = io.ReadAll(io.LimitReader(r.Body, limit))
	} else {
		data, err = io.ReadAll(r.Body)
	}
	s.mu.Lock()
	u.data = append(u.data, data...)
	if limit > 0 && int64(len(data)) == limit && r.ContentLength != limit {
		if s.faults.CutUploads > 0 {
			if s.faults.CutUploads--; s.faults.CutUploads == 0 {
				s.faults.CutUpload = 0
			}
		}
		panic(http.ErrAbortHandler)
	}
	return err
}

func (s *Server) uploadState(w http.ResponseWriter, r *http.Request, name, id string, u *upload, status int) {
	base := s.faults.UploadHost
	if base == "" && s.faults.Absolute {
		base = scheme(r) + "://" + r.Host
	}
	w.Header().Set("Location", base+"/v2/"+name+"/blobs/uploads/"+id+"?_state=of%3D"+strconv.Itoa(len(u.data)))
	w.Header().Set("Docker-Upload-UUID", id)
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(0, len(u.data)-1)))
	w.WriteHeader(status)
}

func (s *Server) created(w http.ResponseWriter, name string, d digest.Digest) {
	w.Header().Set("Location", "/v2/"+name+"/blobs/"+d.String())
	w.Header().Set("Docker-Content-Digest", d.String())
	w.WriteHeader(http.StatusCreated)
}
