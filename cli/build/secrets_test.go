package build

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/fault"
)

func TestParseSecret(t *testing.T) {
	env := func(name string) (string, bool) { return "value", name == "SET" }
	for text, want := range map[string]struct {
		id   string
		from source
		err  string
	}{
		"id=a,src=f":            {"a", source{file: "f"}, ""},
		"source=f,id=a":         {"a", source{file: "f"}, ""},
		`"id=a","src=one,two"`:  {"a", source{file: "one,two"}, ""},
		"id=a,env=E":            {"a", source{env: "E"}, ""},
		"type=env,id=a,src=E":   {"a", source{env: "E"}, ""},
		"type=file,id=a,src=f":  {"a", source{file: "f"}, ""},
		"id=SET":                {"SET", source{env: "SET"}, ""},
		"id=unset":              {"unset", source{file: "unset"}, ""},
		"type=file,id=SET":      {"SET", source{file: "SET"}, ""},
		"ID=a,SRC=f":            {"a", source{file: "f"}, ""},
		"src=f":                 {"", source{}, "secret missing ID"},
		"a":                     {"", source{}, "must be a key=value pair"},
		"id=a,kind=b":           {"", source{}, "unexpected key 'kind'"},
		"id=a,type=vault,src=x": {"", source{}, "unsupported secret type"},
		"":                      {"", source{}, "EOF"},
	} {
		id, from, err := parseSecret(text, env)
		if want.err != "" {
			if err == nil || !strings.Contains(err.Error(), want.err) {
				t.Errorf("%q: %v", text, err)
			}
			continue
		}
		if err != nil || id != want.id || from != want.from {
			t.Errorf("%q: %q, %+v, %v", text, id, from, err)
		}
	}
}

func TestReadSecret(t *testing.T) {
	dir := t.TempDir()
	small, large := filepath.Join(dir, "small"), filepath.Join(dir, "large")
	if err := errors.Join(os.WriteFile(small, []byte("x\n"), 0o600), os.WriteFile(large, make([]byte, maxSecret+1), 0o600)); err != nil {
		t.Fatal(err)
	}
	env := func(name string) (string, bool) { return "v", name == "SET" }
	if got, err := (source{file: small}).read(env); err != nil || string(got) != "x\n" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := (source{env: "SET"}).read(env); err != nil || string(got) != "v" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := (source{env: "UNSET"}).read(env); !errors.Is(err, fault.NotFound) {
		t.Error(err)
	}
	if _, err := (source{file: large}).read(env); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Error(err)
	}
}

func TestUsesContext(t *testing.T) {
	for text, want := range map[string]bool{"FROM x\nRUN y": false, "FROM x\ncopy a b": true, "FROM x\nADD a b": true, "FROM x\nRUN --mount=type=bind,target=/x y": true} {
		if got := usesContext([]byte(text)); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}
