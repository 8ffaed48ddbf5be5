package client

import (
	"context"
	"encoding/json"
	"net/url"
	"strings"

	"berth/fault"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"
)

// Usage is what takes the space of the daemon's data root, in bytes.
type Usage struct {
	system.DiskUsage
	Other *OtherUsage // nil: the daemon does not tell
}

// OtherUsage is what lies there beside the API's four kinds.
type OtherUsage struct {
	DataRoot    string
	TotalSize   int64
	Reclaimable int64
	Items       []OtherItem
}

// OtherItem is one kind of it.
type OtherItem struct {
	Name        string
	Count       int64
	Size        int64
	Reclaimable int64
}

// Usage measures what takes space, with all items.
func (s System) Usage(ctx context.Context) (Usage, error) {
	var u struct {
		Usage
		LayersSize int64
		Images     []image.Summary
		Containers []container.Summary
		Volumes    []volume.Volume
		BuildCache []build.CacheRecord
	}
	q := url.Values{"verbose": {"1"}, "other": {"1"}}
	if err := s.c.Call(ctx, Request{Method: "GET", Path: "/system/df", Query: q}, &u); err != nil {
		return Usage{}, err
	}
	if u.ImageUsage == nil && u.ContainerUsage == nil { // before 1.52
		u.ImageUsage = imageUsage(u.LayersSize, u.Images)
		u.ContainerUsage, u.VolumeUsage, u.BuildCacheUsage = containerUsage(u.Containers), volumeUsage(u.Volumes), cacheUsage(u.BuildCache)
	}
	u.Usage = withoutHoles(u.Usage)
	return u.Usage, nil
}

func withoutHoles(u Usage) Usage {
	if u.ImageUsage == nil {
		u.ImageUsage = &image.DiskUsage{}
	}
	if u.ContainerUsage == nil {
		u.ContainerUsage = &container.DiskUsage{}
	}
	if u.VolumeUsage == nil {
		u.VolumeUsage = &volume.DiskUsage{}
	}
	if u.BuildCacheUsage == nil {
		u.BuildCacheUsage = &build.DiskUsage{}
	}
	return u
}

// The sums that daemons before API 1.52 left to their clients.

func imageUsage(total int64, items []image.Summary) *image.DiskUsage {
	u := &image.DiskUsage{Items: items, TotalSize: total, TotalCount: int64(len(items)), Reclaimable: total}
	for _, i := range items {
		if i.Containers > 0 {
			u.ActiveCount++
		}
		if i.Containers != 0 && i.Size != -1 && i.SharedSize != -1 {
			u.Reclaimable -= i.Size - i.SharedSize
		}
	}
	return u
}

func containerUsage(items []container.Summary) *container.DiskUsage {
	u := &container.DiskUsage{Items: items, TotalCount: int64(len(items))}
	for _, c := range items {
		u.TotalSize += c.SizeRw
		switch c.State {
		case container.StateRunning, container.StatePaused, container.StateRestarting:
			u.ActiveCount++
		default:
			u.Reclaimable += c.SizeRw
		}
	}
	return u
}

func volumeUsage(items []volume.Volume) *volume.DiskUsage {
	u := &volume.DiskUsage{Items: items, TotalCount: int64(len(items))}
	for _, v := range items {
		if v.UsageData == nil {
			continue
		}
		if v.UsageData.RefCount > 0 {
			u.ActiveCount++
		}
		if v.UsageData.Size == -1 {
			continue
		}
		u.TotalSize += v.UsageData.Size
		if v.UsageData.RefCount == 0 {
			u.Reclaimable += v.UsageData.Size
		}
	}
	return u
}

func cacheUsage(items []build.CacheRecord) *build.DiskUsage {
	u := &build.DiskUsage{Items: items, TotalCount: int64(len(items))}
	for _, c := range items {
		if c.InUse {
			u.ActiveCount++
		}
		if c.Shared {
			continue
		}
		u.TotalSize += c.Size
		if !c.InUse {
			u.Reclaimable += c.Size
		}
	}
	return u
}

// prune removes things, or with dry only tells which: fault.Unsupported when the daemon is another engine's, which would not
// know the parameter, pass over it and remove them.
func (c *Client) prune(ctx context.Context, kind string, f Filters, dry bool, q url.Values, out any) error {
	if dry {
		if err := c.ours(ctx); err != nil {
			return err
		}
	}
	if q == nil {
		q = url.Values{}
	}
	set(q, "filters", f.String())
	setBool(q, "dryrun", dry)
	return c.Call(ctx, Request{Method: "POST", Path: "/" + kind + "/prune", Query: q}, out)
}

// ours is fault.Unsupported unless the daemon is of this engine.
func (c *Client) ours(ctx context.Context) error {
	r, err := c.Do(ctx, Request{Method: "GET", Path: "/_ping"})
	if err != nil {
		return err
	}
	if server := r.Header["server"]; !strings.HasPrefix(server, "Berth/") {
		r.Close()
		return fault.New(fault.Unsupported, "the engine at %s is %q, not berth: it can't tell what a prune would remove, it would remove it; nothing was asked of it", c.host, server)
	}
	return r.Close()
}

// Prune removes images that no container has. dry only tells.
func (s Images) Prune(ctx context.Context, f Filters, dry bool) (out image.PruneReport, err error) {
	return out, s.c.prune(ctx, "images", f, dry, nil, &out)
}

// PruneVolumes removes volumes that no container has. dry only tells.
func (s System) PruneVolumes(ctx context.Context, f Filters, dry bool) (out volume.PruneReport, err error) {
	return out, s.c.prune(ctx, "volumes", f, dry, nil, &out)
}

// PruneNetworks removes networks that no container is in. dry only tells.
func (s System) PruneNetworks(ctx context.Context, f Filters, dry bool) (out network.PruneReport, err error) {
	return out, s.c.prune(ctx, "networks", f, dry, nil, &out)
}

// PruneCache removes what builds left; q has the API's further parameters. dry only tells.
func (s System) PruneCache(ctx context.Context, f Filters, dry bool, q url.Values) (out build.CachePruneReport, err error) {
	return out, s.c.prune(ctx, "build", f, dry, q, &out)
}

// Plan is all that a prune of everything would remove.
type Plan struct {
	Items          []PlanItem
	SpaceReclaimed int64
}

// PlanItem is one object of it.
type PlanItem struct {
	Kind  string // container, network, volume, image, tag (names of an image that stays) or leftover
	ID    string
	Names []string
	Size  int64
}

// Plan tells what a prune of stopped containers, networks, images and, if wanted, volumes would remove now.
func (s System) Plan(ctx context.Context, all, volumes bool, f Filters) (out Plan, err error) {
	q := url.Values{}
	setBool(q, "all", all)
	setBool(q, "volumes", volumes)
	set(q, "filters", f.String())
	return out, s.c.Call(ctx, Request{Method: "GET", Path: "/system/prune", Query: q}, &out)
}

// Checking is one step of a check; Finding or Summary is set, or what is looked at.
type Checking struct {
	Stage       string
	Done, Total int64
	Finding     *Finding
	Summary     *CheckSummary
	Failure     string `json:"error"`
}

// Finding is one thing that is wrong with the data root.
type Finding struct {
	Kind     string
	Object   string
	Cause    string
	Images   []string `json:",omitempty"`
	Size     int64    `json:",omitempty"`
	Leftover bool     `json:",omitempty"` // it only takes space
	Repaired string   `json:",omitempty"` // what was done
	Advice   string   `json:",omitempty"` // what can be done
}

// CheckSummary is how a check ended.
type CheckSummary struct {
	Blobs, Layers, Images, Containers, Volumes         int64
	Problems, Repaired, Leftovers, LeftoverSize, Freed int64
	Clean                                              bool
}

// Check begins a check of the data root. header has credentials for what must be fetched again, or is nil. Close it.
func (s System) Check(ctx context.Context, repair, deep bool, header map[string]string) (*Checks, error) {
	q := url.Values{}
	setBool(q, "repair", repair)
	setBool(q, "deep", deep)
	r, err := s.c.Do(ctx, Request{Method: "POST", Path: "/system/fsck", Query: q, Header: header})
	if err != nil {
		return nil, err
	}
	return &Checks{r, json.NewDecoder(r)}, nil
}

// Checks is the stream of a check.
type Checks struct {
	r *Response
	d *json.Decoder
}

// Next gives the next step; io.EOF after the last one.
func (c *Checks) Next() (out Checking, err error) { return out, c.d.Decode(&out) }

// Close ends the stream, and the check with it.
func (c *Checks) Close() error { return c.r.Close() }
