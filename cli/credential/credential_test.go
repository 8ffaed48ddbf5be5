package credential

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"berth/cli/config"
	"berth/fault"

	"github.com/moby/moby/api/types/registry"
)

// helper puts a credential helper named "test" in PATH. It keeps secrets as files in a directory and notes its calls in the file calls.
func helper(t *testing.T) (dir string) {
	dir = t.TempDir()
	script := `#!/bin/sh
in=$(cat)
echo "$1" "$in" >>` + dir + `/calls
name() { echo "$in" | tr -c 'a-z0-9.\n' _; }
case $1 in
get) cat ` + dir + `/"$(name)" 2>/dev/null || { echo credentials not found in native keychain; exit 1; } ;;
store) server=$(echo "$in" | sed 's/.*"ServerURL":"\([^"]*\)".*/\1/'); echo "$in" >` + dir + `/"$(echo "$server" | tr -c 'a-z0-9.\n' _)" ;;
erase) rm ` + dir + `/"$(name)" 2>/dev/null || { echo credentials not found in native keychain; exit 1; } ;;
*) echo unknown action; exit 1 ;;
esac
`
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-test"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return dir
}

func store(t *testing.T, text string) Store {
	path := filepath.Join(t.TempDir(), "config.json")
	if text != "" {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return reload(t, path)
}

func reload(t *testing.T, path string) Store {
	f, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return Store{File: f}
}

// TestServersOfAllPlaces lists who may have to be asked, wherever the credentials come from.
func TestServersOfAllPlaces(t *testing.T) {
	s := store(t, `{"auths": {"file.example": {}, "both.example": {}}, "credHelpers": {"helper.example": "test"}}`)
	var err error
	if s.Environment, err = ParseEnvironment(`{"auths": {"environment.example": {"auth": "bWU6eA=="}, "both.example": {"auth": "bWU6eA=="}}}`); err != nil {
		t.Fatal(err)
	}
	want := []string{"both.example", "environment.example", "file.example", "helper.example"}
	if got := s.Servers(); !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestServersHaveOneName(t *testing.T) {
	for in, want := range map[string]string{
		"docker.io": DefaultServer, "index.docker.io": DefaultServer, "https://index.docker.io/v1/": DefaultServer,
		"localhost:5000": "localhost:5000", "https://r.example.org:8443/v2/": "r.example.org:8443", "r.example.org/team": "r.example.org", "http://[::1]:5000": "[::1]:5000",
	} {
		if got := Key(in); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}

func TestCredentialsInTheFile(t *testing.T) {
	s := store(t, `{"auths": {"https://old.example.org/v1/": {"auth": "`+base64.StdEncoding.EncodeToString([]byte("me:a:b"))+`", "email": "me@example.org"},
		"bad.example.org": {"auth": "!!"}, "token.example.org": {"auth": "bWU6", "identitytoken": "xyz"}}}`)
	for server, want := range map[string]registry.AuthConfig{
		"old.example.org":   {Username: "me", Password: "a:b", ServerAddress: "old.example.org"},
		"token.example.org": {Username: "me", IdentityToken: "xyz", ServerAddress: "token.example.org"},
		"none.example.org":  {},
	} {
		if got, err := s.Get(t.Context(), server); err != nil || got != want {
			t.Errorf("%s: got %+v, %v", server, got, err)
		}
	}
	if _, err := s.Get(t.Context(), "bad.example.org"); fault.Of(err) != fault.Invalid || strings.Contains(err.Error(), "!!") {
		t.Errorf("got %v", err)
	}
	if plain, err := s.Put(t.Context(), registry.AuthConfig{Username: "me", Password: "new", ServerAddress: "old.example.org"}); err != nil || !plain {
		t.Errorf("got %v, %v", plain, err)
	}
	if plain, err := s.Put(t.Context(), registry.AuthConfig{Username: "me", Password: "new", ServerAddress: "old.example.org"}); err != nil || plain {
		t.Errorf("the same once more: got %v, %v", plain, err)
	}
	s = reload(t, s.File.Path)
	if got, err := s.Get(t.Context(), "old.example.org"); err != nil || got.Password != "new" {
		t.Errorf("got %+v, %v", got, err)
	}
	if err := s.Erase(t.Context(), "token.example.org"); err != nil {
		t.Error(err)
	}
	text, err := os.ReadFile(s.File.Path)
	if err != nil || strings.Contains(string(text), "xyz") || !strings.Contains(string(text), "me@example.org") {
		t.Errorf("got %s, %v", text, err)
	}
}

func TestTheEnvironmentComesFirst(t *testing.T) {
	s := store(t, `{"auths": {"a.example.org": {"auth": "bWU6ZmlsZQ=="}, "b.example.org": {"auth": "bWU6ZmlsZQ=="}}}`)
	var err error
	if s.Environment, err = ParseEnvironment(`{"auths": {"a.example.org": {"auth": "bWU6ZW52"}}}`); err != nil {
		t.Fatal(err)
	}
	for server, want := range map[string]string{"a.example.org": "env", "b.example.org": "file"} {
		if got, err := s.Get(t.Context(), server); err != nil || got.Password != want {
			t.Errorf("%s: got %+v, %v", server, got, err)
		}
	}
	for _, bad := range []string{"", "{", `{"auths": {}} {}`, `{"auths": {"a": {"password": "secret"}}}`, `{"auths": "secret"}`} {
		if _, err := ParseEnvironment(bad); fault.Of(err) != fault.Invalid || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got %v", bad, err)
		}
	}
}

func TestCredentialsWithAHelper(t *testing.T) {
	dir := helper(t)
	s := store(t, `{"credsStore": "nosuch", "credHelpers": {"r.example.org": "test"}}`)
	if got, err := s.Get(t.Context(), "r.example.org"); err != nil || got != (registry.AuthConfig{}) {
		t.Errorf("before: got %+v, %v", got, err)
	}
	if plain, err := s.Put(t.Context(), registry.AuthConfig{Username: "me", Password: "hidden", ServerAddress: "r.example.org"}); err != nil || plain {
		t.Fatalf("got %v, %v", plain, err)
	}
	if got, err := s.Get(t.Context(), "r.example.org"); err != nil || got.Username != "me" || got.Password != "hidden" {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := s.Put(t.Context(), registry.AuthConfig{Username: "me", IdentityToken: "tok", ServerAddress: "r.example.org"}); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get(t.Context(), "r.example.org"); err != nil || got.Username != "" || got.IdentityToken != "tok" {
		t.Errorf("got %+v, %v", got, err)
	}
	text, err := os.ReadFile(s.File.Path)
	var c struct{ Auths map[string]map[string]string }
	if err != nil || json.Unmarshal(text, &c) != nil || len(c.Auths["r.example.org"]) != 0 || c.Auths["r.example.org"] == nil {
		t.Errorf("the file has %s, %v", text, err)
	}
	if err := s.Erase(t.Context(), "r.example.org"); err == nil {
		// credsStore names a program that isn't there: it could not be asked for the http:// and https:// names.
		if s = reload(t, s.File.Path); len(s.File.Auths) != 0 {
			t.Errorf("still there: %v", s.File.Auths)
		}
	} else {
		t.Error(err)
	}
	if got, err := s.Get(t.Context(), "r.example.org"); err != nil || got != (registry.AuthConfig{}) {
		t.Errorf("after: got %+v, %v", got, err)
	}
	if _, err := s.Get(t.Context(), "other.example.org"); fault.Of(err) != fault.NotFound || !strings.Contains(err.Error(), "docker-credential-nosuch is not in PATH") {
		t.Errorf("got %v", err)
	}
	if calls, err := os.ReadFile(filepath.Join(dir, "calls")); err != nil || !strings.HasPrefix(string(calls), "get r.example.org\nstore {") {
		t.Errorf("calls: %s, %v", calls, err)
	}
}

func FuzzEnvironment(f *testing.F) {
	f.Add(`{"auths": {"a.example.org": {"auth": "bWU6ZW52"}}}`)
	f.Add(`{"auths": null}`)
	f.Fuzz(func(t *testing.T, text string) {
		all, err := ParseEnvironment(text)
		if (all == nil) != (err != nil) {
			t.Errorf("got %v, %v", all, err)
		}
		for server := range all {
			s := Store{File: &config.File{}, Environment: all}
			s.Get(t.Context(), server) // whatever it is, it is read or refused
		}
	})
}
