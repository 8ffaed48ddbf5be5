package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/registry"
)

func TestEditKeepsWhatOthersWrote(t *testing.T) {
	dir := t.TempDir()
	real := filepath.Join(dir, "dotfiles", "docker.json")
	if err := os.Mkdir(filepath.Dir(real), 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "config.json")
	if err := os.Symlink("dotfiles/docker.json", link); err != nil {
		t.Fatal(err)
	}
	locked := 0
	c := &File{Path: link, Lock: func(string) (func() error, error) {
		locked++
		return func() error { locked--; return nil }, nil
	}}
	// The link points at nothing yet.
	if _, err := c.SetAuth("a", registry.AuthConfig{Username: "me", Password: "x"}); err != nil || locked != 0 {
		t.Fatal(err, locked)
	}
	if i, err := os.Stat(real); err != nil || i.Mode().Perm() != 0o600 {
		t.Fatalf("a new file: %v, %v", i, err)
	}
	if err := os.WriteFile(real, []byte(`{"zeta": {"b": 1, "a": [1.50, null]}, "auths": {"a": {"auth": "bWU6eA==", "email": "e"}}, "psFormat": "<{{.ID}}>", "future": true}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(real, 0o640); err != nil {
		t.Fatal(err)
	}
	if changed, err := c.SetAuth("b", registry.AuthConfig{Username: "me", IdentityToken: "tok"}); err != nil || !changed {
		t.Fatal(changed, err)
	}
	want := `{
	"zeta": {
		"b": 1,
		"a": [
			1.50,
			null
		]
	},
	"auths": {
		"a": {
			"auth": "bWU6eA==",
			"email": "e"
		},
		"b": {
			"auth": "bWU6",
			"identitytoken": "tok"
		}
	},
	"psFormat": "<{{.ID}}>",
	"future": true
}
`
	got, err := os.ReadFile(real)
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v", got, err)
	}
	if i, err := os.Stat(real); err != nil || i.Mode().Perm() != 0o640 {
		t.Errorf("permissions: %v, %v", i, err)
	}
	if i, err := os.Lstat(link); err != nil || i.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link: %v, %v", i, err)
	}
	if changed, err := c.SetAuth("b", registry.AuthConfig{Username: "me", IdentityToken: "tok"}); err != nil || changed {
		t.Errorf("the same once more: %v, %v", changed, err)
	}
	if err := c.DeleteAuth("nosuch"); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(filepath.Dir(real)); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestEditRefusesWhatItCannotRead(t *testing.T) {
	for _, text := range []string{`{"auths": {`, `[]`, `{"auths": 1}`} {
		path := filepath.Join(t.TempDir(), "config.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c := &File{Path: path}
		if _, err := c.SetAuth("a", registry.AuthConfig{Username: "me"}); err == nil || !strings.Contains(err.Error(), "mend it, or move it away") {
			t.Errorf("%s: %v", text, err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("%s was changed to %s, %v", text, got, err)
		}
	}
}
