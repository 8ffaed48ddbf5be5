package registrytest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// grant is what a token allows.
type grant struct {
	actions map[string][]string // by repository
	uses    int                 // left; -1 = any number
}

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
		if ok && g.uses == 0 {
			delete(s.tokens, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
			ok = false
		}
		if ok && (name == "" || slices.Contains(g.actions[name], action)) {
			g.uses--
			return true
		}
		realm := s.access.Realm
		if realm == "" {
			realm = scheme(r) + "://" + r.Host + "/token"
		}
		challenge := fmt.Sprintf(`Bearer realm="%s",service="registrytest"`, realm)
		if name != "" {
			challenge += fmt.Sprintf(`,scope="repository:%s:%s"`, name, pullToo(action))
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

// pullToo is the scope for an action, as registries ask for it.
func pullToo(action string) string {
	if action == "push" {
		return "pull,push"
	}
	return action
}

func scheme(r *http.Request) string {
	if r.TLS != nil {
		return "https"
	}
	return "http"
}

// token gives bearer tokens, to anonymous users too: they may pull what is not private. GET is the token protocol, POST is OAuth2.
func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	user, password, given := r.BasicAuth()
	form := r.URL.Query()
	scopes := form["scope"]
	offline := form.Get("offline_token") == "true"
	if r.Method == http.MethodPost {
		if r.ParseForm() != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		form, given = r.PostForm, true
		scopes = strings.Fields(form.Get("scope"))
		offline = form.Get("access_type") == "offline"
		user, password = form.Get("username"), form.Get("password")
		if form.Get("grant_type") == "refresh_token" {
			if user = s.access.Identity[form.Get("refresh_token")]; user != "" {
				password = s.access.Users[user]
			}
		}
	}
	if given && !s.knows(user, password) {
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"details":"incorrect username or password"}`)
		return
	}
	g := &grant{actions: map[string][]string{}, uses: s.access.Uses}
	if g.uses == 0 {
		g.uses = -1
	}
	for _, scope := range scopes {
		part := strings.Split(scope, ":")
		if len(part) != 3 || part[0] != "repository" {
			continue
		}
		for _, action := range strings.Split(part[2], ",") {
			if given || action == "pull" && !slices.Contains(s.access.Private, part[1]) {
				g.actions[part[1]] = append(g.actions[part[1]], action)
			}
		}
	}
	s.serial++
	token := "token-" + strconv.Itoa(s.serial)
	s.tokens[token] = g
	answer := map[string]any{"token": token, "access_token": token, "expires_in": 300}
	if offline && user != "" {
		if s.access.Identity == nil {
			s.access.Identity = map[string]string{}
		}
		s.access.Identity["identity-of-"+user] = user
		answer["refresh_token"] = "identity-of-" + user
	}
	json.NewEncoder(w).Encode(answer)
}
