package disk

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/engine/disk"
	"berth/test/testengine"

	"github.com/opencontainers/go-digest"
)

// usage is GET /system/df with all that there is.
func (w *world) usage() disk.Usage {
	w.Helper()
	var u disk.Usage
	w.call("GET", "/v1.55/system/df", url.Values{"verbose": {"1"}, "other": {"1"}}, &u)
	return u
}

func near(a, b int64) bool {
	d := a - b
	return max(d, -d)*100 <= b
}

// same compares the sum of all rows with du, on a data root at rest.
func (w *world) same(what string) disk.Usage {
	w.Helper()
	var u disk.Usage
	testengine.Eventually(w, 10*time.Second, func() error {
		u = w.usage()
		sum, want := u.ImageUsage.TotalSize+u.ContainerUsage.TotalSize+u.VolumeUsage.TotalSize+u.BuildCacheUsage.TotalSize+u.Other.TotalSize, w.du()
		if !near(sum, want) {
			return fmt.Errorf("%s: the rows are %d together, du says %d\nimages %d containers %d volumes %d other %+v",
				what, sum, want, u.ImageUsage.TotalSize, u.ContainerUsage.TotalSize, u.VolumeUsage.TotalSize, u.Other.Items)
		}
		w.Logf("%s: %d, du %d", what, sum, want)
		return nil
	})
	return u
}

func TestUsageIsDu(t *testing.T) {
	w := newWorld(t)
	w.same("empty")
	base, shared := w.busybox(), w.layer(1, map[string]int{"shared/a": 3 << 20, "shared/b": 5000})
	a, _ := w.pull("a", base, shared, w.layer(2, map[string]int{"own/a": 1 << 20}))
	b, _ := w.pull("b", base, shared, w.layer(3, map[string]int{"own/b": 2 << 20, "own/small": 1}))
	u := w.same("images")
	for _, one := range u.ImageUsage.Items {
		own := one.Size - one.SharedSize
		if one.SharedSize < 8<<20 || own < 2<<20 || own > 5<<20 {
			t.Errorf("%v: size %d, shared %d", one.RepoTags, one.Size, one.SharedSize)
		}
	}
	if n := len(u.ImageUsage.Items); n != 2 || u.ImageUsage.Reclaimable != u.ImageUsage.TotalSize || u.ImageUsage.ActiveCount != 0 {
		t.Errorf("%d images, %+v", n, u.ImageUsage)
	}
	w.e.Run(t, "run", "-d", "--name", "runs", "-v", "named:/v", "-v", "/anonymous", a, "sh", "-c",
		"dd if=/dev/zero of=/v/big bs=1M count=3; dd if=/dev/zero of=/data bs=1M count=2; yes | head -c 500000; sleep 1000")
	w.e.Run(t, "run", "--name", "stopped", b, "sh", "-c", "mkdir -p /x/y; echo hello >/x/y/f; ln /x/y/f /x/g; dd if=/dev/zero of=/sparse bs=1 count=1 seek=100M")
	w.e.Run(t, "run", "--rm", "-v", "unused:/v", a, "true")
	testengine.Eventually(t, 10*time.Second, func() error {
		if out := w.e.Run(t, "exec", "runs", "sh", "-c", "stat -c %s /v/big /data"); out != "3145728\n2097152\n" {
			return fmt.Errorf("not yet written: %q", out)
		}
		return nil
	})
	w.cutDownload()
	u = w.same("all kinds")
	if u.ContainerUsage.TotalCount != 2 || u.ContainerUsage.ActiveCount != 1 || u.ContainerUsage.Reclaimable <= 0 || u.ContainerUsage.Reclaimable > 1<<20 {
		t.Errorf("containers: %+v", u.ContainerUsage)
	}
	if u.VolumeUsage.TotalCount != 3 || u.VolumeUsage.ActiveCount != 2 || u.VolumeUsage.TotalSize != 3<<20 {
		t.Errorf("volumes: %+v", u.VolumeUsage)
	}
	for _, item := range u.Other.Items {
		if (item.Name == "Downloads" || item.Name == "Logs") && item.Size < 200_000 {
			t.Errorf("%+v", item)
		}
	}
	// What no image has any more, but a container, is told too.
	w.e.Run(t, "rmi", "-f", b)
	w.same("an image gone below a container")
	w.e.Kill()
	w.e.Up(t)
	w.same("after a kill")
	if err := os.Remove(filepath.Join(w.e.Data, "layer-sizes.json")); err != nil {
		t.Error(err)
	}
	w.e.Kill()
	w.e.Up(t)
	w.same("measured again")
}

// cutDownload leaves a download that can be resumed.
func (w *world) cutDownload() {
	w.Helper()
	whole := w.layer(9, map[string]int{"cut": 1 << 20}).data
	w.must(os.WriteFile(filepath.Join(w.e.Data, "blobs/ingest", digest.FromBytes(whole).Encoded()+".part"), whole[:300_000], 0o600))
}

func TestUsageInTheShapesOfEachVersion(t *testing.T) {
	w := newWorld(t)
	w.e.Busybox(t)
	w.e.Run(t, "create", "--name", "one", "-v", "v:/v", "busybox")
	for _, c := range []struct {
		version, query string
		has, lacks     string
	}{
		{"1.24", "", "LayersSize Images Containers Volumes BuildCache BuilderSize", "ImageUsage Other"},
		{"1.41", "type=image", "LayersSize Images Containers", "ImageUsage"},
		{"1.44", "", "LayersSize Images Containers Volumes BuildCache", "ImageUsage BuilderSize"},
		{"1.44", "type=volume", "Volumes", "Images Containers"},
		{"1.52", "", "LayersSize Images ImageUsage ContainerUsage VolumeUsage BuildCacheUsage", "Other"},
		{"1.52", "verbose=1&type=image", "ImageUsage", "Images ContainerUsage"},
		{"1.55", "", "ImageUsage ContainerUsage", "LayersSize Images"},
		{"1.55", "type=container&type=image&other=1", "ImageUsage ContainerUsage Other", "VolumeUsage"},
	} {
		q, err := url.ParseQuery(c.query)
		w.must(err)
		var got map[string]any
		w.call("GET", "/v"+c.version+"/system/df", q, &got)
		for _, key := range strings.Fields(c.has) {
			if _, ok := got[key]; !ok {
				t.Errorf("%s?%s: no %s", c.version, c.query, key)
			}
		}
		for _, key := range strings.Fields(c.lacks) {
			if _, ok := got[key]; ok {
				t.Errorf("%s?%s: %s is there", c.version, c.query, key)
			}
		}
	}
	if err := w.try("GET", "/v1.44/system/df", url.Values{"type": {"nonsense"}}, nil); err == nil || !strings.Contains(err.Error(), "unknown object type: nonsense") {
		t.Errorf("an unknown type: %v", err)
	}
	var legacy struct {
		LayersSize int64
		Images     []struct{ Size, Containers int64 }
		Volumes    []struct {
			UsageData struct{ RefCount, Size int64 }
		}
	}
	w.call("GET", "/v1.44/system/df", nil, &legacy)
	if len(legacy.Images) != 1 || legacy.Images[0].Size != legacy.LayersSize || legacy.Images[0].Containers != 1 || len(legacy.Volumes) != 1 || legacy.Volumes[0].UsageData.RefCount != 1 {
		t.Errorf("%+v", legacy)
	}
}

// TestUsageOfMany is for the eye: the time is told, not judged.
func TestUsageOfMany(t *testing.T) {
	w := newWorld(t)
	base := w.busybox()
	images, containers := 10, 20
	if os.Getenv("BERTH_SOAK") != "" {
		images, containers = 100, 1000
	}
	for n := range images {
		w.pull(fmt.Sprintf("i%d", n), base, w.layer(uint64(n), map[string]int{"f": 10_000}))
	}
	for n := range containers {
		w.e.Run(t, "create", "--name", fmt.Sprintf("c%d", n), fmt.Sprintf("%s/i%d:1", w.address, n%images))
	}
	for range 3 {
		start := time.Now()
		u := w.usage()
		t.Logf("%d images, %d containers: %v", len(u.ImageUsage.Items), len(u.ContainerUsage.Items), time.Since(start))
		if int(u.ContainerUsage.TotalCount) != containers || int(u.ImageUsage.ActiveCount) != min(images, containers) {
			t.Errorf("%+v", u)
		}
	}
	w.same("many")
}
