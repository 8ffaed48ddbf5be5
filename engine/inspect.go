package engine

import (
	"berth/engine/mounts"
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"time"

	"berth/container"
	"berth/engine/link"
	"berth/engine/stream"
	"berth/engine/view"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/storage"
)

// Inspect describes it in full; size computes SizeRw and SizeRootFs, which reads the disk.
func (c *views) Inspect(_ context.Context, ref string, size bool) (Inspection, error) {
	i, err := c.index.Get(ref)
	if err != nil {
		return Inspection{}, err
	}
	r := i.record()
	files := c.store.Dir(r.ID)
	if m := r.HostConfig.NetworkMode; m.IsContainer() {
		files = c.store.Dir(m.ConnectedContainer())
	}
	var execs []string
	if r.State.Status.Alive() {
		i.mu.Lock()
		execs = append(execs, i.active...) // null for none
		i.mu.Unlock()
	}
	d := api.InspectResponse{
		ID: r.ID, Created: r.Created.Format(time.RFC3339Nano), Path: r.Path, Args: r.Args, State: view.State(r.State),
		Image: r.Image.String(), Name: "/" + r.Name, RestartCount: r.State.RestartCount, Driver: r.Driver, Platform: "linux",
		LogPath: stream.ShownPath(r), ExecIDs: execs, HostConfig: link.Shown(r, c.find), Config: r.Config, Mounts: mounts.Points(c.volumes.Store, r),
		GraphDriver: c.graphDriver(r), NetworkSettings: c.networkSettings(r),
	}
	if !r.State.StartedAt.IsZero() {
		d.ResolvConfPath, d.HostnamePath, d.HostsPath = filepath.Join(files, "resolv.conf"), filepath.Join(files, "hostname"), filepath.Join(files, "hosts")
	}
	d.ImageManifestDescriptor = r.Manifest
	if size {
		rw, all := c.sizes(r)
		d.SizeRw, d.SizeRootFs = &rw, &all
	}
	ours := r.Settings
	ours.IDs = r.IDs.String()
	return Inspection{d, ours}, nil
}

// graphDriver names the directories of the container's root, which tools read.
func (c *views) graphDriver(r *container.Record) *storage.DriverData {
	d := &storage.DriverData{Name: r.Driver, Data: map[string]string{"ID": r.ID}}
	root, err := c.layers.Open(r.ID)
	if err != nil {
		return d // being removed
	}
	maps.Copy(d.Data, root.Data())
	return d
}

// networkSettings describes where the container is connected, or would be.
func (c *views) networkSettings(r *container.Record) *api.NetworkSettings {
	held := attachmentOf(r)
	s := &api.NetworkSettings{Ports: view.Ports(r.Config, held), Networks: c.nets.Shown(r, held)}
	if held != nil && r.State.Pid != 0 {
		s.SandboxID, s.SandboxKey = held.ID, fmt.Sprintf("/proc/%d/ns/net", r.State.Pid)
	}
	return s
}

// sizes counts what the container wrote, and that with its image, in bytes.
func (c *views) sizes(r *container.Record) (rw, all int64) {
	root, err := c.layers.Open(r.ID)
	if err != nil {
		return 0, 0
	}
	space, err := root.Written()
	if err != nil {
		return 0, 0 // it goes just now
	}
	rw = space.Shown
	if img, err := c.images.Store.Get(r.Image.String()); err == nil {
		all = img.Unpacked
	}
	return rw, all + rw
}
