package engine

import (
	archivetar "archive/tar"
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"berth/fault"
	"berth/union"

	api "github.com/moby/moby/api/types/container"
)

func auto(r *CreateRequest) { r.HostConfig.UsernsMode = "auto" }

// finish starts a container and returns what it said.
func (w *world) finish(id string) result {
	w.t.Helper()
	client := w.attach(id, AttachRequest{Stream: true, Frames: true})
	w.start(id)
	out, errOut := readFrames(w.t, client)
	return result{w.wait(id, api.WaitConditionNotRunning), out, errOut}
}

// Two containers with ids of their own have disjoint ones, that nobody else has, and what they write belongs on disk
// to whom they think.
func TestUsernsAuto(t *testing.T) {
	w := newWorld(t)
	first := w.create(func(r *CreateRequest) { auto(r); r.HostConfig.Binds = []string{"shared:/data"} },
		"sh", "-c", "cat /proc/self/uid_map; id -u; ls -ln /etc/passwd /etc/hosts; cat /etc/resolv.conf > /dev/null; echo 1 >> /etc/hosts; touch /data/one /new; chown 1000:1000 /new; stat -c %u /data/first")
	res := w.finish(first)
	one, err := w.Containers.index.Get(first)
	if err != nil {
		t.Fatal(err)
	}
	ids := one.record().IDs
	if len(ids.UIDs) != 1 || ids.UIDs[0].HostID < 0x70000000 || !strings.Contains(res.out, fmt.Sprintf("%d      65536\n0\n", ids.UIDs[0].HostID)) || res.errOut != "" {
		t.Fatalf("%+v: %+v", ids, res)
	}
	second := w.create(func(r *CreateRequest) {
		r.HostConfig.UsernsMode = "auto:size=2000"
		r.HostConfig.Binds = []string{"shared:/data"}
	},
		"sh", "-c", "touch /data/two && rm /data/one && stat -c %u:%g /data /data/two")
	if res := w.finish(second); res.out != "0:0\n0:0\n" {
		t.Errorf("%+v", res)
	}
	two, err := w.Containers.index.Get(second)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := ids.UIDs[0], two.record().IDs.UIDs[0]; b.Size != 2000 || a.HostID+a.Size > b.HostID {
		t.Errorf("%+v and %+v", a, b)
	}
	volume, err := w.Volumes.Inspect(t.Context(), "shared")
	if err != nil {
		t.Fatal(err)
	}
	root, err := w.Containers.layers.Open(first)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]uint32{volume.Mountpoint + "/two": 0, root.Stacked.Upper + "/new": 1000, root.Stacked.Upper: 0} {
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil || st.Uid != want {
			t.Errorf("%s belongs to %d on disk, not to %d (%v)", path, st.Uid, want, err)
		}
	}
	// What is free follows from the records: a new engine knows it, and a removed container's ids are free again.
	if err := w.Engine.Close(); err != nil {
		t.Fatal(err)
	}
	w.open()
	third := w.create(auto, "true")
	if three, err := w.Containers.index.Get(third); err != nil || three.record().IDs.UIDs[0].HostID < two.record().IDs.UIDs[0].HostID+2000 {
		t.Errorf("%+v, %v", three.record().IDs, err)
	}
	if err := w.Containers.Remove(context.Background(), first, RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	fourth := w.create(auto, "true")
	if four, err := w.Containers.index.Get(fourth); err != nil || !four.record().IDs.Equal(ids) {
		t.Errorf("%+v, %v", four.record().IDs, err)
	}
}

// Networks and terminals, exec, and joining another container.
func TestUsernsRuns(t *testing.T) {
	w := newWorld(t)
	id := w.create(func(r *CreateRequest) {
		auto(r)
		r.HostConfig.NetworkMode = ""
		r.HostConfig.CapAdd = []string{"NET_ADMIN"}
	},
		"sh", "-c", "id -u; ls /sys/class/net | tr '\\n' ' '; busybox ip link set eth0 mtu 1400 && busybox ping -c1 -w5 $(hostname) | grep -c 'bytes from'; head -c3 /dev/zero | wc -c; exec sleep 1000")
	w.start(id)
	w.awaitLog(id, "3\n")
	if out := w.log(id); out != "0\neth0 lo 1\n3\n" {
		t.Errorf("%q", out)
	}
	joined := w.create(func(r *CreateRequest) {
		auto(r)
		r.HostConfig.NetworkMode = api.NetworkMode("container:" + id)
		r.HostConfig.CapAdd = []string{"NET_ADMIN"}
	},
		"sh", "-c", "busybox ip link set eth0 mtu 1300 && cat /sys/class/net/eth0/mtu; readlink /proc/self/ns/user")
	i, err := w.Containers.index.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	user, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/user", i.record().State.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if res := w.finish(joined); res.out != "1300\n"+user+"\n" {
		t.Errorf("%+v, want to be in %s", res, user)
	}
}

func TestUsernsRefusals(t *testing.T) {
	w := newWorld(t)
	plain := w.create(nil, "true")
	for _, c := range []struct {
		change func(*api.HostConfig)
		want   string
	}{
		{func(h *api.HostConfig) { h.Privileged = true }, "privileged mode is incompatible with user namespaces"},
		{func(h *api.HostConfig) { h.NetworkMode = "host" }, "cannot share the host's network namespace when user namespaces are enabled"},
		{func(h *api.HostConfig) { h.PidMode = "host" }, "cannot share the host PID namespace when user namespaces are enabled"},
		{func(h *api.HostConfig) { h.UsernsMode = "auto:size=0" }, "the size is a number of ids"},
		{func(h *api.HostConfig) { h.UsernsMode = "auto:ids=1" }, "the only option of auto is size=N"},
		{func(h *api.HostConfig) { h.UsernsMode = "private" }, "invalid userns mode: private"},
		{func(h *api.HostConfig) { h.UsernsMode = "auto:size=268435457" }, "from 1 to 268435456"},
		{func(h *api.HostConfig) { h.NetworkMode = api.NetworkMode("container:" + plain) }, "is in the host's user namespace"},
	} {
		r := CreateRequest{Config: &api.Config{Image: "busybox"}, HostConfig: &api.HostConfig{UsernsMode: "auto"}}
		c.change(r.HostConfig)
		if _, _, err := w.Containers.Create(context.Background(), "", r); fault.Of(err) != fault.Invalid || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", r.HostConfig.UsernsMode, err)
		}
	}
}

// Where layers can't be id-mapped, the container stands on a copy, and is told so.
func TestUsernsByCopies(t *testing.T) {
	w := newWorld(t)
	w.Containers.mapsLayers = func() bool { return false }
	r := CreateRequest{Config: &api.Config{Image: "busybox", Cmd: []string{"sh", "-c", "stat -c %u:%g / /bin/busybox /etc/hosts /data /data/first /v; touch /new /v/new && chown 1000:1000 /new; stat -c %u /v/new"}},
		HostConfig: &api.HostConfig{NetworkMode: "none", UsernsMode: "auto", Binds: []string{"filled:/data", "empty:/v"}}}
	id, warnings, err := w.Containers.Create(context.Background(), "", r)
	if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "the image's layers are copied for the container's ids") {
		t.Fatal(warnings, err)
	}
	if res := w.finish(id); res.out != strings.Repeat("0:0\n", 6)+"0\n" || res.errOut != "" {
		t.Errorf("%+v", res)
	}
	i, err := w.Containers.index.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	root, err := w.Containers.layers.Open(id)
	if err != nil {
		t.Fatal(err)
	}
	first := i.record().IDs.UIDs[0].HostID
	var st syscall.Stat_t
	if err := syscall.Lstat(root.Stacked.Upper+"/new", &st); err != nil || st.Uid != first+1000 {
		t.Errorf("on disk it belongs to %d, not to %d (%v)", st.Uid, first+1000, err)
	}
	var tar bytes.Buffer
	if err := union.Pack(context.Background(), &tar, root); err != nil {
		t.Fatal(err)
	}
	for r := archivetar.NewReader(&tar); ; {
		h, err := r.Next()
		if err != nil {
			t.Errorf("the changes have no /new: %v", err)
			break
		}
		if h.Name == "new" {
			if h.Uid != 1000 || h.Gid != 1000 {
				t.Errorf("of the changes, it belongs to %d:%d", h.Uid, h.Gid)
			}
			break
		}
	}
}
