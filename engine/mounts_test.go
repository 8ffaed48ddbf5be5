package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"berth/engine/images"
	"berth/fault"
	"berth/volume/plugin/plugintest"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/mount"
	wire "github.com/moby/moby/api/types/volume"
)

// importTree makes an image of one file.
func (w *world) importTree(name, file, text string) {
	w.t.Helper()
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	err := t.WriteHeader(&tar.Header{Name: file, Mode: 0o644, Size: int64(len(text))})
	if err == nil {
		_, err = t.Write([]byte(text))
	}
	if err = errors.Join(err, t.Close()); err == nil {
		err = w.Images.Import(context.Background(), images.ImportRequest{Source: "-", Repository: name}, &b, func(jsonstream.Message) {})
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// refusedCreate tries to make a container.
func (w *world) refusedCreate(change func(*CreateRequest)) error {
	r := CreateRequest{Config: &api.Config{Image: "busybox", Cmd: []string{"true"}}, HostConfig: &api.HostConfig{NetworkMode: "none"}}
	change(&r)
	_, _, err := w.Containers.Create(context.Background(), "", r)
	return err
}

func (w *world) imageRoots() (roots []string) {
	w.t.Helper()
	all, err := w.Containers.layers.Roots()
	if err != nil {
		w.t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(id string) bool { return !strings.HasPrefix(id, "image-") })
}

func showing(source, target, sub string) func(*CreateRequest) {
	return func(r *CreateRequest) {
		m := mount.Mount{Type: mount.TypeImage, Source: source, Target: target}
		if sub != "" {
			m.ImageOptions = &mount.ImageOptions{Subpath: sub}
		}
		r.HostConfig.Mounts = append(r.HostConfig.Mounts, m)
	}
}

func TestImageMount(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	w.importTree("things", "etc/f", "of the image")
	res := w.run(showing("things", "/t", ""), "sh", "-c", "cat /t/etc/f; touch /t/x")
	if res.out != "of the image" || !strings.Contains(res.errOut, "Read-only file system") {
		t.Errorf("%+v", res)
	}
	if res := w.run(showing("things", "/t/deep", "etc/f"), "cat", "/t/deep"); res.out != "of the image" {
		t.Errorf("a file of it: %+v", res)
	}
	w.Containers.settle()
	if left := w.imageRoots(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	err := w.refusedCreate(showing("nosuch", "/t", ""))
	if !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "No such image: nosuch:latest") || !strings.Contains(err.Error(), "pull it first") {
		t.Errorf("of none: %v", err)
	}
	if left := w.imageRoots(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	id := w.create(showing("things", "/t", ""), "cat", "/t/etc/f")
	d, err := w.Containers.Inspect(ctx, id, false)
	if err != nil {
		t.Fatal(err)
	}
	if m := d.Mounts[0]; m.Type != mount.TypeImage || m.Name != "things" || m.RW || m.Destination != "/t" || !strings.HasPrefix(m.Source, "sha256:") {
		t.Errorf("%+v", m)
	}
	if _, err := w.Images.Remove(ctx, images.RemoveRequest{Ref: "things"}); !errors.Is(err, fault.Conflict) {
		t.Errorf("removed while it is shown: %v", err)
	}
	if _, err := w.Disk.PruneImages(ctx, Filters{"dangling": {"false"}}, false); err != nil {
		t.Error(err)
	}
	if _, err := w.Images.Inspect("things", nil, false); err != nil {
		t.Errorf("pruned while it is shown: %v", err)
	}
	other := w.create(func(r *CreateRequest) { r.HostConfig.VolumesFrom = []string{id} }, "cat", "/t/etc/f")
	if left := w.imageRoots(); len(left) != 2 {
		t.Errorf("two containers: %v", left)
	}
	// Who takes it away by force takes the name; those who have it keep it, over a new start of the engine.
	if _, err := w.Images.Remove(ctx, images.RemoveRequest{Ref: "things", Force: true}); err != nil {
		t.Error(err)
	}
	if err := w.Engine.Close(); err != nil {
		t.Fatal(err)
	}
	w.open()
	for _, id := range []string{id, other} {
		w.start(id)
		if code := w.wait(id, "not-running"); code != 0 {
			t.Errorf("%s: exit code %d", id[:12], code)
		}
	}
	if err := w.Containers.Remove(ctx, id, RemoveOptions{}); err != nil {
		t.Error(err)
	}
	w.Containers.settle()
	if left := w.imageRoots(); len(left) != 1 {
		t.Errorf("one container: %v", left)
	}
}

// A plugin's volumes are mounted for each run, and given back, whoever died meanwhile.
func TestVolumesOfAPlugin(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	p := &plugintest.Plugin{Dir: t.TempDir(), Scope: "global"}
	stop, err := p.Serve("/run/docker/plugins/shelf.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if stop != nil {
			stop()
		}
	}()
	on := func(bind string) func(*CreateRequest) {
		return func(r *CreateRequest) {
			r.HostConfig.Binds, r.HostConfig.VolumeDriver = append(r.HostConfig.Binds, bind), "shelf"
		}
	}
	if res := w.run(on("books:/data"), "sh", "-c", "cat /data/first; echo kept >/data/f"); res.code != 0 || res.out != "from the image" {
		t.Errorf("%+v", res)
	}
	if text, err := os.ReadFile(p.Dir + "/books/f"); err != nil || string(text) != "kept\n" {
		t.Errorf("%q, %v", text, err)
	}
	given := func() error {
		if held := p.Mounted(); len(held) != 0 {
			return fmt.Errorf("still mounted: %v", held)
		}
		return nil
	}
	eventually(t, given)
	if v, err := w.Volumes.Inspect(ctx, "books"); err != nil || v.Driver != "shelf" || v.Scope != "global" || v.Mountpoint != p.Dir+"/books" || v.Status == nil {
		t.Errorf("%+v, %v", v, err)
	}
	if _, err := w.Volumes.Create(ctx, wire.CreateRequest{Name: "papers", Driver: "shelf", DriverOpts: map[string]string{"k": "v"}}); err != nil || p.Options("papers")["k"] != "v" {
		t.Errorf("%v, %v", err, p.Options("papers"))
	}
	if _, err := w.Volumes.Create(ctx, wire.CreateRequest{Name: "none", Driver: "shelf", DriverOpts: map[string]string{"bad": "v"}}); err == nil || err.Error() != "create none: bad option" {
		t.Errorf("refused: %v", err)
	}
	if err := os.Mkdir(p.Dir+"/theirs", 0o755); err != nil { // made by another machine
		t.Fatal(err)
	}
	list, err := w.Volumes.List(ctx, nil)
	var names []string
	for _, v := range list {
		names = append(names, v.Name+" "+v.Driver)
	}
	if got := strings.Join(names, ", "); err != nil || got != "books shelf, papers shelf, theirs shelf" {
		t.Errorf("%s, %v", got, err)
	}
	if res := w.run(func(r *CreateRequest) { r.HostConfig.Binds = []string{"theirs:/t"} }, "touch", "/t/x"); res.code != 0 {
		t.Errorf("%+v", res)
	}
	if _, err := os.Stat(p.Dir + "/theirs/x"); err != nil {
		t.Error(err)
	}
	eventually(t, given)
	err = w.refusedCreate(func(r *CreateRequest) { r.HostConfig.Binds, r.HostConfig.VolumeDriver = []string{"v:/v"}, "nosuch" })
	if !errors.Is(err, fault.Invalid) || !strings.HasSuffix(err.Error(), `error looking up volume plugin nosuch: plugin "nosuch" not found`) {
		t.Errorf("of no plugin: %v", err)
	}

	// The plugin dies while a container runs: nothing waits for it, and the next engine gives the volume back when it is there again.
	id := w.create(on("books:/data"), "sleep", "1000")
	w.start(id)
	if held := p.Mounted(); len(held) != 1 || held[0] != "books "+id {
		t.Errorf("mounted: %v", held)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if err := w.Containers.Kill(ctx, id, ""); err != nil {
		t.Fatal(err)
	}
	w.wait(id, "not-running")
	w.Containers.settle()
	if v, err := w.Volumes.Inspect(ctx, "books"); err != nil || v.Status["Error"] == nil {
		t.Errorf("%+v, %v", v, err)
	}
	if err := w.Engine.Close(); err != nil {
		t.Error(err)
	}
	w.open()
	if stop, err = p.Serve("/run/docker/plugins/shelf.sock"); err != nil {
		t.Fatal(err)
	}
	eventually(t, given)
	if err := w.Containers.Remove(ctx, id, RemoveOptions{}); err != nil {
		t.Error(err)
	}
	if err := w.Volumes.Remove(ctx, "books", false); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(p.Dir + "/books"); !os.IsNotExist(err) {
		t.Errorf("not removed: %v", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	stop = nil
}
