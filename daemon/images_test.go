package daemon

import (
	"encoding/json"
	"errors"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"berth/fault"

	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestParsePlatforms(t *testing.T) {
	const arm = `{"os":"linux","architecture":"arm64","variant":"v8"}`
	for _, c := range []struct {
		values   []string
		v, since apiVersion
		n        int
		words    string
	}{
		{nil, 52, 48, 0, ""},
		{[]string{""}, 52, 48, 0, ""},
		{[]string{arm}, 48, 48, 1, ""},
		{[]string{arm, arm}, 52, 48, 2, ""},
		{[]string{arm, "rubbish"}, 47, 48, 0, ""},
		{[]string{"linux/arm64"}, 48, 48, 0, "failed to parse platform"},
		{[]string{`{"variant":"v8"}`}, 48, 48, 0, "optional platform fields provided, but OS and Architecture are missing"},
		{[]string{`{"os":"linux"}`}, 48, 48, 0, "both OS and Architecture must be provided"},
		{[]string{`{}`}, 48, 48, 0, "both OS and Architecture must be provided"},
	} {
		list, err := parsePlatforms(c.values, c.v, c.since)
		if c.words == "" && (err != nil || len(list) != c.n) {
			t.Errorf("%q: %v, %v", c.values, list, err)
		}
		if c.words != "" && (!errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.words)) {
			t.Errorf("%q: %v", c.values, err)
		}
	}
	two := []ocispec.Platform{{}, {}}
	if err := onePlatform(51, two); !errors.Is(err, fault.Invalid) || err.Error() != "multiple platform parameters not supported" {
		t.Errorf("two platforms below 1.52: %v", err)
	}
	if err := errors.Join(onePlatform(52, two), onePlatform(51, two[:1])); err != nil {
		t.Error(err)
	}
}

func TestOldImageLists(t *testing.T) {
	rows := func(v apiVersion) []map[string]any {
		data, err := json.Marshal(oldSummary(v, []image.Summary{
			{ID: "a", RepoTags: []string{}, RepoDigests: []string{}, Size: 7, Containers: 2, Descriptor: &ocispec.Descriptor{}},
			{ID: "b", RepoTags: []string{"b:1"}, RepoDigests: []string{}},
		}))
		if err != nil {
			t.Fatal(err)
		}
		var list []map[string]any
		if err := json.Unmarshal(data, &list); err != nil {
			t.Fatal(err)
		}
		return list
	}
	for _, c := range []struct {
		v                         apiVersion
		containers                float64
		descriptor, virtual, none bool
	}{{51, 2, true, false, false}, {50, -1, true, false, false}, {47, -1, false, false, false}, {43, -1, false, true, false}, {42, -1, false, true, true}} {
		list := rows(c.v)
		_, descriptor := list[0]["Descriptor"]
		_, virtual := list[0]["VirtualSize"]
		tags, _ := list[0]["RepoTags"].([]any)
		none := slices.Equal(tags, []any{"<none>:<none>"})
		if list[0]["Containers"] != c.containers || descriptor != c.descriptor || virtual != c.virtual || none != c.none {
			t.Errorf("%s: %v", c.v, list[0])
		}
		if tags, _ := list[1]["RepoTags"].([]any); !slices.Equal(tags, []any{"b:1"}) {
			t.Errorf("%s: %v", c.v, list[1])
		}
	}
}

func TestOldClientsGetADrawing(t *testing.T) {
	for _, c := range []struct {
		current, total int64
		want           string
	}{
		{0, 0, ""},
		{1500, 0, "   1.5kB"},
		{0, 100, "[>                                                  ]       0B/100B"},
		{50, 100, "[=========================>                         ]      50B/100B"},
		{100, 100, "[==================================================>]     100B/100B"},
		{200, 100, "    200B"},
	} {
		if got := draw(c.current, c.total); got != c.want {
			t.Errorf("%d of %d: %q", c.current, c.total, got)
		}
	}
	for v, want := range map[apiVersion]string{
		51: `{"status":"Downloading","progressDetail":{"current":1,"total":2},"id":"x","progress":"[=========================>                         ]       1B/2B"}`,
		52: `{"status":"Downloading","progressDetail":{"current":1,"total":2},"id":"x"}`,
	} {
		w := httptest.NewRecorder()
		progressTo(newLines(w), v)(jsonstream.Message{ID: "x", Status: "Downloading", Progress: &jsonstream.Progress{Current: 1, Total: 2}})
		if got := strings.TrimSpace(w.Body.String()); got != want {
			t.Errorf("%s: %s", v, got)
		}
	}
}
