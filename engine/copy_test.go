package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/container"
	"berth/engine/files"
	"berth/fault"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

// tarOf makes an archive of files: name, content, name, content…; a name that ends in a slash is a directory.
func tarOf(t testing.TB, members ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for k := 0; k < len(members); k += 2 {
		h := &tar.Header{Name: members[k], Mode: 0o755, Size: int64(len(members[k+1]))}
		if strings.HasSuffix(h.Name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, members[k+1])
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func (w *world) put(id, dir string, data []byte) error {
	return w.Containers.Extract(context.Background(), id, files.ExtractRequest{Path: dir}, false, bytes.NewReader(data))
}

func (w *world) get(id string, paths ...string) ([]byte, error) {
	var b bytes.Buffer
	err := w.Containers.Archive(context.Background(), id, files.ArchiveRequest{Paths: paths}, func(api.PathStat) io.Writer { return &b })
	return b.Bytes(), err
}

// TestCopyAgainstSwaps has a process in the container exchange directories for links to places of the host while
// copies go both ways (CVE-2018-15664). Nothing of the host may be read, and nothing written.
func TestCopyAgainstSwaps(t *testing.T) {
	w := newWorld(t)
	host := t.TempDir() // the same path inside the container holds other things
	const secret, ours = "of the host", "of the container"
	if err := errors.Join(os.Mkdir(filepath.Join(host, "sub"), 0o755), os.WriteFile(filepath.Join(host, "f"), []byte(secret), 0o644),
		os.WriteFile(filepath.Join(host, "sub/f"), []byte(secret), 0o644)); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf(`mkdir -p %[1]s/sub /x /real/sub; echo -n "%[2]s" >/real/f; echo -n "%[2]s" >/real/sub/f; touch /ready
while :; do
	rm -rf /x; ln -s %[1]s /x; rm /x; ln -s ../../../../../../../../../../../..%[1]s /x; rm /x; ln -s /real /x; rm /x; ln -s /proc/1/root%[1]s /x; rm /x
	mkdir /x; echo -n "%[2]s" >/x/f; ln -s %[1]s /x/sub; rm /x/sub; mkdir /x/sub; echo -n "%[2]s" >/x/sub/f
done`, host, ours)
	id := w.create(nil, "sh", "-c", script)
	w.start(id)
	eventually(t, func() error { _, err := w.Containers.StatPath(context.Background(), id, "/ready"); return err })
	data := tarOf(t, "planted", "p", "sub/", "", "sub/planted", "p", "f", "replaced")
	deadline := time.Now().Add(4 * time.Second)
	var wg sync.WaitGroup
	reads, writes := 0, 0
	wg.Go(func() {
		for time.Now().Before(deadline) {
			for _, p := range []string{"/x", "/x/", "/x/f", "/x/sub", "/x/sub/f"} {
				got, err := w.get(id, p)
				if bytes.Contains(got, []byte(secret)) {
					t.Errorf("%s gave a file of the host", p)
					return
				}
				if err == nil {
					reads++
				}
			}
		}
	})
	wg.Go(func() {
		for time.Now().Before(deadline) {
			for _, p := range []string{"/x", "/x/sub"} {
				if w.put(id, p, data) == nil {
					writes++
				}
			}
		}
	})
	wg.Wait()
	if reads < 10 || writes < 10 {
		t.Errorf("only %d reads and %d writes went through: the race was not run", reads, writes)
	}
	for name, want := range map[string]string{"f": secret, "sub/f": secret, "planted": "", "sub/planted": ""} {
		got, err := os.ReadFile(filepath.Join(host, name))
		if string(got) != want || (want == "") != errors.Is(err, os.ErrNotExist) {
			t.Errorf("the host's %s: %q %v", name, got, err)
		}
	}
}

func eventually(t testing.TB, check func() error) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// slow is a reader or writer that waits for its permission at every call.
type slow struct {
	io.Reader
	io.Writer
	began, more chan struct{}
	once        sync.Once
}

func (s *slow) pass() {
	s.once.Do(func() { close(s.began) })
	<-s.more
}

func (s *slow) Read(p []byte) (int, error)  { s.pass(); return s.Reader.Read(p) }
func (s *slow) Write(p []byte) (int, error) { s.pass(); return s.Writer.Write(p) }

func TestStartWaitsForCopies(t *testing.T) {
	w := newWorld(t)
	id := w.create(func(r *CreateRequest) { r.HostConfig.Binds = []string{"v:/vol"} }, "sh", "-c", "cat /copied /vol/in")
	ctx := context.Background()
	from := &slow{Writer: io.Discard, began: make(chan struct{}), more: make(chan struct{})}
	done := make(chan error, 3)
	go func() {
		done <- w.Containers.Archive(ctx, id, files.ArchiveRequest{Paths: []string{"/bin"}}, func(api.PathStat) io.Writer { return from })
	}()
	<-from.began
	client := w.attach(id, AttachRequest{Stream: true, Frames: true})
	started := make(chan error, 1)
	go func() { started <- w.Containers.Start(ctx, id) }()
	// While the one reads and the start waits, another may still write: it is the same copy's other end.
	if err := w.put(id, "/", tarOf(t, "copied", "c")); err != nil {
		t.Fatal(err)
	}
	if err := w.put(id, "/vol", tarOf(t, "in", "v")); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-started:
		t.Fatalf("it started over a mounted tree: %v", err)
	default:
	}
	close(from.more)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	if out, _ := readFrames(t, client); out != "cv" {
		t.Errorf("it read %q", out)
	}
	w.wait(id, "")
}

// TestCopySurvivesTheEnd: a container that ends meanwhile leaves its mounts to the copy; one that is removed fails it.
func TestCopySurvivesTheEnd(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	id := w.create(func(r *CreateRequest) { r.HostConfig.Binds = []string{"v:/vol"} }, "sleep", "1000")
	w.start(id)
	body := tarOf(t, "a/", "", "a/1", "1", "a/2", "2")
	in := &slow{Reader: bytes.NewReader(body), began: make(chan struct{}), more: make(chan struct{})}
	done := make(chan error, 1)
	go func() { done <- w.Containers.Extract(ctx, id, files.ExtractRequest{Path: "/vol"}, false, in) }()
	<-in.began
	if err := w.Containers.Kill(ctx, id, "KILL"); err != nil {
		t.Fatal(err)
	}
	w.wait(id, "")
	close(in.more)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	v, err := w.Volumes.Inspect(t.Context(), "v")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(v.Mountpoint, "a/2")); err != nil || string(got) != "2" {
		t.Errorf("the volume has %q %v", got, err)
	}
	if _, err := w.get("nosuch", "/"); !errors.Is(err, fault.NotFound) {
		t.Errorf("no container: %v", err)
	}
}

func TestCommitPausesAndTellsOfIt(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	id := w.create(nil, "sh", "-c", "echo x >/x; ln /x /y; rm -r /data; mkdir /data; touch /data/new; rm /etc/group; sleep 1000")
	w.start(id)
	eventually(t, func() error {
		if _, err := w.Containers.StatPath(ctx, id, "/etc/group"); err == nil {
			return errors.New("it is not ready")
		}
		return nil
	})
	_, sub, err := w.Events.Subscribe(EventsRequest{Filters: Filters{"container": {id}}})
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	image, err := w.Containers.Commit(ctx, id, CommitRequest{Ref: "made:1", Pause: true, Message: "m"})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []events.Action{events.ActionPause, events.ActionCommit, events.ActionUnPause} {
		if m := <-sub.C; m.Action != want || want == events.ActionCommit && m.Actor.Attributes["imageID"] != image {
			t.Errorf("event %s %v, want %s", m.Action, m.Actor.Attributes, want)
		}
	}
	if i, err := w.Containers.index.Get(id); err != nil || i.record().State.Status != container.Running {
		t.Errorf("it is %s afterwards", i.record().State.Status)
	}
	r := w.run(func(r *CreateRequest) { r.Config.Image = "made:1" }, "sh", "-c", "ls /data; cat /x /y; ls /etc/group; ls -i /x /y | sed 's/[^0-9]*\\([0-9]*\\).*/\\1/' | head -n 1 >/i; true")
	if r.out != "new\nx\nx\n" || !strings.Contains(r.errOut, "/etc/group: No such file") {
		t.Errorf("the image gives %q %q", r.out, r.errOut)
	}
	again, err := w.Containers.Commit(ctx, w.create(func(r *CreateRequest) { r.Config.Image = "made:1" }, "true"), CommitRequest{})
	if err != nil {
		t.Fatal(err)
	}
	first, _ := w.Images.Store.Get(image)
	second, err := w.Images.Store.Get(again)
	if err != nil || len(second.Layers) != len(first.Layers) || second.Chain != first.Chain {
		t.Errorf("a container without changes got a layer: %v %v", second, err)
	}
	if h := second.Config.History; !h[len(h)-1].EmptyLayer {
		t.Errorf("history %+v", h)
	}
}

func TestPruneLeavesWhatRuns(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	runs := w.create(nil, "sleep", "1000")
	w.start(runs)
	labelled := w.create(func(r *CreateRequest) { r.Config.Labels = map[string]string{"keep": "1"} }, "true")
	done := w.create(nil, "sh", "-c", "dd if=/dev/zero of=/big bs=1024 count=1000 2>/dev/null")
	w.start(done)
	w.wait(done, "")
	for _, dry := range []bool{true, false} {
		report, err := w.Containers.Prune(ctx, Filters{"label!": {"keep"}}, dry)
		if err != nil || len(report.ContainersDeleted) != 1 || report.ContainersDeleted[0] != done || report.SpaceReclaimed < 1000<<10 || report.SpaceReclaimed > 1100<<10 {
			t.Errorf("dry %v: %+v %v", dry, report, err)
		}
	}
	for id, want := range map[string]error{runs: nil, labelled: nil, done: fault.NotFound} {
		if _, err := w.Containers.Inspect(ctx, id, false); !errors.Is(err, want) {
			t.Errorf("%s: %v", container.ShortID(id), err)
		}
	}
	for _, bad := range []Filters{{"nosuch": {"x"}}, {"until": {"1h", "2h"}}, {"until": {"x"}}} {
		if _, err := w.Containers.Prune(ctx, bad, true); !errors.Is(err, fault.Invalid) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func TestACommitThatDiesLeavesNothingFrozen(t *testing.T) {
	w := newWorld(t)
	id := w.create(nil, "sh", "-c", "n=0; while :; do n=$((n+1)); echo $n >/now; done")
	w.start(id)
	i, err := w.Containers.index.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Containers.freeze(context.Background(), i); err != nil {
		t.Fatal(err)
	}
	if s := i.record().State; s.Status != container.Paused || !s.Committing {
		t.Fatalf("it is %s", s.Status)
	}
	if err := w.Engine.Close(); err != nil {
		t.Fatal(err)
	}
	w.open()
	d, err := w.Containers.Inspect(context.Background(), id, false)
	if err != nil || d.State.Paused || !d.State.Running {
		t.Fatalf("it is %+v %v", d.State, err)
	}
	at := func() string {
		got, _ := w.get(id, "/now")
		return string(got)
	}
	before := at()
	eventually(t, func() error {
		if at() == before {
			return errors.New("its processes are frozen")
		}
		return nil
	})
}

func TestCopyForTheContainersUser(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	id := w.create(func(r *CreateRequest) { r.Config.User = "guest" }, "sleep", "1000")
	put := func(dir string, asUser bool, owner string) error {
		return w.Containers.Extract(ctx, id, files.ExtractRequest{Path: dir, Owner: owner}, asUser, bytes.NewReader(tarOf(t, "f", "x")))
	}
	check := func(want string) {
		t.Helper()
		data, err := w.get(id, "/tmp/f")
		if err != nil {
			t.Fatal(err)
		}
		h, err := tar.NewReader(bytes.NewReader(data)).Next()
		if err != nil || fmt.Sprintf("%d:%d", h.Uid, h.Gid) != want {
			t.Errorf("it belongs to %d:%d, %v, want %s", h.Uid, h.Gid, err, want)
		}
	}
	for _, state := range []string{"created", "running", "paused"} {
		for _, c := range []struct {
			asUser      bool
			owner, want string
		}{{false, "", "0:0"}, {true, "", "1000:1000"}, {true, "0:10", "0:10"}, {false, "guest:wheel", "1000:10"}} {
			if err := put("/tmp", c.asUser, c.owner); err != nil {
				t.Fatalf("%s: %v", state, err)
			}
			check(c.want)
		}
		if err := put("/tmp", false, "nobody-here"); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: a user that is not there: %v", state, err)
		}
		if err := put("/tmp/f", false, ""); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "extraction point is not a directory") {
			t.Errorf("%s: into a file: %v", state, err)
		}
		switch state {
		case "created":
			w.start(id)
		case "running":
			if err := w.Containers.Pause(ctx, id); err != nil {
				t.Fatal(err)
			}
		}
	}
}
