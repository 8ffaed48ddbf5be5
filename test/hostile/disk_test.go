package hostile

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/test/testengine"
)

// smallDisk gives the engine a data root on an ext4 file system of its own, of so many megabytes.
func smallDisk(t *testing.T, e *testengine.Engine, megabytes int) {
	t.Helper()
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		t.Skip("no mkfs.ext4: it comes with the package e2fsprogs")
	}
	dir := t.TempDir()
	for _, step := range []string{
		"truncate -s $2M $1/disk", "mkfs.ext4 -q -F -m 0 $1/disk", "mkdir -p $3", "mount -o loop $1/disk $3",
	} {
		if out, err := exec.Command("sh", "-c", step, "sh", dir, fmt.Sprint(megabytes), e.Data).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", step, err, out)
		}
	}
	t.Cleanup(func() {
		e.Stop(t)
		if out, err := exec.Command("umount", e.Data).CombinedOutput(); err != nil {
			t.Errorf("umount: %v\n%s", err, out)
		}
	})
}

// TestFullDiskWhileUnpacking: an image that doesn't fit is refused by its reason, and the space is free again.
func TestFullDiskWhileUnpacking(t *testing.T) {
	e := testengine.New(t)
	smallDisk(t, e, 24)
	e.Up(t)
	e.Busybox(t)
	s, address, stop := serve(t)
	defer stop()
	big := layerOf(t, file("first", random(8<<20)), file("second", random(12<<20)))
	p := imageOf([]layer{big}, nil)
	p.put(s, "big", "1")
	dir := t.TempDir()
	archive, image := filepath.Join(dir, "root.tar.gz"), filepath.Join(dir, "image.tar")
	if err := os.WriteFile(archive, big.data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(image, layout(t, p, "big:2"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := settled(t, e)
	for _, args := range [][]string{{"import", archive, "big:1"}, {"load", "-i", image}, {"pull", address + "/big:1"}} {
		refused(t, e, 1, "no space left on device", args...)
		if args[0] == "pull" {
			stop()
		}
		same(t, e, before)
		if out := e.Run(t, "run", "--rm", "busybox", "sh", "-c", "head -c 2000000 /dev/zero >/f && echo fits"); out != "fits\n" {
			t.Errorf("after %s: %q", args[0], out)
		}
	}
	same(t, e, before)
}

// TestFullDiskWhileLogging: a container that logs to a full disk goes on, and what it wrote before can be read.
func TestFullDiskWhileLogging(t *testing.T) {
	e := testengine.New(t)
	smallDisk(t, e, 16)
	e.Up(t)
	e.Busybox(t)
	before := settled(t, e)
	host := t.TempDir()
	id := strings.TrimSpace(e.Run(t, "run", "-d", "--name", "talker", "-v", host+":/v", "busybox", "sh", "-c",
		`echo the first line; yes "$(head -c 1000 /dev/zero | tr '\0' x)" | head -c 40000000; echo done >/v/done; while [ ! -e /v/go ]; do sleep 0.1; done; echo the last line; exit 7`))
	testengine.Eventually(t, 60*time.Second, func() error {
		_, err := os.Stat(filepath.Join(host, "done"))
		return err
	})
	if out := e.Run(t, "exec", "talker", "echo", "still here"); out != "still here\n" {
		t.Errorf("exec on a full disk: %q", out)
	}
	logs, err := e.Try("logs", "talker")
	if err != nil || !strings.HasPrefix(logs, "the first line\n") {
		t.Errorf("logs of %d bytes, %v", len(logs), err)
	}
	if err := os.WriteFile(filepath.Join(host, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code := strings.TrimSpace(e.Run(t, "wait", id)); code != "7" {
		t.Errorf("exit code %s", code)
	}
	// The daemon itself can go and come.
	e.Kill()
	e.Up(t)
	if got := strings.TrimSpace(e.Run(t, "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", id)); got != "exited 7" {
		t.Errorf("after a restart on a full disk it is %q", got)
	}
	e.Run(t, "rm", id)
	testengine.Eventually(t, 20*time.Second, func() error { // what it had is deleted in the background
		if out, err := e.Try("run", "--rm", "busybox", "echo", "space again"); err != nil || out != "space again\n" {
			return fmt.Errorf("after the removal: %q, %w", out, err)
		}
		return nil
	})
	same(t, e, before)
}
