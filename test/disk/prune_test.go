package disk

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"berth/engine/disk"

	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/volume"
)

func filters(pairs ...string) url.Values {
	all := map[string][]string{}
	for _, p := range pairs {
		key, value, _ := strings.Cut(p, "=")
		all[key] = append(all[key], value)
	}
	text, _ := json.Marshal(all)
	return url.Values{"filters": {string(text)}}
}

// freed runs fn and compares what it says it freed with du; an event or two more in the history are no matter.
func (w *world) freed(what string, fn func() uint64) {
	w.Helper()
	w.usage() // measures the layers, so that the record of their sizes is there
	before := w.du()
	said := int64(fn())
	now := w.du()
	if d := before - now - said; max(d, -d) > 16<<10 {
		w.Errorf("%s: said %d bytes, du shows %d less", what, said, before-now)
	}
	w.Logf("%s: %d bytes, du %d → %d", what, said, before, now)
}

func TestPruneFreesWhatItsPlanSays(t *testing.T) {
	w := newWorld(t)
	base := w.busybox()
	shared := w.layer(1, map[string]int{"shared": 3 << 20})
	used, _ := w.pull("used", base, shared)
	w.pull("free", base, shared, w.layer(2, map[string]int{"own": 2 << 20}))
	w.pull("sibling", base, shared, w.layer(2, map[string]int{"own": 2 << 20}), w.layer(3, map[string]int{"more": 1 << 20}))
	w.pull("dangling", base, w.layer(4, map[string]int{"old": 1 << 20}))
	w.publish("dangling", "1", nil, base, w.layer(5, map[string]int{"new": 1 << 20}))
	w.e.Run(t, "pull", "-q", w.address+"/dangling:1")
	w.e.Run(t, "run", "-d", "--name", "runs", "-v", "kept:/v", used, "sleep", "1000")
	w.e.Run(t, "run", "--name", "stopped", "-v", "/anon", "-v", "named:/n", w.address+"/free:1", "sh", "-c", "dd if=/dev/zero of=/x bs=1M count=2; dd if=/dev/zero of=/anon/x bs=1M count=1")

	var r image.PruneReport
	w.call("POST", "/v1.55/images/prune", url.Values{"dryrun": {"1"}}, &r)
	planned := r.SpaceReclaimed
	w.freed("dangling images", func() uint64 {
		w.call("POST", "/v1.55/images/prune", nil, &r)
		return r.SpaceReclaimed
	})
	if r.SpaceReclaimed != planned || planned < 2<<20 {
		t.Errorf("dangling: %d planned, %d freed", planned, r.SpaceReclaimed)
	}
	plan := func(q url.Values) (p disk.Plan) {
		w.call("GET", "/v1.55/system/prune", q, &p)
		var sum int64
		for _, one := range p.Items {
			sum += one.Size
		}
		if sum != p.SpaceReclaimed {
			t.Errorf("the items are %d together, the plan says %d", sum, p.SpaceReclaimed)
		}
		return p
	}
	p := plan(url.Values{"all": {"1"}, "volumes": {"1"}})
	var kinds []string
	for _, one := range p.Items {
		kinds = append(kinds, one.Kind)
	}
	if want := []string{"container", "volume", "image", "image", "image"}; !slices.Equal(kinds, want) {
		t.Errorf("the plan has %v, want %v: %+v", kinds, want, p.Items)
	}
	if q := plan(nil); len(q.Items) != 1 || q.Items[0].Names[0] != "stopped" {
		t.Errorf("the small plan: %+v", q)
	}
	var total uint64
	w.freed("everything", func() uint64 {
		var c struct{ SpaceReclaimed uint64 }
		w.call("POST", "/v1.55/containers/prune", nil, &c)
		var v volume.PruneReport
		w.call("POST", "/v1.55/volumes/prune", nil, &v)
		if len(v.VolumesDeleted) != 1 {
			t.Errorf("volumes: %v", v.VolumesDeleted)
		}
		w.call("POST", "/v1.55/images/prune", filters("dangling=false"), &r)
		total = c.SpaceReclaimed + v.SpaceReclaimed + r.SpaceReclaimed
		return total
	})
	if d := int64(total) - p.SpaceReclaimed; d != 0 {
		t.Errorf("planned %d, freed %d", p.SpaceReclaimed, total)
	}
	if out := w.e.Run(t, "images", "--format", "{{.Repository}}"); out != w.address+"/used\n" {
		t.Errorf("images left: %q", out)
	}
	if out := w.e.Run(t, "exec", "runs", "echo", "alive"); out != "alive\n" {
		t.Errorf("the container in use: %q", out)
	}
	w.freed("named volumes", func() uint64 {
		var v volume.PruneReport
		w.call("POST", "/v1.55/volumes/prune", filters("all=true"), &v)
		if !slices.Equal(v.VolumesDeleted, []string{"named"}) {
			t.Errorf("named volumes: %v", v.VolumesDeleted)
		}
		return v.SpaceReclaimed
	})
	if all, sum := w.check("deep"); len(all) != 0 || !sum.Clean {
		t.Errorf("a check: %+v %+v", all, sum)
	}
}

func TestPruneFilters(t *testing.T) {
	w := newWorld(t)
	base := w.busybox()
	for _, c := range []struct {
		name   string
		labels map[string]string
	}{{"a", map[string]string{"keep": "yes"}}, {"b", map[string]string{"keep": "no", "x": ""}}, {"c", nil}} {
		w.publish(c.name, "1", c.labels, base)
		w.e.Run(t, "pull", "-q", w.address+"/"+c.name+":1")
	}
	for _, c := range []struct {
		filters []string
		gone    string
	}{
		{[]string{"dangling=true"}, ""},
		{nil, ""},
		{[]string{"dangling=false", "until=1h"}, "a b c"}, // without a date they count as old
		{[]string{"dangling=false", "label=keep=yes"}, "a"},
		{[]string{"dangling=false", "label=keep", "label=x"}, "b"},
		{[]string{"dangling=false", "label!=keep"}, "c"},
		{[]string{"dangling=0", "label!=keep=yes"}, "b c"},
	} {
		q := filters(c.filters...)
		q.Set("dryrun", "1")
		var r image.PruneReport
		w.call("POST", "/v1.55/images/prune", q, &r)
		var gone []string
		for _, one := range r.ImagesDeleted {
			if name, tagged := strings.CutPrefix(one.Untagged, w.address+"/"); tagged && strings.HasSuffix(name, ":1") {
				gone = append(gone, strings.TrimSuffix(name, ":1"))
			}
		}
		slices.Sort(gone)
		if got := strings.Join(gone, " "); got != c.gone {
			t.Errorf("%v: %q would go, want %q", c.filters, got, c.gone)
		}
	}
	for path, bad := range map[string][]string{
		"/images/prune": {"dangling=maybe", "nosuch=x", "until=never"}, "/volumes/prune": {"until=1h", "all=maybe"}, "/networks/prune": {"nosuch=x"},
	} {
		for _, f := range bad {
			if err := w.try("POST", "/v1.55"+path, filters(f), nil); err == nil || !strings.Contains(err.Error(), "400") {
				t.Errorf("%s with %s: %v", path, f, err)
			}
		}
	}
	// Who asked before there were names for it meant all volumes.
	w.e.Run(t, "run", "--rm", "-v", "named:/v", w.address+"/a:1", "true")
	var v volume.PruneReport
	w.call("POST", "/v1.41/volumes/prune", nil, &v)
	if !slices.Equal(v.VolumesDeleted, []string{"named"}) {
		t.Errorf("volumes: %v", v.VolumesDeleted)
	}
}

// TestPruneOfSpareNames: an image in use keeps the names that its containers were made by, or its last one.
func TestPruneOfSpareNames(t *testing.T) {
	w := newWorld(t)
	for container, want := range map[string]string{"img:a": "img:a", "img": "img:latest", "": "img:z", "name and digest": "img:z"} {
		w.e.Busybox(t)
		for _, tag := range []string{"img:a", "img:b", "img:latest", "img:z"} {
			w.e.Run(t, "tag", "busybox", tag)
		}
		w.e.Run(t, "rmi", "busybox")
		id := strings.TrimSpace(w.e.Run(t, "images", "-q", "--no-trunc", "img:a"))
		of := container
		switch container {
		case "":
			of = id
		case "name and digest":
			of = "img@" + id
		}
		w.e.Run(t, "create", "--name", "user", of)
		planned := w.e.Run(t, "image", "prune", "-a", "--dry-run")
		done := w.e.Run(t, "image", "prune", "-a", "-f")
		if strings.Contains(done, "deleted: ") || strings.Count(done, "untagged: ") != 3 || strings.Count(planned, "untagged: ") != 3 {
			t.Errorf("%q: %s\nplanned: %s", of, done, planned)
		}
		if left := strings.TrimSpace(w.e.Run(t, "images", "--format", "{{.Repository}}:{{.Tag}}")); left != want {
			t.Errorf("%q: left %q, want %q", of, left, want)
		}
		w.e.Run(t, "rm", "user")
		w.e.Run(t, "image", "prune", "-a", "-f")
	}
}

// TestPruneBesidePulls: what is pulled, and what containers are made of, is not taken away under their hands.
func TestPruneBesidePulls(t *testing.T) {
	w := newWorld(t)
	base := w.busybox()
	kept, _ := w.pull("kept", base)
	w.e.Run(t, "run", "-d", "--name", "runs", kept, "sleep", "1000")
	for n := range 4 {
		w.publish(fmt.Sprintf("p%d", n), "1", nil, base, w.layer(1, map[string]int{"shared": 1 << 20}), w.layer(uint64(n+2), map[string]int{"own": 2 << 20}))
	}
	done := make(chan struct{})
	var work, prunes sync.WaitGroup
	prunes.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			var r image.PruneReport
			if err := w.try("POST", "/v1.55/images/prune", filters("dangling=false"), &r); err != nil && !strings.Contains(err.Error(), "already running") {
				t.Error(err)
			}
		}
	})
	for n := range 4 {
		work.Go(func() {
			for range 4 {
				if out, err := w.e.Try("pull", "-q", fmt.Sprintf("%s/p%d:1", w.address, n)); err != nil {
					t.Errorf("pull: %v %s", err, out)
				}
				if out, err := w.e.Try("run", "--rm", kept, "echo", "fine"); err != nil || out != "fine\n" {
					t.Errorf("run: %v %s", err, out)
				}
			}
		})
	}
	work.Wait()
	close(done)
	prunes.Wait()
	if out := w.e.Run(t, "exec", "runs", "echo", "alive"); out != "alive\n" {
		t.Errorf("the container in use: %q", out)
	}
	if all, sum := w.check("deep"); !sum.Clean {
		t.Errorf("a check: %+v %+v", all, sum)
	}
}
