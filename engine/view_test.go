package engine

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"berth/engine/images"
	"berth/fault"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/jsonstream"
	wire "github.com/moby/moby/api/types/network"
)

func TestListFilters(t *testing.T) {
	w := newWorld(t)
	c := w.Containers
	create := func(name string, change func(*CreateRequest)) string {
		r := CreateRequest{Config: &api.Config{Image: "busybox", Cmd: []string{"sleep", "1000"}}, HostConfig: &api.HostConfig{NetworkMode: "none"}}
		if change != nil {
			change(&r)
		}
		id, _, err := c.Create(t.Context(), name, r)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	one := create("one", func(r *CreateRequest) {
		r.Config.Labels = map[string]string{"tier": "web", "x": ""}
		r.Config.ExposedPorts = wire.PortSet{wire.MustParsePort("80/tcp"): {}}
	})
	create("two", func(r *CreateRequest) { r.HostConfig.Binds = []string{"store:/data", "/tmp:/host"} })
	three := create("three", func(r *CreateRequest) {
		r.Config.Cmd = []string{"sh", "-c", "exit 4"}
		r.HostConfig.NetworkMode = "bridge"
	})
	w.start(one)
	w.start(three)
	w.wait(three, "")
	for name, c := range map[string]struct {
		r    ListRequest
		want string
	}{
		"running":        {ListRequest{}, "one"},
		"all":            {ListRequest{All: true}, "three two one"},
		"the newest two": {ListRequest{Limit: 2}, "three two"},
		"status":         {ListRequest{Filters: Filters{"status": {"created", "exited"}}}, "three two"},
		"name":           {ListRequest{All: true, Filters: Filters{"name": {"^t"}}}, "three two"},
		"name, slash":    {ListRequest{All: true, Filters: Filters{"name": {"^/two$"}}}, "two"},
		"id":             {ListRequest{All: true, Filters: Filters{"id": {one[:8]}}}, "one"},
		"label":          {ListRequest{All: true, Filters: Filters{"label": {"tier=web", "x"}}}, "one"},
		"other label":    {ListRequest{All: true, Filters: Filters{"label": {"tier=web", "y"}}}, ""},
		"exited":         {ListRequest{Filters: Filters{"exited": {"4"}}}, "three"},
		"before":         {ListRequest{Filters: Filters{"before": {"two"}}}, "one"},
		"since, running": {ListRequest{Filters: Filters{"since": {"one"}}}, ""},
		"since":          {ListRequest{All: true, Filters: Filters{"since": {"one"}}}, "three two"},
		"ancestor":       {ListRequest{All: true, Filters: Filters{"ancestor": {"busybox:latest"}}}, "three two one"},
		"other ancestor": {ListRequest{All: true, Filters: Filters{"ancestor": {"debian"}}}, ""},
		"volume":         {ListRequest{All: true, Filters: Filters{"volume": {"store"}}}, "two"},
		"mounted at":     {ListRequest{All: true, Filters: Filters{"volume": {"/host"}}}, "two"},
		"network":        {ListRequest{All: true, Filters: Filters{"network": {"bridge"}}}, "three"},
		"expose":         {ListRequest{Filters: Filters{"expose": {"79-81/tcp"}}}, "one"},
		"health":         {ListRequest{Filters: Filters{"health": {"none"}}}, "one"},
	} {
		list, err := w.Containers.List(t.Context(), c.r)
		var names []string
		for _, s := range list {
			names = append(names, strings.TrimPrefix(s.Names[0], "/"))
		}
		if got := strings.Join(names, " "); err != nil || got != c.want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, c.want)
		}
	}
	for key, value := range map[string]string{"x": "y", "status": "asleep", "exited": "x", "health": "good", "before": "nobody", "name": "(", "publish": "x"} {
		if _, err := c.List(t.Context(), ListRequest{Filters: Filters{key: {value}}}); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s=%s: %v", key, value, err)
		}
	}
	list, err := c.List(t.Context(), ListRequest{All: true, Size: true, Filters: Filters{"name": {"three"}}})
	if err != nil || list[0].Command != "sh -c 'exit 4'" || list[0].Image != "busybox" || !strings.HasPrefix(list[0].Status, "Exited (4)") || list[0].SizeRootFs == 0 {
		t.Errorf("%+v, %v", list, err)
	}
	d, err := c.Inspect(t.Context(), "two", true)
	if err != nil || len(d.Mounts) != 2 || d.GraphDriver.Data["UpperDir"] == "" || d.LogPath == "" || d.SizeRw == nil || d.Driver != "overlay2" {
		t.Errorf("%+v, %v", d, err)
	}
	info, err := w.System.Info()
	if err != nil || info.Containers != 3 || info.ContainersRunning != 1 || info.ContainersStopped != 2 || info.Images != 1 || !slices.Contains(info.DriverStatus, [2]string{"driver-type", "io.containerd.snapshotter.v1"}) {
		t.Errorf("%+v, %v", info, err)
	}
}

func TestImagesInUse(t *testing.T) {
	w := newWorld(t)
	id := w.create(nil, "true")
	if err := w.Images.Tag("busybox", "example.org/box", "v1"); err != nil {
		t.Fatal(err)
	}
	if err := w.Images.Tag("busybox", "Bad", ""); !errors.Is(err, fault.Invalid) {
		t.Errorf("a bad name: %v", err)
	}
	var archive bytes.Buffer
	if err := w.Images.Save(t.Context(), &archive, []string{"busybox", "example.org/box:v1"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := w.Images.Save(t.Context(), &bytes.Buffer{}, []string{"none"}, nil); !errors.Is(err, fault.NotFound) {
		t.Errorf("save of nothing: %v", err)
	}
	list, err := w.Images.List(images.ListRequest{})
	if err != nil || len(list) != 1 || list[0].Containers != 1 || len(list[0].RepoTags) != 2 {
		t.Errorf("%+v, %v", list, err)
	}
	if _, err := w.Images.Remove(t.Context(), images.RemoveRequest{Ref: list[0].ID}); !errors.Is(err, fault.Conflict) {
		t.Errorf("removed by ID: %v", err)
	}
	if err := w.Containers.Remove(t.Context(), id, RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"busybox", "example.org/box:v1"} {
		if _, err := w.Images.Remove(t.Context(), images.RemoveRequest{Ref: name}); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := w.Containers.layers.Layers(); err != nil || len(left) != 0 {
		t.Errorf("layers left: %v, %v", left, err)
	}
	var said []string
	err = w.Images.Load(t.Context(), &archive, nil, true, func(m jsonstream.Message) { said = append(said, m.Stream) })
	slices.Sort(said)
	if err != nil || !slices.Equal(said, []string{"Loaded image: busybox:latest\n", "Loaded image: example.org/box:v1\n"}) {
		t.Errorf("%q, %v", said, err)
	}
	d, err := w.Images.Inspect("example.org/box:v1", nil, false)
	if err != nil || d.ID != list[0].ID || len(d.RootFS.Layers) != 1 || d.Config.Cmd[0] != "sh" {
		t.Errorf("%+v, %v", d, err)
	}
	if h, err := w.Images.History("busybox", nil); err != nil || len(h) != 2 && len(h) != 1 {
		t.Errorf("%+v, %v", h, err)
	}
	if got := w.run(nil, "echo", "again"); got.out != "again\n" {
		t.Errorf("%+v", got)
	}
}

func TestWithoutABridge(t *testing.T) {
	w := newWorldWith(t, func(c *Config) { c.Network.Bridge = "none" })
	got := w.run(func(r *CreateRequest) { r.HostConfig.NetworkMode = "" }, "ls", "/sys/class/net")
	if got.out != "lo\n" {
		t.Errorf("%+v", got)
	}
	if list, err := w.Networks.List(nil); err != nil || len(list) != 2 {
		t.Errorf("%+v, %v", list, err)
	}
	got = w.run(func(r *CreateRequest) { r.HostConfig.NetworkMode = "bridge" }, "ls", "/sys/class/net") // as the field has it
	if got.out != "lo\n" {
		t.Errorf("%+v", got)
	}
}
