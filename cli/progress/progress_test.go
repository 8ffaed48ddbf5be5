package progress

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/jsonstream"
)

func TestProgressOnATerminal(t *testing.T) {
	now := time.Unix(0, 0)
	v := &View{terminal: true, width: 120, lines: map[string]int{}, started: map[string]time.Time{}, now: func() time.Time { return now }}
	var screen []string
	for _, m := range []jsonstream.Message{
		{ID: "latest", Status: "Pulling from library/x"},
		{ID: "aaa", Status: "Pulling fs layer", Progress: &jsonstream.Progress{}},
		{ID: "bbb", Status: "Pulling fs layer", Progress: &jsonstream.Progress{}},
		{ID: "aaa", Status: "Downloading", Progress: &jsonstream.Progress{Current: 1_000_000, Total: 4_000_000}},
		{ID: "aaa", Status: "Pull complete", Progress: &jsonstream.Progress{}},
		{Status: "Digest: sha256:x"},
	} {
		screen = append(screen, fmt.Sprintf("%q", v.render(m)))
	}
	want := []string{
		`"\x1b[2Klatest: Pulling from library/x\r\n"`,
		`"\x1b[2Kaaa: Pulling fs layer\r\n"`,
		`"\x1b[2Kbbb: Pulling fs layer\r\n"`,
		`"\x1b[2A\x1b[2K\raaa: Downloading [============>                                      ]      1MB/4MB\r\x1b[2B"`,
		`"\x1b[2A\x1b[2K\raaa: Pull complete\r\x1b[2B"`,
		`"\x1b[2KDigest: sha256:x\r\n"`,
	}
	if !slices.Equal(screen, want) {
		t.Errorf("got\n%s", strings.Join(screen, "\n"))
	}
}
