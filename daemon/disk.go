package daemon

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"

	"berth/engine"
	"berth/engine/disk"
	"berth/fault"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	api "github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"
)

// diskRoutes serve what accounts for the data root, prunes and checks it.
func diskRoutes(d *disk.Service) []route {
	s := accounts{d}
	return []route{
		{"GET", "/system/df", s.usage},
		{"GET", "/system/prune", s.plan},
		{"POST", "/system/fsck", s.check},
		{"POST", "/images/prune", s.images},
		{"POST", "/volumes/prune", s.volumes},
		{"POST", "/build/prune", s.cache},
	}
}

// accounts serves engine/disk.
type accounts struct{ engine *disk.Service }

// legacyUsage is the answer of GET /system/df before API 1.52.
type legacyUsage struct {
	LayersSize  int64
	Images      any                 `json:",omitempty"`
	Containers  []container.Summary `json:",omitzero"`
	Volumes     []volume.Volume     `json:",omitzero"`
	BuildCache  []build.CacheRecord `json:",omitzero"`
	BuilderSize *int64              `json:",omitempty"` // before 1.42
}

func (s accounts) usage(w http.ResponseWriter, r *http.Request) error {
	q, v := r.URL.Query(), versionOf(r)
	want, err := wanted(q["type"], v)
	if err != nil {
		return err
	}
	verbose := v >= 52 && flag(q, "verbose")
	want.Other = flag(q, "other")
	u, err := s.engine.Usage(r.Context(), want)
	if err != nil {
		return err
	}
	var legacy *legacyUsage
	if v < 52 || v == 52 && !verbose {
		legacy = legacyOf(u, v)
	}
	if v < 52 {
		return writeJSON(w, http.StatusOK, legacy)
	}
	answer := *u
	if !verbose {
		answer.DiskUsage = withoutItems(u.DiskUsage)
	}
	return writeJSON(w, http.StatusOK, struct {
		*legacyUsage
		disk.Usage
	}{legacy, answer})
}

// wanted reads the types; none means all.
func wanted(types []string, v apiVersion) (disk.Want, error) {
	if v < 42 || len(types) == 0 {
		return disk.Want{Images: true, Containers: true, Volumes: true, BuildCache: true}, nil
	}
	var w disk.Want
	for _, t := range types {
		switch system.DiskUsageObject(t) {
		case system.ContainerObject:
			w.Containers = true
		case system.ImageObject:
			w.Images = true
		case system.VolumeObject:
			w.Volumes = true
		case system.BuildCacheObject:
			w.BuildCache = true
		default:
			return w, fault.New(fault.Invalid, "unknown object type: %s", t)
		}
	}
	return w, nil
}

func legacyOf(u *disk.Usage, v apiVersion) *legacyUsage {
	l := &legacyUsage{}
	if u.ImageUsage != nil {
		l.LayersSize, l.Images = u.ImageUsage.TotalSize, oldUsage(v, u.ImageUsage.Items)
	}
	if u.ContainerUsage != nil {
		l.Containers = u.ContainerUsage.Items
	}
	if u.VolumeUsage != nil {
		l.Volumes = u.VolumeUsage.Items
	}
	if u.BuildCacheUsage != nil {
		l.BuildCache = u.BuildCacheUsage.Items
		if v < 42 {
			l.BuilderSize = &u.BuildCacheUsage.TotalSize
		}
	}
	return l
}

// oldUsage is images as clients of v read them in disk usage, where the number of containers was always told.
func oldUsage(v apiVersion, list []image.Summary) any {
	counts := make([]int64, len(list))
	for n, one := range list {
		counts[n] = one.Containers
	}
	list = slices.Clone(list)
	if v < 44 {
		type before44 struct {
			image.Summary
			VirtualSize int64
		}
		rows := make([]before44, len(list))
		oldSummary(44, list)
		for n, one := range list {
			one.Containers, one.Descriptor = counts[n], nil
			rows[n] = before44{one, one.Size}
		}
		return rows
	}
	oldSummary(v, list)
	for n := range list {
		list[n].Containers = counts[n]
	}
	return list
}

// withoutItems is a copy of u, whose parts others see too, with the sums alone.
func withoutItems(u system.DiskUsage) system.DiskUsage {
	if u.ImageUsage != nil {
		one := *u.ImageUsage
		one.Items, u.ImageUsage = nil, &one
	}
	if u.ContainerUsage != nil {
		one := *u.ContainerUsage
		one.Items, u.ContainerUsage = nil, &one
	}
	if u.VolumeUsage != nil {
		one := *u.VolumeUsage
		one.Items, u.VolumeUsage = nil, &one
	}
	if u.BuildCacheUsage != nil {
		one := *u.BuildCacheUsage
		one.Items, u.BuildCacheUsage = nil, &one
	}
	return u
}

// filtered reads the query of a prune.
func filtered(r *http.Request) (f engine.Filters, dry bool, err error) {
	q := r.URL.Query()
	f, err = parseFilters(q.Get("filters"))
	return f, flag(q, "dryrun"), err
}

func (s accounts) images(w http.ResponseWriter, r *http.Request) error {
	f, dry, err := filtered(r)
	if err != nil {
		return err
	}
	report, err := s.engine.PruneImages(r.Context(), f, dry)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, report)
}

func (s accounts) volumes(w http.ResponseWriter, r *http.Request) error {
	f, dry, err := filtered(r)
	if err != nil {
		return err
	}
	if versionOf(r) < 42 { // it took those with names too
		if f == nil {
			f = engine.Filters{}
		}
		f["all"] = []string{"true"}
	}
	report, err := s.engine.PruneVolumes(r.Context(), f, dry)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, report)
}

func (s accounts) cache(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	f, err := parseFilters(q.Get("filters"))
	if err != nil {
		return err
	}
	p := disk.CachePrune{All: flag(q, "all"), Dry: flag(q, "dryrun"), Filters: f}
	for _, bound := range []struct {
		name string
		to   *int64
	}{{"keep-storage", &p.Reserved}, {"reserved-space", &p.Reserved}, {"max-used-space", &p.MaxUsed}, {"min-free-space", &p.MinFree}} {
		if text := q.Get(bound.name); text != "" {
			if *bound.to, err = strconv.ParseInt(text, 10, 64); err != nil {
				return fault.New(fault.Invalid, "%s is in bytes and needs to be an integer: %s", bound.name, text)
			}
		}
	}
	report, err := s.engine.PruneBuildCache(r.Context(), p)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, report)
}

// plan tells what a prune of everything would remove. This is ours.
func (s accounts) plan(w http.ResponseWriter, r *http.Request) error {
	f, _, err := filtered(r)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	p, err := s.engine.Plan(r.Context(), disk.PlanRequest{All: flag(q, "all"), Volumes: flag(q, "volumes"), Filters: f})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, p)
}

// check streams a check of the data root, and mends what it can with repair=1. This is ours.
func (s accounts) check(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	out := newLines(w)
	o := disk.CheckOptions{Repair: flag(q, "repair"), Deep: flag(q, "deep"), Auth: disk.ByHost(credentials(r))}
	return out.fail(s.engine.Check(r.Context(), o, func(c disk.Checking) { out.write(c) }))
}

// credentials are those of a request that may concern several registries: X-Registry-Config has them by host, as in a build.
func credentials(r *http.Request) map[string]api.AuthConfig {
	byHost := map[string]api.AuthConfig{}
	if data, err := base64.URLEncoding.DecodeString(r.Header.Get("X-Registry-Config")); err == nil {
		_ = json.Unmarshal(data, &byHost) // what can't be read counts as none
	}
	return byHost
}
