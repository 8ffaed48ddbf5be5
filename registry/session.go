package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// errNoCredentials: a password is wanted, and there is none.
var errNoCredentials = errors.New("no basic auth credentials")

const (
	maxToken     = 1 << 20          // bytes of a token server's answer
	tokenLife    = 60 * time.Second // of a token whose life isn't told (token specification)
	tokenMargin  = 10 * time.Second // before its end a token is renewed, at most
	maxKeptScope = 1024             // tokens kept in one session
	maxRenewals  = 2                // of a token for one request: another one may have used it up
)

// session is one user at one host: what he has shown, and got for it.
type session struct {
	lane *lane
	auth Auth
	turn chan struct{} // holds one element while a token is fetched, so that one is enough for all

	mu      sync.Mutex
	tokens  map[string]token // by scopes
	refresh string           // an identity token that replaced the one given
}

type token struct {
	value string
	until time.Time
}

func newSession(l *lane, a Auth) *session {
	return &session{lane: l, auth: a, turn: make(chan struct{}, 1), tokens: map[string]token{}}
}

// do sends a request with what the host wants to see, asking its token server where needed. A body must be repeatable (GetBody).
func (s *session) do(req *http.Request, scopes []string) (*http.Response, error) {
	ctx := req.Context()
	shown := ""
	// What the host wanted last time is shown at once, but a password only if there is one: some of it may be for all.
	if wanted := s.lane.wanted(); wanted != nil && (!wanted.basic || s.hasPassword()) {
		var err error
		var p *problem
		switch shown, err = s.answer(ctx, *wanted, scopes, ""); {
		case err == nil:
			req.Header.Set("Authorization", shown)
		case ctx.Err() != nil || errors.As(err, &p) || errors.Is(err, errNoCredentials):
			return nil, err
		} // else the token server may have moved: the host is asked again what it wants
	}
	for range maxRenewals {
		resp, err := s.lane.send(req)
		if err != nil || resp.StatusCode != http.StatusUnauthorized || !sameOrigin(req.URL, resp.Request.URL) {
			return resp, err
		}
		wanted, ok := parseChallenges(resp.Header.Values("Www-Authenticate"))
		if !ok {
			return resp, nil
		}
		s.lane.learn(wanted)
		if wanted.refused && shown != "" {
			scopes = union(scopes, wanted.scope)
		}
		answer, err := s.answer(ctx, wanted, scopes, shown)
		if err != nil {
			discard(resp)
			return nil, err
		}
		if answer == shown {
			return resp, nil // there is no more to show
		}
		discard(resp)
		if req, err = repeat(req); err != nil {
			return nil, err
		}
		shown = answer
		req.Header.Set("Authorization", shown)
	}
	return s.lane.send(req)
}

// repeat returns the same request, to be sent once more.
func repeat(req *http.Request) (again *http.Request, err error) {
	again = req.Clone(req.Context())
	if req.GetBody != nil {
		again.Body, err = req.GetBody()
	}
	return again, err
}

func (s *session) hasPassword() bool { return s.auth.Username != "" || s.auth.Password != "" }

// answer returns the Authorization header for a challenge. failed is one that was refused just now.
func (s *session) answer(ctx context.Context, c challenge, scopes []string, failed string) (string, error) {
	switch {
	case c.basic && !s.hasPassword():
		return "", errNoCredentials
	case c.basic:
		r := http.Request{Header: http.Header{}}
		r.SetBasicAuth(s.auth.Username, s.auth.Password)
		return r.Header.Get("Authorization"), nil
	case s.auth.RegistryToken != "":
		return "Bearer " + s.auth.RegistryToken, nil
	}
	if len(scopes) == 0 {
		scopes = c.scope
	}
	key := strings.Join(scopes, " ")
	if t := s.known(key, failed); t != "" {
		return t, nil
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	if t := s.known(key, failed); t != "" {
		return t, nil
	}
	got, err := s.fetch(ctx, c, scopes, false)
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.tokens) >= maxKeptScope {
		clear(s.tokens)
	}
	life := tokenLife
	if got.ExpiresIn > 0 {
		life = time.Duration(min(got.ExpiresIn, 1<<30)) * time.Second
	}
	s.tokens[key] = token{"Bearer " + got.value(), time.Now().Add(life - min(tokenMargin, life/5))}
	return s.tokens[key].value, nil
}

// known returns a token that still lives and didn't fail.
func (s *session) known(key, failed string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tokens[key]; t.value != failed && time.Now().Before(t.until) {
		return t.value
	}
	return ""
}

// grant is a token server's answer.
type grant struct {
	Token        string `json:"token"`
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
	ExpiresIn    int64  `json:"expires_in"` // seconds
}

func (g *grant) value() string {
	if g.Token != "" {
		return g.Token
	}
	return g.AccessToken
}

// fetch asks the token server. offline: it is asked for an identity token as well.
func (s *session) fetch(ctx context.Context, c challenge, scopes []string, offline bool) (*grant, error) {
	realm, err := s.realm(c)
	if err != nil {
		return nil, err
	}
	req, err := s.tokenRequest(ctx, realm, c, scopes, offline)
	if err != nil {
		return nil, err
	}
	resp, err := s.lane.send(req)
	if err != nil {
		return nil, fmt.Errorf("get a token: %w", err)
	}
	defer discard(resp)
	if resp.StatusCode != http.StatusOK {
		p := readProblem(resp)
		p.token = true
		return nil, p
	}
	var g grant
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxToken+1))
	if err == nil && len(data) > maxToken {
		err = fmt.Errorf("the answer is longer than %d bytes", maxToken)
	}
	if err == nil {
		err = json.Unmarshal(data, &g)
	}
	if err != nil {
		return nil, fmt.Errorf("get a token from %s: %w", realm.Host, err)
	}
	if g.value() == "" {
		return nil, fmt.Errorf("get a token from %s: authorization server did not include a token in the response", realm.Host)
	}
	if g.RefreshToken != "" && s.auth.IdentityToken != "" {
		s.mu.Lock()
		s.refresh = g.RefreshToken
		s.mu.Unlock()
	}
	return &g, nil
}

// realm checks where a token is to be had: nowhere that shows in clear text what the registry itself would not see so.
func (s *session) realm(c challenge) (*url.URL, error) {
	u, err := url.Parse(c.realm)
	if err == nil && (u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil) {
		err = errors.New("it is no http or https address")
	}
	if err != nil {
		return nil, fmt.Errorf("%s sends to a token server that can't be asked: %w", s.lane.host, err)
	}
	return u, nil
}

func (s *session) tokenRequest(ctx context.Context, realm *url.URL, c challenge, scopes []string, offline bool) (*http.Request, error) {
	q := url.Values{}
	if c.service != "" {
		q.Set("service", c.service)
	}
	s.mu.Lock()
	identity := s.refresh
	s.mu.Unlock()
	if identity == "" {
		identity = s.auth.IdentityToken
	}
	if identity != "" {
		q.Set("grant_type", "refresh_token")
		q.Set("refresh_token", identity)
		q.Set("client_id", s.lane.agent)
		if len(scopes) > 0 {
			q.Set("scope", strings.Join(scopes, " "))
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, realm.String(), strings.NewReader(q.Encode()))
		if err == nil {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		return req, err
	}
	for _, scope := range scopes {
		q.Add("scope", scope)
	}
	if offline {
		q.Set("offline_token", "true")
		q.Set("client_id", s.lane.agent)
	}
	if s.auth.Username != "" {
		q.Set("account", s.auth.Username)
	}
	u := *realm
	if u.RawQuery != "" && len(q) > 0 {
		u.RawQuery += "&"
	}
	u.RawQuery += q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err == nil && s.hasPassword() {
		req.SetBasicAuth(s.auth.Username, s.auth.Password)
	}
	return req, err
}

func union(a, b []string) []string {
	a = slices.Clone(a)
	for _, s := range b {
		if !slices.Contains(a, s) {
			a = append(a, s)
		}
	}
	return a
}

// sameOrigin tells whether two addresses are the same scheme, host and port: what one may see, the other may.
func sameOrigin(a, b *url.URL) bool {
	return strings.EqualFold(a.Scheme, b.Scheme) && strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b)
}

func port(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case strings.EqualFold(u.Scheme, "http"):
		return "80"
	}
	return "443"
}
