package engine

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"berth/container"
	"berth/engine/bundle"
	"berth/engine/machine"
	"berth/engine/request"
	"berth/fault"

	"github.com/moby/moby/api/types/blkiodev"
	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	wire "github.com/moby/moby/api/types/network"
)

// update changes a container and wants it to go this way.
func (w *world) update(id string, way Way, r UpdateRequest) {
	w.t.Helper()
	result, err := w.Containers.Update(w.t.Context(), id, r)
	if err != nil || result.Way != way {
		w.t.Fatalf("%+v, %v; want %q", result, err, way)
	}
}

// refused wants an update to fail and to leave the record as it is.
func (w *world) refused(id, want string, r UpdateRequest) error {
	w.t.Helper()
	before := w.record(id)
	_, err := w.Containers.Update(w.t.Context(), id, r)
	if err == nil || !strings.Contains(err.Error(), want) {
		w.t.Fatalf("%v; want %q", err, want)
	}
	if after := w.record(id); !sameRecord(before, after) {
		w.t.Errorf("%s: the record is another one:\n%+v\n%+v", want, before, after)
	}
	disk, err2 := w.Containers.store.Load(id)
	if err2 != nil || !sameRecord(before, disk) {
		w.t.Errorf("%s: the record on disk is another one, %v", want, err2)
	}
	return err
}

func (w *world) record(id string) *container.Record {
	w.t.Helper()
	i, err := w.Containers.index.Get(id)
	if err != nil {
		w.t.Fatal(err)
	}
	return i.record()
}

// limit reads a v1 control file of a container's group, or the v2 one; "" where neither is.
func (w *world) limit(id, v1, v2 string) string {
	w.t.Helper()
	path := bundle.CgroupsPath(w.config.CgroupParent, w.record(id))
	controller, _, _ := strings.Cut(v1, ".")
	for _, name := range []string{"/sys/fs/cgroup/" + controller + path + "/" + v1, "/sys/fs/cgroup" + path + "/" + v2} {
		if text, err := os.ReadFile(name); err == nil {
			return strings.TrimSpace(string(text))
		}
	}
	return ""
}

func (w *world) wantLimit(id, v1, wantV1, v2, wantV2 string) {
	w.t.Helper()
	want := wantV1
	if w.Containers.limits.Version == "2" {
		want = wantV2
	}
	if got := w.limit(id, v1, v2); got != want {
		w.t.Errorf("%s or %s is %q, want %q", v1, v2, got, want)
	}
}

// says runs a program in the container and returns what it prints.
func (w *world) says(id string, args ...string) string {
	w.t.Helper()
	e, err := w.Containers.ExecCreate(w.t.Context(), id, api.ExecCreateRequest{Cmd: args, AttachStdout: true, AttachStderr: true})
	if err != nil {
		w.t.Fatal(err)
	}
	client, server := socketPair(w.t)
	if err := w.Containers.ExecStart(w.t.Context(), e, ExecStartRequest{Attach: &AttachRequest{Conn: server, Stdout: true, Stderr: true, Stream: true, Frames: true}}); err != nil {
		w.t.Fatal(err)
	}
	out, errOut := readFrames(w.t, client)
	return out + errOut
}

const mega = 1 << 20

func TestUpdateOfLimits(t *testing.T) {
	w := newWorld(t)
	id := w.create(func(r *CreateRequest) {
		r.HostConfig.Memory, r.HostConfig.CPUShares = 64*mega, 512
	}, "sh", "-c", "dd if=/dev/zero of=/dev/shm/held bs=1M count=20 2>/dev/null; echo held; sleep 1000")
	w.update(id, Recorded, UpdateRequest{Resources: api.Resources{PidsLimit: new(int64(70))}})
	w.start(id)
	w.awaitLog(id, "held")
	w.wantLimit(id, "pids.max", "70", "pids.max", "70")
	w.update(id, ChangedLive, UpdateRequest{
		Resources:     api.Resources{Memory: 80 * mega, MemorySwap: 160 * mega, NanoCPUs: 5e8, CPUShares: 256, CpusetCpus: "0", PidsLimit: new(int64(-1)), MemoryReservation: 32 * mega},
		RestartPolicy: api.RestartPolicy{Name: "on-failure", MaximumRetryCount: 3},
	})
	w.wantLimit(id, "memory.limit_in_bytes", fmt.Sprint(80*mega), "memory.max", fmt.Sprint(80*mega))
	w.wantLimit(id, "memory.memsw.limit_in_bytes", fmt.Sprint(160*mega), "memory.swap.max", fmt.Sprint(80*mega))
	w.wantLimit(id, "memory.soft_limit_in_bytes", fmt.Sprint(32*mega), "memory.low", fmt.Sprint(32*mega))
	w.wantLimit(id, "cpu.cfs_quota_us", "50000", "cpu.max", "50000 100000")
	w.wantLimit(id, "cpu.shares", "256", "cpu.weight", "35")
	w.wantLimit(id, "cpuset.cpus", "0", "cpuset.cpus", "0")
	w.wantLimit(id, "pids.max", "max", "pids.max", "max")
	if h := w.record(id).HostConfig; h.RestartPolicy.MaximumRetryCount != 3 || h.PidsLimit == nil || *h.PidsLimit != 0 || h.NanoCPUs != 5e8 {
		t.Errorf("%+v", h)
	}
	for want, r := range map[string]api.Resources{
		"Minimum memory limit allowed is 6MB":                                                {Memory: mega},
		"Memory limit should be smaller than already set memoryswap limit":                   {Memory: 500 * mega},
		"Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set": {CPUPeriod: 50000},
		"Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set":  {CPUQuota: 50000},
		"Requested CPUs are not available - requested 99, available:":                        {CpusetCpus: "99"},
		"Minimum memory limit can not be less than memory reservation limit":                 {Memory: 20 * mega},
		"Range of blkio weight is from 10 to 1000":                                           {BlkioWeight: 5},
		"Cannot update container " + id + ": /dev/nosuch is no block device":                 {BlkioDeviceReadBps: throttled("/dev/nosuch")},
	} {
		w.refused(id, want, UpdateRequest{Resources: r})
	}
	// What the kernel refuses half-way leaves nothing of the rest.
	err := w.refused(id, "set memory limit to 10485760", UpdateRequest{Resources: api.Resources{Memory: 10 * mega, MemorySwap: 10 * mega, MemoryReservation: 8 * mega, CPUShares: 999}})
	if !errors.Is(err, fault.Conflict) {
		t.Error(err)
	}
	w.wantLimit(id, "cpu.shares", "256", "cpu.weight", "35")
	w.wantLimit(id, "memory.memsw.limit_in_bytes", fmt.Sprint(160*mega), "memory.swap.max", fmt.Sprint(80*mega))
	if w.Containers.limits.CPURealtime { // refused after the shares are set
		w.refused(id, "realtime runtime", UpdateRequest{Resources: api.Resources{CPUShares: 999, CPURealtimeRuntime: 1000}})
		w.wantLimit(id, "cpu.shares", "256", "", "")
	}
	if _, err := w.Containers.Update(t.Context(), "nosuch", UpdateRequest{}); !errors.Is(err, fault.NotFound) {
		t.Error(err)
	}
}

func publish(spec string) wire.PortMap {
	host, port, _ := strings.Cut(spec, ":")
	return wire.PortMap{wire.MustParsePort(port): {{HostPort: host}}}
}

func TestUpdateLive(t *testing.T) {
	w := newWorld(t)
	host := t.TempDir()
	if err := os.WriteFile(filepath.Join(host, "file"), []byte("from the host"), 0o644); err != nil {
		t.Fatal(err)
	}
	id := w.create(func(r *CreateRequest) {
		r.HostConfig.NetworkMode = "bridge"
		r.HostConfig.PortBindings = publish("7001:80")
		r.Config.Labels = map[string]string{"old": "1", "kept": "1"}
		r.HostConfig.Tmpfs = map[string]string{"/scratch": ""}
	}, "sh", "-c", "mkdir /www; echo served >/www/index.html; exec httpd -f -p 80 -h /www")
	w.start(id)
	w.says(id, "sh", "-c", "while ! grep -q :0050 /proc/net/tcp /proc/net/tcp6; do sleep 0.01; done")
	pid := w.record(id).State.Pid
	bind := func(target string, readOnly bool) mount.Mount {
		return mount.Mount{Type: mount.TypeBind, Source: host, Target: target, ReadOnly: readOnly}
	}
	w.update(id, ChangedLive, UpdateRequest{Changes: request.Changes{
		LabelAdd: map[string]string{"new": "2"}, LabelRemove: []string{"old"},
		PublishAdd: publish("7002:80"), PublishRemove: []string{"7001:80"},
		MountAdd:    []mount.Mount{bind("/in/it", true), {Type: mount.TypeVolume, Source: "vol", Target: "/data"}, {Type: mount.TypeTmpfs, Target: "/fresh"}},
		MountRemove: []string{"/scratch"},
	}})
	r := w.record(id)
	if r.State.Pid != pid || r.Config.Labels["new"] != "2" || r.Config.Labels["kept"] != "1" || len(r.Config.Labels) != 2 || len(r.HostConfig.Tmpfs) != 0 {
		t.Errorf("%+v", r.Config.Labels)
	}
	if got := w.says(id, "cat", "/in/it/file", "/data/first"); got != "from the hostfrom the image" {
		t.Errorf("in the new mounts: %q", got)
	}
	if got := w.says(id, "sh", "-c", "echo x >/in/it/file; echo y >/fresh/y; grep -c -E ' /(in/it|data|fresh|scratch) ' /proc/mounts"); !strings.Contains(got, "Read-only file system") || !strings.Contains(got, "3\n") {
		t.Errorf("%q", got)
	}
	fetch := func(port string) string {
		answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://127.0.0.1:" + port + "/")
		if err != nil {
			return err.Error()
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Error(err)
		}
		return string(text)
	}
	if got := fetch("7002"); !strings.Contains(got, "served\n") {
		t.Errorf("the new port: %q", got)
	}
	if got := fetch("7001"); !strings.Contains(got, "refused") {
		t.Errorf("the port that is withdrawn: %q", got)
	}
	other := w.create(func(r *CreateRequest) {
		r.HostConfig.NetworkMode, r.HostConfig.PortBindings = "bridge", publish("7001:80")
	}, "sleep", "1000")
	w.start(other) // it is free
	// One step that fails takes back all before it.
	w.refused(id, "Bind for 0.0.0.0:7001 failed: port is already allocated", UpdateRequest{Changes: request.Changes{PublishAdd: publish("7001:80"), LabelAdd: map[string]string{"x": "y"}}})
	w.refused(id, "not a directory", UpdateRequest{Resources: api.Resources{CPUShares: 700}, Changes: request.Changes{
		PublishAdd: publish("7003:80"), PublishRemove: []string{"7002:80"}, MountRemove: []string{"/in/it"},
		MountAdd: []mount.Mount{bind("/in/it", false), {Type: mount.TypeVolume, Target: "/more"}, bind("/data/first", false)},
	}})
	if got := w.says(id, "sh", "-c", "echo x >/in/it/file; grep -c -E ' /(in/it|data|fresh|more|scratch|data/first) ' /proc/mounts"); !strings.Contains(got, "Read-only file system") || !strings.Contains(got, "3\n") {
		t.Errorf("after what was taken back: %q", got)
	}
	if got := fetch("7002"); !strings.Contains(got, "served\n") {
		t.Errorf("the port after what was taken back: %q", got)
	}
	w.wantLimit(id, "cpu.shares", "1024", "cpu.weight", "100")
	volumes, err := w.Volumes.List(t.Context(), nil)
	if err != nil || len(volumes) != 1 {
		t.Errorf("%v, %v", volumes, err)
	}
	// All of it is there after a start, too.
	if err := w.Containers.Restart(t.Context(), id, StopOptions{Timeout: new(0)}); err != nil {
		t.Fatal(err)
	}
	if got := w.says(id, "sh", "-c", "cat /in/it/file; grep -c -E ' /(in/it|data|fresh|scratch) ' /proc/mounts"); got != "from the host3\n" {
		t.Errorf("after a restart: %q", got)
	}
	if ports := w.record(id).HostConfig.PortBindings; len(ports) != 1 || ports[wire.MustParsePort("80")][0].HostPort != "7002" {
		t.Errorf("%v", ports)
	}
}

func TestUpdateInPlace(t *testing.T) {
	w := newWorld(t)
	id := w.create(func(r *CreateRequest) {
		r.Config.Env = []string{"A=1", "B=1"}
		r.HostConfig.AutoRemove = true
		r.HostConfig.Mounts = []mount.Mount{{Type: mount.TypeVolume, Target: "/data"}}
	}, "sh", "-c", `echo started $A $B; trap "exit 0" TERM; while :; do sleep 0.05; done`)
	w.start(id)
	w.awaitLog(id, "started 1 1")
	w.says(id, "touch", "/layer", "/data/volume")
	old := w.record(id)
	w.update(id, Recreated, UpdateRequest{Resources: api.Resources{CPUShares: 300}, Changes: request.Changes{
		EnvAdd: []string{"A=2", "C=3"}, EnvRemove: []string{"B"}, LabelAdd: map[string]string{"l": "m"},
	}})
	w.awaitLog(id, "started 2\n")
	r := w.record(id)
	if r.Name != old.Name || r.State.Status != container.Running || r.State.Pid == old.State.Pid || !slices.Equal(r.Config.Env, []string{"A=2", "C=3"}) || r.Config.Labels["l"] != "m" {
		t.Errorf("%+v %+v", r.Config, r.State)
	}
	if got := w.says(id, "ls", "/layer", "/data/volume"); got != "/data/volume\n/layer\n" {
		t.Errorf("layer and volume: %q", got)
	}
	w.wantLimit(id, "cpu.shares", "300", "cpu.weight", "39")

	// A start that fails: the container is as it was, and runs.
	host := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(host, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	w.refusedStart(id, "are you trying to mount a directory onto a file (or vice-versa)", UpdateRequest{Changes: request.Changes{
		EnvAdd: []string{"A=9"}, MountAdd: []mount.Mount{{Type: mount.TypeBind, Source: host, Target: "/tmp"}, {Type: mount.TypeVolume, Target: "/anonymous"}},
	}})
	if got := w.says(id, "sh", "-c", "echo $A"); got != "2\n" {
		t.Errorf("A is %q", got)
	}
	if volumes, err := w.Volumes.List(t.Context(), nil); err != nil || len(volumes) != 1 {
		t.Errorf("%v, %v", volumes, err)
	}
	if err := w.Containers.Pause(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	w.refused(id, "is paused", UpdateRequest{Changes: request.Changes{EnvAdd: []string{"A=5"}}})
	w.update(id, ChangedLive, UpdateRequest{Resources: api.Resources{CPUShares: 301}})
	if err := w.Containers.Unpause(t.Context(), id); err != nil {
		t.Fatal(err)
	}
}

// refusedStart wants an update to fail at the start, and the container to run with what it had.
func (w *world) refusedStart(id, want string, r UpdateRequest) {
	w.t.Helper()
	before := w.record(id)
	_, err := w.Containers.Update(w.t.Context(), id, r)
	if err == nil || !strings.Contains(err.Error(), want) || !strings.HasSuffix(err.Error(), "it is as it was, and runs again") {
		w.t.Fatalf("%v; want %q", err, want)
	}
	if after := w.record(id); !sameRecord(before, after) || after.State.Status != container.Running || after.State.Error != "" {
		w.t.Errorf("%+v\n%+v", before, after)
	}
	if u, err := w.Containers.store.Updating(id); u != nil || err != nil {
		w.t.Errorf("a note is left: %+v, %v", u, err)
	}
}

// TestUnfinishedUpdate puts the marks of an engine that was killed in the middle of an update in their places.
func TestUnfinishedUpdate(t *testing.T) {
	w := newWorld(t)
	make := func() string {
		id := w.create(func(r *CreateRequest) {
			r.HostConfig.NetworkMode, r.HostConfig.PortBindings = "bridge", wire.PortMap{wire.MustParsePort("80"): {{HostIP: netip.MustParseAddr("127.0.0.1")}}}
			r.HostConfig.Mounts = []mount.Mount{{Type: mount.TypeTmpfs, Target: "/goes"}}
			r.Config.Env = []string{"A=1"}
		}, "sh", "-c", `trap "exit 0" TERM; while :; do sleep 0.05; done`)
		w.start(id)
		return id
	}
	draft := func(id string, r UpdateRequest) *container.Record {
		next, _, err := updater{w.Containers}.draftUpdate(w.record(id), r)
		if err != nil {
			t.Fatal(err)
		}
		return next
	}
	live := UpdateRequest{Resources: api.Resources{CPUShares: 200}, Changes: request.Changes{
		PublishAdd: publish("7005:81"), MountAdd: []mount.Mount{{Type: mount.TypeTmpfs, Target: "/comes"}}, MountRemove: []string{"/goes"}}}
	env := UpdateRequest{Changes: request.Changes{EnvAdd: []string{"A=2"}}}
	begun, halfway, recorded, ended, replaced, reborn := make(), make(), make(), make(), make(), make()
	note := func(id string, r UpdateRequest, ran bool) *container.Record {
		next := draft(id, r)
		if err := w.Containers.store.BeginUpdate(&container.Update{Before: w.record(id), After: next, Ran: ran, Boot: machine.Boot()}); err != nil {
			t.Fatal(err)
		}
		return next
	}
	stop := func(id string) {
		if err := w.Containers.Stop(t.Context(), id, StopOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	save := func(r *container.Record) {
		if err := w.Containers.store.Save(r); err != nil {
			t.Fatal(err)
		}
	}
	note(begun, live, false)
	next := note(halfway, live, false)
	i, err := w.Containers.index.Get(halfway)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (updater{w.Containers}).changeLive(t.Context(), i, i.record(), next, &undo{}); err != nil {
		t.Fatal(err)
	}
	live.Changes.PublishAdd = publish("7006:81")
	next = note(recorded, live, false)
	if i, err = w.Containers.index.Get(recorded); err != nil {
		t.Fatal(err)
	}
	if _, err := (updater{w.Containers}).changeLive(t.Context(), i, i.record(), next, &undo{}); err != nil {
		t.Fatal(err)
	}
	save(next)
	note(ended, env, true)
	stop(ended)
	next = note(replaced, env, true)
	stop(replaced)
	save(next)
	next = note(reborn, env, true)
	save(next)
	if err := w.Engine.Close(); err != nil {
		t.Fatal(err)
	}
	w.open()

	for name, c := range map[string]struct {
		id     string
		change bool // what was begun stands
		env    string
	}{
		"noted": {begun, false, "A=1"}, "made half": {halfway, false, "A=1"}, "recorded": {recorded, true, "A=1"},
		"ended": {ended, false, "A=1"}, "ended and recorded": {replaced, false, "A=1"}, "recorded and running": {reborn, true, "A=2"},
	} {
		r := w.record(c.id)
		if r.State.Status != container.Running || r.Config.Env[0] != c.env {
			t.Errorf("%s: %s, %q", name, r.State.Status, r.Config.Env)
			continue
		}
		shares, mounts, ports := "1024", "/goes", 1
		if c.change && c.env == "A=1" {
			shares, mounts, ports = "200", "/comes", 2
		}
		if w.Containers.limits.Version == "1" {
			w.wantLimit(c.id, "cpu.shares", shares, "", "")
		}
		if got := w.says(c.id, "sh", "-c", "grep -E -o ' /(goes|comes) ' /proc/mounts"); strings.TrimSpace(got) != mounts {
			t.Errorf("%s: mounted %q, want %s", name, got, mounts)
		}
		if ep := attachmentOf(r); ep == nil || len(ep.Ports) != ports {
			t.Errorf("%s: %+v", name, ep)
		}
		if u, err := w.Containers.store.Updating(c.id); u != nil || err != nil {
			t.Errorf("%s: a note is left: %+v, %v", name, u, err)
		}
	}
}

func throttled(path string) []*blkiodev.ThrottleDevice {
	return []*blkiodev.ThrottleDevice{{Path: path, Rate: 1 << 20}}
}
