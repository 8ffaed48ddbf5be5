package registry

import (
	"net/url"
	"strings"
)

// challenge is what a host wants before it answers (RFC 9110, section 11.6.1).
type challenge struct {
	basic   bool
	realm   string // where a bearer token is to be had
	service string
	scope   []string
	refused bool // the token that was sent is good and allows too little (RFC 6750, section 3.1)
}

// parseChallenges chooses among the values of Www-Authenticate: a bearer token before a password. False: nothing known is wanted.
func parseChallenges(values []string) (challenge, bool) {
	var c challenge
	found := false
	for _, v := range values {
		scheme, params := parseChallenge(v)
		switch {
		case strings.EqualFold(scheme, "bearer") && params["realm"] != "":
			return challenge{
				realm: params["realm"], service: params["service"], scope: strings.Fields(params["scope"]),
				refused: params["error"] == "insufficient_scope",
			}, true
		case strings.EqualFold(scheme, "basic"):
			c, found = challenge{basic: true}, true
		}
	}
	return c, found
}

// parseChallenge reads one challenge: a scheme and its parameters, whose names become lower case.
func parseChallenge(s string) (scheme string, params map[string]string) {
	params = map[string]string{}
	scheme, rest, _ := strings.Cut(strings.TrimSpace(s), " ")
	for {
		name, value, ok := strings.Cut(rest, "=")
		if !ok {
			return scheme, params
		}
		value = strings.TrimLeft(value, " \t")
		if value, rest, ok = parseValue(value); !ok {
			return scheme, params
		}
		params[strings.ToLower(strings.Trim(name, " \t,"))] = value
	}
}

// parseValue reads a token or a quoted string, and what follows its comma.
func parseValue(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		value, rest, _ = strings.Cut(s, ",")
		return strings.TrimSpace(value), rest, true
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			if i++; i == len(s) {
				return "", "", false
			}
			b.WriteByte(s[i])
		case '"':
			return b.String(), strings.TrimLeft(s[i+1:], " \t,"), true
		default:
			b.WriteByte(s[i])
		}
	}
	return "", "", false
}

// nextPage reads the Link header of a list that goes on (RFC 8288), relative to where the page came from; nil = it was the last.
func nextPage(base *url.URL, links []string) *url.URL {
	for _, link := range links {
		for part := range strings.SplitSeq(link, ",") {
			target, attributes, _ := strings.Cut(strings.TrimSpace(part), ";")
			if !strings.HasPrefix(target, "<") || !strings.HasSuffix(strings.TrimSpace(target), ">") || !isNext(attributes) {
				continue
			}
			u, err := base.Parse(strings.Trim(strings.TrimSpace(target), "<>"))
			if err == nil {
				return u
			}
		}
	}
	return nil
}

func isNext(attributes string) bool {
	for a := range strings.SplitSeq(attributes, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(a), "=")
		if strings.EqualFold(strings.TrimSpace(name), "rel") && strings.Trim(strings.TrimSpace(value), `"`) == "next" {
			return true
		}
	}
	return false
}
