package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/fault"
)

const (
	maxList  = 16 << 20 // bytes of one page of tags or of a search's results
	maxPages = 1000
	maxTags  = 1 << 20
)

// Tags lists a repository's tags, in the registry's order. Errors are those of Resolve. Mirrors are not asked: they needn't have all.
func (c *Client) Tags(ctx context.Context, ref reference.Named, auth Auth) ([]string, error) {
	r := c.Repository(ref, auth)
	if r.broken != nil {
		return nil, fault.Wrap(fault.Unavailable, r.broken)
	}
	tags, err := r.tags(ctx)
	return tags, r.translate(err, r.name)
}

func (r *Repository) tags(ctx context.Context) ([]string, error) {
	e := r.registry()
	q := request{method: http.MethodGet, what: "tags/list", scopes: []string{"repository:" + e.path + ":pull"}}
	var all []string
	for range maxPages {
		resp, err := r.client.ask(ctx, e, q)
		if err != nil {
			return nil, err
		}
		var page struct {
			Tags []string `json:"tags"`
		}
		err = readJSON(resp, &page)
		if err != nil {
			return nil, fmt.Errorf("list the tags of %s: %w", r.name, err)
		}
		all = append(all, page.Tags...)
		next := nextPage(resp.Request.URL, resp.Header.Values("Link"))
		if next == nil || len(page.Tags) == 0 {
			return all, nil
		}
		if len(all) > maxTags {
			break
		}
		q.at = next
	}
	return nil, fault.New(fault.Unsupported, "%s has too many tags: more than %d, or than %d pages of them", r.name, maxTags, maxPages)
}

func readJSON(resp *http.Response, v any) error {
	defer discard(resp)
	return json.NewDecoder(io.LimitReader(resp.Body, maxList)).Decode(v)
}

// Manifest is Repository.Manifest.
func (c *Client) Manifest(ctx context.Context, ref reference.Named, auth Auth) (ocispec.Descriptor, []byte, error) {
	return c.Repository(ref, auth).Manifest(ctx, ref)
}

// Login checks a user's credentials with a registry: a host, or a URL such as https://index.docker.io/v1/, which "" means.
// The identity token, if the registry gives one, is to be kept in the password's place.
// fault.Unauthorized: the registry refuses them.
func (c *Client) Login(ctx context.Context, host string, auth Auth) (status, identityToken string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, answerTime, errSlow)
	defer cancel()
	domain := registryOf(host)
	e, _, err := c.home(c.current(), domain, auth)
	if err != nil {
		return "", "", fault.Wrap(fault.Unavailable, err)
	}
	scheme, err := e.lane.speaks(ctx)
	if err != nil {
		return "", "", fault.Wrap(fault.Unavailable, err)
	}
	address := scheme + "://" + e.lane.host + e.base + "/"
	identityToken, err = e.login(ctx, address)
	var p *problem
	switch {
	case err == nil:
		return "Login Succeeded", identityToken, nil
	case context.Cause(ctx) == errSlow:
		return "", "", fault.New(fault.Unavailable, "Get %q: %w", address, errSlow)
	case errors.As(err, &p) && p.status == http.StatusUnauthorized && !p.token:
		return "", "", fault.New(fault.Unauthorized, "login attempt to %s failed with status: %d %s: %w", address, p.status, http.StatusText(p.status), wrongPassword(p))
	case p != nil && (p.status == http.StatusUnauthorized || p.status == http.StatusForbidden):
		return "", "", fault.New(fault.Unauthorized, "Get %q: %w", address, wrongPassword(p))
	case errors.Is(err, errNoCredentials):
		return "", "", fault.New(fault.Unauthorized, "Get %q: %w", address, err)
	case p != nil && p.status == http.StatusTooManyRequests:
		return "", "", fault.New(fault.Unavailable, "Get %q: %w", address, p)
	case p != nil && !p.token:
		return "", "", fault.New(fault.Unavailable, "login attempt to %s failed with status: %d %s", address, p.status, http.StatusText(p.status))
	case settled(err):
		return "", "", err
	}
	return "", "", fault.Wrap(fault.Unavailable, err)
}

// login does what the registry wants to see, and looks whether that is enough. Tokens that were got before count for nothing here.
func (e *endpoint) login(ctx context.Context, address string) (identityToken string, err error) {
	resp, err := e.ping(ctx, address, "")
	if err != nil {
		return "", err
	}
	wanted, ok := parseChallenges(resp.Header.Values("Www-Authenticate"))
	defer discard(resp)
	if resp.StatusCode == http.StatusOK {
		return "", nil // it is open to all
	}
	if resp.StatusCode != http.StatusUnauthorized || !ok {
		return "", readProblem(resp)
	}
	e.lane.learn(wanted)
	s := newSession(e.lane, e.auth)
	var header string
	if wanted.basic || e.auth.RegistryToken != "" {
		if header, err = s.answer(ctx, wanted, nil, ""); err != nil {
			return "", err
		}
	} else {
		if e.auth == (Auth{}) {
			return "", errNoCredentials
		}
		g, err := s.fetch(ctx, wanted, wanted.scope, true)
		if err != nil {
			return "", err
		}
		header, identityToken = "Bearer "+g.value(), g.RefreshToken
	}
	again, err := e.ping(ctx, address, header)
	if err != nil {
		return "", err
	}
	defer discard(again)
	if again.StatusCode != http.StatusOK {
		return "", readProblem(again)
	}
	return identityToken, nil
}

func (e *endpoint) ping(ctx context.Context, address, authorization string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	return e.lane.send(req)
}

// registryOf reads what people call a registry: a host, a URL, the default one's old address.
func registryOf(s string) string {
	_, rest, ok := strings.Cut(s, "://")
	if !ok {
		rest = s
	}
	host, _, _ := strings.Cut(rest, "/")
	switch host {
	case "", defaultIndex, defaultHost, "www." + defaultDomain:
		return defaultDomain
	}
	return host
}

// SearchFilter says which results of a search count.
type SearchFilter struct {
	Limit     int   // at most so many, 1 to 100; 0 = 25
	Stars     int   // with at least so many stars
	Official  *bool // nil = both
	Automated *bool
}

// SearchResult is one repository that an index found.
type SearchResult struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	Stars       int    `json:"star_count"`
	Official    bool   `json:"is_official"`
	Automated   bool   `json:"is_automated"`
}

// Search asks an index for repositories. The term may begin with the index's host, as in "registry.example:5000/term";
// otherwise it is the default registry's. fault.Invalid: a limit out of range, or a term that is none.
func (c *Client) Search(ctx context.Context, term string, f SearchFilter, auth Auth) ([]SearchResult, error) {
	if f.Limit == 0 {
		f.Limit = 25
	}
	if f.Limit < 1 || f.Limit > 100 {
		return nil, fault.New(fault.Invalid, "limit %d is outside the range of [1, 100]", f.Limit)
	}
	host, word := splitTerm(term)
	if strings.Contains(term, "://") {
		return nil, fault.New(fault.Invalid, "invalid repository name: repository name (%s) should not have a scheme", term)
	}
	s := c.current()
	e := &endpoint{auth: auth}
	n, err := readNamespace(s.CertDirs, host)
	if err == nil {
		e.lane, err = c.lane(s, host, "", n.trust)
	}
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err)
	}
	scheme, err := e.lane.speaks(ctx)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "search %s: %w", host, err)
	}
	query := url.Values{"q": {word}, "n": {strconv.Itoa(f.Limit)}}
	at := &url.URL{Scheme: scheme, Host: host, Path: "/v1/search", RawQuery: query.Encode()}
	resp, err := c.ask(ctx, e, request{method: http.MethodGet, at: at})
	if err != nil {
		return nil, searchError(host, err)
	}
	var found struct {
		Results []SearchResult `json:"results"`
	}
	if err := readJSON(resp, &found); err != nil {
		return nil, fmt.Errorf("search %s: read its answer: %w", host, err)
	}
	list := []SearchResult{}
	for _, one := range found.Results {
		if one.Stars < f.Stars || f.Official != nil && one.Official != *f.Official || f.Automated != nil && one.Automated != *f.Automated || len(list) >= f.Limit {
			continue
		}
		list = append(list, one)
	}
	return list, nil
}

func searchError(host string, err error) error {
	var p *problem
	switch {
	case settled(err):
		return err
	case errors.Is(err, errNoCredentials), errors.As(err, &p) && p.status == http.StatusUnauthorized:
		return fault.New(fault.Unauthorized, "search %s: %w, log in first", host, err)
	case p != nil && p.status == http.StatusNotFound:
		return fault.New(fault.NotFound, "search %s: the registry has no search (status 404)", host)
	}
	return fault.New(fault.Unavailable, "search %s: %w", host, err)
}

// splitTerm tells the index's host from what is searched for, by the rule for image names.
func splitTerm(term string) (host, word string) {
	host, word, ok := strings.Cut(term, "/")
	if !ok || !strings.ContainsAny(host, ".:") && host != "localhost" {
		return defaultIndex, strings.TrimPrefix(term, "library/")
	}
	if registryOf(host) == defaultDomain || host == defaultDomain {
		return defaultIndex, strings.TrimPrefix(word, "library/")
	}
	return host, word
}
