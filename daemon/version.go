package daemon

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// The API versions that are served. The newest is that of the wire types' module.
const (
	newestMinor = 56
	oldestMinor = 24
	// archivesMinor is what the skopeo and podman of years ask for images in, whatever the engine says that it serves.
	archivesMinor = 22
)

// apiVersion is a version of the API, which has always been 1.x: the minor number.
type apiVersion int

func (v apiVersion) String() string { return "1." + strconv.Itoa(int(v)) }

type versionKey struct{}

// versionOf is the API version that the client of this request speaks.
func versionOf(r *http.Request) apiVersion {
	if v, ok := r.Context().Value(versionKey{}).(apiVersion); ok {
		return v
	}
	return newestMinor
}

var versionPrefix = regexp.MustCompile(`^/v([0-9]+)\.([0-9]+)(/.*)$`)

// versioned strips the version from the path, refuses the ones that are not
// served, and sets the headers that every answer carries.
func (s *Server) versioned(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Api-Version", apiVersion(newestMinor).String())
		h.Set("Docker-Experimental", "false")
		h.Set("Ostype", runtime.GOOS)
		h.Set("Server", "Berth/"+s.config.Version+" ("+runtime.GOOS+")")
		if r.URL.Path != "" && strings.HasPrefix(r.URL.Path, "/v") {
			v, rest, err := splitVersion(r.URL.Path)
			if err != nil {
				writeMessage(w, http.StatusBadRequest, err.Error())
				return
			}
			if rest != "" {
				r2 := r.WithContext(context.WithValue(r.Context(), versionKey{}, v))
				u := *r.URL
				u.Path, u.RawPath = rest, ""
				r2.URL = &u
				r = r2
			}
		}
		s.log.Debug("request", "method", r.Method, "path", r.URL.Path)
		// Names come with or without their leading slash; an image's name may hold
		// slashes, which the mux's patterns can't, so it is moved behind the verb.
		r.URL.Path = imagePath(r.Method, strings.ReplaceAll(r.URL.Path, "//", "/"))
		next.ServeHTTP(w, r)
	})
}

// splitVersion takes "/v1.41/containers/json" apart. A path without a version gives an empty rest.
func splitVersion(path string) (apiVersion, string, error) {
	m := versionPrefix.FindStringSubmatch(path)
	if m == nil {
		return 0, "", nil
	}
	minor, err := strconv.Atoi(m[2])
	if m[1] != "1" || err != nil || minor > newestMinor {
		return 0, "", fmt.Errorf("client version %s.%s is too new. Maximum supported API version is %s", m[1], m[2], apiVersion(newestMinor))
	}
	if minor < oldestMinor && (minor < archivesMinor || !strings.HasPrefix(m[3], "/images/")) {
		return 0, "", fmt.Errorf("client version %s.%s is too old. Minimum supported API version is %s, please upgrade your client to a newer version", m[1], m[2], apiVersion(oldestMinor))
	}
	return apiVersion(minor), m[3], nil
}

// imageVerbs are the last elements of /images/NAME/VERB, by method.
var imageVerbs = map[string][]string{
	http.MethodGet:  {"json", "history", "get", "attestations", "layers", "files", "diff"},
	http.MethodPost: {"push", "tag"},
}

// imagePath rewrites /images/a/b/c/json to /images/-/json/a/b/c, and
// DELETE's /images/a/b/c to /images/-/self/a/b/c, so that names with slashes
// fit a pattern with a trailing wildcard. /distribution is the same.
func imagePath(method, path string) string {
	name, ok := strings.CutPrefix(path, "/images/")
	if !ok {
		if name, ok = strings.CutPrefix(path, "/distribution/"); !ok {
			return path
		}
		if i := strings.LastIndexByte(name, '/'); i > 0 {
			return "/distribution/-/" + name[i+1:] + "/" + name[:i]
		}
		return path
	}
	if i := strings.LastIndexByte(name, '/'); i > 0 && slices.Contains(imageVerbs[method], name[i+1:]) {
		return "/images/-/" + name[i+1:] + "/" + name[:i]
	}
	if method == http.MethodDelete {
		return "/images/-/self/" + name
	}
	return path
}
