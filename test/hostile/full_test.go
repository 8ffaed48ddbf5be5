package hostile

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"berth/test/testengine"
)

// filler takes room away from a data root and gives it back.
type filler struct{ dir string }

// leave fills the file system until so many KiB are free.
func (f filler) leave(t testing.TB, kib int64) {
	t.Helper()
	f.free(t)
	var st syscall.Statfs_t
	if err := syscall.Statfs(f.dir, &st); err != nil {
		t.Fatal(err)
	}
	free := int64(st.Bavail) * st.Bsize
	file, err := os.Create(filepath.Join(f.dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	chunk := []byte(random(64 << 10))
	for left := free - kib<<10; left > 0; left -= int64(len(chunk)) {
		if _, err := file.Write(chunk[:min(left, int64(len(chunk)))]); err != nil {
			break
		}
	}
	if err := file.Sync(); err != nil {
		t.Fatal(err)
	}
}

// leaveFiles makes empty files until so many more can be made.
func (f filler) leaveFiles(t testing.TB, files int) {
	t.Helper()
	f.free(t)
	var st syscall.Statfs_t
	if err := syscall.Statfs(f.dir, &st); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(f.dir, "filler")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range int(st.Ffree) - files - 1 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o600); err != nil {
			break
		}
	}
}

func (f filler) free(t testing.TB) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(f.dir, "filler")); err != nil {
		t.Fatal(err)
	}
}

// TestFullDiskAtEveryStep: however little room there is, what doesn't fit is refused by its reason, nothing of it stays, and all works again when there is room.
func TestFullDiskAtEveryStep(t *testing.T) {
	e := testengine.New(t)
	smallDisk(t, e, 64)
	e.Up(t)
	e.Busybox(t)
	s, address, stop := serve(t)
	files := []member{}
	for i := range 300 {
		files = append(files, file(fmt.Sprintf("d%d/%d", i%7, i), random(3000+i)))
	}
	p := imageOf([]layer{busyboxLayer(t), layerOf(t, files...), layerOf(t, file("big", random(2<<20)))}, nil)
	p.put(s, "app", "1")
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	oci, docker, plain := write("oci.tar", layout(t, p, "app:oci")), write("docker.tar", dockerArchive(t, p, "app:docker")), write("plain.tar.gz", p.layers[1].data)
	source := strings.TrimSpace(e.Run(t, "run", "-d", "--name", "source", "busybox", "sh", "-c", "head -c 2000000 /dev/urandom >/f; sleep 1000"))
	for _, verb := range [][]string{{"pull", address + "/app:1"}, {"load", "-i", oci}, {"load", "-i", docker}, {"import", plain, "app:import"}, {"commit", source, "app:commit"}} {
		e.Run(t, verb...)
	}
	remove := func() {
		for _, image := range list(t, e, "/images/json?all=1") {
			if name := fmt.Sprint(image["RepoTags"]); strings.Contains(name, "app:") {
				e.Run(t, "rmi", "-f", fmt.Sprint(image["Id"]))
			}
		}
	}
	remove()
	stopped := false
	before := settled(t, e)
	room := filler{e.Data}
	const words = "no space left on device"
	refusals, fits := 0, 0
	try := func(what string, verb ...string) {
		t.Helper()
		if verb[0] == "pull" && stopped {
			return
		}
		out, err := e.Command("berth", verb...).CombinedOutput()
		if err != nil {
			refusals++
			if !strings.Contains(string(out), words) || len(out) > 2000 {
				t.Errorf("%s, berth %s: %s", what, verb[0], out)
			}
		} else {
			fits++
		}
		room.free(t)
		if err == nil {
			remove()
		}
		freed(t, e)
		same(t, e, before)
	}
	verbs := [][]string{{"pull", "-q", address + "/app:1"}, {"load", "-q", "-i", oci}, {"load", "-q", "-i", docker}, {"import", plain, "app:import"}, {"commit", source, "app:commit"}}
	sizes, counts := []int64{700, 1500, 3000, 7000}, []int{3, 200, 320, 700}
	if os.Getenv("BERTH_SOAK") != "" {
		sizes, counts = []int64{0, 100, 700, 1000, 1500, 2200, 3000, 4000, 5500, 7000}, []int{0, 3, 20, 200, 310, 320, 330, 700}
	}
	for _, verb := range verbs {
		for _, kib := range sizes {
			room.leave(t, kib)
			try(fmt.Sprintf("with %d KiB", kib), verb...)
		}
		for _, n := range counts {
			room.leaveFiles(t, n)
			try(fmt.Sprintf("with room for %d files", n), verb...)
		}
	}
	t.Logf("%d times there was room, %d times not", fits, refusals)
	if fits < 5 || refusals < 15 {
		t.Errorf("%d times there was room, %d times not", fits, refusals)
	}
	for _, verb := range verbs {
		e.Run(t, verb...)
	}
	if out := e.Run(t, "run", "--rm", address+"/app:1", "sh", "-c", "cat /d0/0 | wc -c"); out != "3000\n" {
		t.Errorf("it says %q", out)
	}
	remove()
	stop()
	freed(t, e)
	same(t, e, before)
}

// TestRemovalOnAFullDisk: where nothing fits any more, what is there can still be removed, which makes room.
func TestRemovalOnAFullDisk(t *testing.T) {
	e := testengine.New(t)
	smallDisk(t, e, 32)
	e.Up(t)
	e.Busybox(t)
	before := settled(t, e)
	for _, how := range []string{"bytes", "files"} {
		t.Run(how, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "plain.tar")
			if err := os.WriteFile(path, tarOf(t, file("big", random(4<<20))), 0o600); err != nil {
				t.Fatal(err)
			}
			e.Run(t, "import", path, "app:1")
			e.Run(t, "tag", "app:1", "app:2")
			id := strings.TrimSpace(e.Run(t, "create", "busybox", "true"))
			room := filler{e.Data}
			if how == "bytes" {
				room.leave(t, 0)
			} else {
				room.leaveFiles(t, 0)
			}
			for _, verb := range [][]string{{"rmi", "app:1"}, {"rmi", "app:2"}, {"rm", id}} {
				if out, err := e.Command("berth", verb...).CombinedOutput(); err != nil {
					t.Errorf("berth %v: %s", verb, out)
				}
			}
			if got := e.Run(t, "images", "-q", "app"); got != "" {
				t.Errorf("images: %s", got)
			}
			room.free(t)
			for _, verb := range [][]string{{"rmi", "app:1"}, {"rmi", "app:2"}, {"rm", id}} {
				e.Try(verb...)
			}
			same(t, e, before)
		})
	}
}
