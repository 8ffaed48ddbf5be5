package registrytest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// grant is what a token allows: actions by repository.
type grant map[string][]string

// allowed answers the request itself when it may not pass.
func (s *Server) allowed(w http.ResponseWriter, r *http.Request, name, action string) bool {
	switch s.access.Scheme {
	case "basic":
		if user, password, ok := r.BasicAuth(); ok && s.knows(user, password) {
			return true
		}
		w.Header().Set("Www-Authenticate", `Basic realm="registrytest"`)
	case "bearer":
		g, ok := s.tokens[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
		if ok && (name == "" || slices.Contains(g[name], action)) {
			return true
		}
		challenge := fmt.Sprintf(`Bearer realm="http://%s/token",service="registrytest"`, r.Host)
		if name != "" {
			challenge += fmt.Sprintf(`,scope="repository:%s:%s"`, name, action)
		}
		if ok {
			challenge += `,error="insufficient_scope"`
		}
		w.Header().Set("Www-Authenticate", challenge)
	default:
		return true
	}
	refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
	return false
}

func (s *Server) knows(user, password string) bool {
	have, ok := s.access.Users[user]
	return ok && have == password
}

// token gives bearer tokens, to anonymous users too: they may pull what is not private.
func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	user, password, given := r.BasicAuth()
	if given && !s.knows(user, password) {
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"details":"incorrect username or password"}`)
		return
	}
	g := grant{}
	for _, scope := range r.URL.Query()["scope"] {
		part := strings.Split(scope, ":")
		if len(part) != 3 || part[0] != "repository" {
			continue
		}
		for _, action := range strings.Split(part[2], ",") {
			if given || action == "pull" && !slices.Contains(s.access.Private, part[1]) {
				g[part[1]] = append(g[part[1]], action)
			}
		}
	}
	s.serial++
	token := "token-" + strconv.Itoa(s.serial)
	s.tokens[token] = g
	json.NewEncoder(w).Encode(map[string]any{"token": token, "expires_in": 300})
}
