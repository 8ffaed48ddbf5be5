package cli

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"
)

// cannedUsage fills a fake with what takes space, as daemons told it before API 1.52.
func cannedUsage(t *testing.T) *fake {
	f := newFake(t)
	f.version = "1.50"
	now := time.Now().Unix()
	f.on("GET /system/df", map[string]any{
		"LayersSize": 350_123_456,
		"Images": []map[string]any{
			{"Id": "sha256:" + fakeID, "RepoTags": []string{"debian:12", "debian:bookworm"}, "RepoDigests": []string{}, "Created": now - 40*86400, "Size": 116_500_000, "SharedSize": 16_500_000, "Containers": 2},
			{"Id": "sha256:" + strings.Repeat("b", 64), "RepoTags": []string{}, "RepoDigests": []string{}, "Created": now - 50*86400, "Size": 233_500_000, "SharedSize": 0, "Containers": 0},
		},
		"Containers": []map[string]any{
			{"Id": fakeID, "Names": []string{"/web"}, "Image": "debian:12", "ImageID": "sha256:" + fakeID, "Command": "sh -c 'a long command that goes on'", "Created": now - 125, "State": "running", "Status": "Up 2 minutes", "SizeRw": 12345, "SizeRootFs": 1 << 30,
				"Mounts": []map[string]any{{"Type": "volume", "Name": "data", "Driver": "local"}}},
			{"Id": strings.Repeat("f", 64), "Names": []string{"/old"}, "Image": "debian:12", "ImageID": "sha256:" + fakeID, "Command": "sh", "Created": now - 3*86400, "State": "exited", "Status": "Exited (0) 2 days ago", "SizeRw": 7_000_000},
		},
		"Volumes": []map[string]any{
			{"Name": "data", "Driver": "local", "Mountpoint": "/v/data/_data", "Scope": "local", "Labels": map[string]string{"a": "1"}, "UsageData": map[string]int64{"RefCount": 1, "Size": 36}},
			{"Name": "old", "Driver": "local", "Mountpoint": "/v/old/_data", "Scope": "local", "UsageData": map[string]int64{"RefCount": 0, "Size": 5_000_000_000}},
		},
		"BuildCache": []any{},
	})
	return f
}

// TestUsageIsDockers compares what both programs print of the same answer.
func TestUsageIsDockers(t *testing.T) {
	needDocker(t)
	f := cannedUsage(t)
	for _, args := range [][]string{
		{"system", "df"}, {"system", "df", "-v"}, {"system", "df", "--format", "json"}, {"system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}} {{.Size}} {{.Reclaimable}}"},
		{"system", "df", "--format", "table {{.Type}}\t{{.Size}}"}, {"system", "df", "-v", "--format", "{{range .Images}}{{.Repository}}:{{.Tag}} {{.ID}} {{.Size}} {{.SharedSize}} {{.UniqueSize}} {{.Containers}}\n{{end}}"},
		{"system", "df", "-v", "--format", "{{range .Containers}}{{.ID}} {{.Names}} {{.Size}} {{.LocalVolumes}} {{.CreatedAt}}\n{{end}}{{range .Volumes}}{{.Name}} {{.Links}} {{.Size}} {{.Labels}} {{.Mountpoint}}{{end}}{{len .BuildCache}}"},
		{"system", "df", "--format", "{{.Bogus}}"}, {"system", "df", "x"}, {"system", "df", "--bogus"},
	} {
		d, b := f.docker(args...), f.berth(args...)
		f.take()
		if diff := cmp.Diff(lines2(d.out), lines2(b.out)); diff != "" || d.code != b.code {
			t.Errorf("%q: codes %d and %d; docker (-) and berth (+) print:\n%s\n docker's errors: %s\n berth's errors:  %s", args, d.code, b.code, diff, d.err, b.err)
		}
	}
}

// TestPrunesAreDockers compares what both programs ask for and print.
func TestPrunesAreDockers(t *testing.T) {
	needDocker(t)
	f := newFake(t)
	f.version = "1.50"
	f.on("POST /containers/prune", container.PruneReport{ContainersDeleted: []string{fakeID}, SpaceReclaimed: 12345})
	f.on("POST /networks/prune", network.PruneReport{NetworksDeleted: []string{"net"}})
	f.on("POST /volumes/prune", volume.PruneReport{VolumesDeleted: []string{"a", "b"}, SpaceReclaimed: 6_000_000})
	f.on("POST /images/prune", image.PruneReport{ImagesDeleted: []image.DeleteResponse{{Untagged: "debian:12"}, {Deleted: "sha256:" + fakeID}}, SpaceReclaimed: 7_000_000_000})
	f.on("POST /build/prune", map[string]any{"CachesDeleted": []string{"x"}, "SpaceReclaimed": 5})
	for _, line := range []string{
		"image prune -f", "image prune -a -f", "image prune -f --filter until=5m --filter label=a", "volume prune -f", "volume prune -a -f", "volume prune -f --filter label!=x", "volume prune -a -f --filter all=1",
		"network prune -f", "network prune -f --filter until=1h", "builder prune -f", "builder prune -a -f", "builder prune -f --filter until=24h",
		"system prune -f", "system prune -a -f --volumes", "system prune -f --filter label=a --filter until=1h", "system prune -f --volumes --filter until=1h", "system prune x", "volume prune x", "image prune --filter x",
	} {
		args := strings.Fields(line)
		f.take()
		d := f.docker(args...)
		want := changes(f.take())
		b := f.berth(args...)
		got := changes(f.take())
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: docker (-) and berth (+) ask for:\n%s", line, diff)
		}
		if diff := cmp.Diff(lines2(d.out), lines2(b.out)); diff != "" || d.code != b.code {
			t.Errorf("%s: codes %d and %d; docker (-) and berth (+) print:\n%s\n%s\n%s", line, d.code, b.code, diff, d.err, b.err)
		}
	}
	plan := regexp.MustCompile(`(?m)^  That is now: .*\n\n`)
	f.on("GET /system/prune", map[string]any{"Items": []map[string]any{{"Kind": "image", "ID": "sha256:" + fakeID, "Names": []string{"a:1"}, "Size": 5}}, "SpaceReclaimed": 5})
	for _, line := range []string{
		"container prune", "image prune", "image prune -a", "volume prune", "volume prune -a", "network prune", "builder prune", "builder prune -a", "system prune", "system prune -a --volumes", "system prune --filter label=b --filter until=1h --filter label!=a",
	} {
		args := strings.Fields(line)
		d, b := f.docker(args...), f.berth(args...)
		if sum := plan.FindString(b.out); strings.HasPrefix(line, "system") != (sum != "") {
			t.Errorf("%s: the plan is %q", line, sum)
		}
		if diff := cmp.Diff(lines2(strings.TrimSpace(d.out)), lines2(strings.TrimSpace(plan.ReplaceAllString(b.out, "")))); diff != "" {
			t.Errorf("%s: docker (-) and berth (+) ask:\n%s", line, diff)
		}
		if b.code != 1 || !strings.Contains(b.err, "prune has been cancelled") { // docker says nothing, with 0
			t.Errorf("%s: %d %s", line, b.code, b.err)
		}
		for _, a := range f.take() {
			if a.method == http.MethodPost {
				t.Errorf("%s: nobody agreed, and %v was asked for", line, a)
			}
		}
	}
}

// TestDryRuns change nothing and say so.
func TestDryRuns(t *testing.T) {
	f := newFake(t)
	f.on("POST /images/prune", image.PruneReport{ImagesDeleted: []image.DeleteResponse{{Untagged: "debian:12"}}, SpaceReclaimed: 7})
	f.on("POST /volumes/prune", volume.PruneReport{VolumesDeleted: []string{"a"}, SpaceReclaimed: 6})
	f.on("GET /system/prune", map[string]any{"Items": []map[string]any{{"Kind": "container", "ID": fakeID, "Names": []string{"web"}, "Size": 12288}, {"Kind": "leftover", "ID": "unreferenced content", "Size": 5}}, "SpaceReclaimed": 12293})
	for line, want := range map[string]string{
		"image prune --dry-run":            "Would delete Images:\nuntagged: debian:12\n\nWould reclaim space: 7B\n",
		"volume prune -a --dry-run":        "Would delete Volumes:\na\n\nWould reclaim space: 6B\n",
		"system prune --dry-run --volumes": "WOULD DELETE   ID                     NAMES     BYTES\ncontainer      0123456789ab           web       12288\nleftover       unreferenced content   -         5\n\nWould reclaim space: 12.29kB (12293 bytes)\n",
	} {
		got := f.berth(strings.Fields(line)...)
		if got.code != 0 || got.out != want {
			t.Errorf("%s: %d\n%s%s", line, got.code, got.out, got.err)
		}
		for _, a := range f.take() {
			if a.method == http.MethodPost && !a.query.Has("dryrun") {
				t.Errorf("%s asked for %v", line, a)
			}
			if a.path == "/system/prune" && cmp.Diff(url.Values{"volumes": {"1"}}, a.query) != "" {
				t.Errorf("%s asked with %v", line, a.query)
			}
		}
	}
}

// TestDryRunsAreForOursAlone asks an engine that would remove what it is asked about.
func TestDryRunsAreForOursAlone(t *testing.T) {
	f := newFake(t)
	f.server = "Docker/28.2.2 (linux)"
	f.on("GET /system/prune", refusal{404, "page not found"})
	f.on("POST /system/fsck", refusal{404, "page not found"})
	for _, line := range []string{
		"container prune --dry-run", "image prune -a --dry-run", "volume prune --dry-run", "network prune --dry-run", "builder prune --dry-run", "system prune --dry-run", "system fsck --repair",
	} {
		got := f.berth(strings.Fields(line)...)
		if got.code != 1 || !strings.Contains(got.err, "not berth") {
			t.Errorf("%s: %d %q", line, got.code, got.err)
		}
		for _, a := range f.take() {
			if strings.HasSuffix(a.path, "s/prune") || a.path == "/build/prune" {
				t.Errorf("%s asked for %v", line, a)
			}
		}
	}
}
