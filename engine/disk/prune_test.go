package disk

import (
	"errors"
	"strings"
	"testing"
	"time"

	"berth/engine/journal"
	"berth/fault"

	"github.com/distribution/reference"
	wireregistry "github.com/moby/moby/api/types/registry"
)

func TestFilter(t *testing.T) {
	now := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	old, labels := now.Add(-48*time.Hour), map[string]string{"a": "1", "b": ""}
	for _, c := range []struct {
		f    journal.Filters
		want bool
	}{
		{nil, true},
		{journal.Filters{"until": {"24h"}}, true},
		{journal.Filters{"until": {"72h"}}, false},
		{journal.Filters{"until": {"2025-12-31T00:30:00Z"}}, false},
		{journal.Filters{"label": {"a"}}, true},
		{journal.Filters{"label": {"a=1", "b"}}, true},
		{journal.Filters{"label": {"a=2"}}, false},
		{journal.Filters{"label": {"a", "c"}}, false},
		{journal.Filters{"label!": {"c"}}, true},
		{journal.Filters{"label!": {"a=2"}}, true},
		{journal.Filters{"label!": {"c", "b"}}, false},
		{journal.Filters{"label": {"a"}, "until": {"72h"}}, false},
	} {
		fits, err := filter(c.f, now, true)
		if err != nil || fits(labels, old.Add(time.Hour)) != c.want {
			t.Errorf("%v: %v, want %v", c.f, err, c.want)
		}
	}
	for _, f := range []journal.Filters{{"x": {"y"}}, {"until": {"never"}}, {"until": {"1h", "2h"}}, {"dangling": {"true"}}} {
		if _, err := filter(f, now, true); !errors.Is(err, fault.Invalid) {
			t.Errorf("%v: %v", f, err)
		}
	}
	if _, err := filter(journal.Filters{"until": {"1h"}}, now, false, "all"); !errors.Is(err, fault.Invalid) {
		t.Errorf("until where there is none: %v", err)
	}
}

func TestTruth(t *testing.T) {
	for value, want := range map[string]bool{"": true, "true": true, "1": true, "0": false, "false": false} {
		f := journal.Filters{}
		if value != "" {
			f["all"] = []string{value}
		}
		if got, err := truth(f, "all", true); err != nil || got != want {
			t.Errorf("%q: %v, %v", value, got, err)
		}
	}
	for _, values := range [][]string{{"maybe"}, {"true", "true"}} {
		if _, err := truth(journal.Filters{"all": values}, "all", true); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", values, err)
		}
	}
}

func TestSpare(t *testing.T) {
	id := "sha256:" + strings.Repeat("a", 64)
	for _, c := range []struct{ names, users, want string }{
		{"x:1", "x:1", ""},
		{"x:1", id, ""},
		{"x:1 x:2 y:1", "x:1", "x:2 y:1"},
		{"x:1 x:2 y:1", "x:1 y:1", "x:2"},
		{"x:2 y:1 x:1", id, "x:1 x:2"},
		{"x:1 x:latest", "x", "x:1"},
		{"", id, ""},
		{"x:1 x:2", "UPPER", "x:1"},
	} {
		var names []reference.Named
		for _, n := range strings.Fields(c.names) {
			named, err := reference.ParseNormalizedNamed(n)
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, named)
		}
		var got []string
		for _, n := range spare(names, strings.Fields(c.users)) {
			got = append(got, reference.FamiliarString(n))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%q used by %q: %q, want %q", c.names, c.users, got, c.want)
		}
	}
}

func TestByHost(t *testing.T) {
	auth := ByHost(map[string]wireregistry.AuthConfig{"https://index.docker.io/v1/": {Username: "hub"}, "h:5000": {Username: "own", Password: "p", IdentityToken: "i", RegistryToken: "r"}})
	for name, want := range map[string]string{"busybox": "hub", "h:5000/x": "own", "h:5001/x": "", "elsewhere.example/x": ""} {
		named, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := auth(named).Username; got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
