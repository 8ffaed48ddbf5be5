// Package storage runs a whole engine on each storage driver that the kernel has, and compares what users see.
package storage

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/fault"
	"berth/internal/kerneltest"
	"berth/kernel/btrfs"
	"berth/test/testengine"
	"berth/union"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

// driver is one storage driver and how the daemon is started with it.
type driver struct {
	name    string
	options []string
	on      func(t *testing.T) string // a file system of the kind that the driver wants
}

// drivers are what is compared; the first one is what the others are compared with.
var drivers = []driver{
	{name: "overlay2"},
	{name: "vfs"},
	{name: "btrfs", on: func(t *testing.T) string { return kerneltest.Disk(t, "btrfs", 4<<30, nil, "") }},
	{name: "zfs", on: func(t *testing.T) string { _, dir := kerneltest.Pool(t, 4<<30); return dir }},
	{name: "devicemapper", options: []string{"dm.basesize=256M", "dm.loopdatasize=3G", "dm.loopmetadatasize=32M", "dm.mkfsarg=-J", "dm.mkfsarg=size=4"}},
}

// start runs an engine on a driver, or skips where the kernel lacks it.
func start(t *testing.T, name string, further ...string) *testengine.Engine {
	t.Helper()
	d := drivers[0]
	for _, d = range drivers {
		if d.name == name {
			break
		}
	}
	return d.start(t, further...)
}

func (d driver) start(t *testing.T, further ...string) *testengine.Engine {
	t.Helper()
	args := []string{"--storage-driver", d.name}
	for _, o := range d.options {
		args = append(args, "--storage-opt", o)
	}
	kerneltest.Root(t)
	top := t.TempDir()
	if d.on != nil {
		top = d.on(t)
	}
	probe, err := union.Open(d.name, filepath.Join(top, "probe"), d.options...)
	if errors.Is(err, fault.Unsupported) {
		t.Skip(err) // says what is missing
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := probe.Close(); err != nil {
		t.Fatal(err)
	}
	e := testengine.New(t, append(args, further...)...)
	if d.on != nil {
		e.Data = filepath.Join(top, "data")
	}
	e.Up(t)
	e.Busybox(t)
	return e
}

// tree lists what an exported tree has, without times: what was just written has others each time.
func tree(t *testing.T, export string) []string {
	t.Helper()
	var lines []string
	r := tar.NewReader(strings.NewReader(export))
	for {
		h, err := r.Next()
		if err == io.EOF {
			slices.Sort(lines)
			return lines
		}
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.New()
		io.Copy(sum, r)
		lines = append(lines, fmt.Sprintf("%s %c %o %d:%d %d →%s %d,%d %x", h.Name, h.Typeflag, h.Mode, h.Uid, h.Gid, h.Size, h.Linkname, h.Devmajor, h.Devminor, sum.Sum(nil)[:8]))
	}
}

// changed is one container's work: files of all kinds made, changed, moved and removed.
const changed = `set -e
echo new >/root/new; echo more >>/etc/group; rm /etc/passwd; mv /bin/vi /bin/moved; mkdir -p /srv/a/b; chmod 1770 /srv/a; chown 5:6 /srv/a/b
ln -s /srv/a /srv/link; ln /root/new /root/hard; mkfifo /srv/fifo; mknod /srv/null c 1 3; dd if=/dev/zero of=/srv/large bs=1k count=300 2>/dev/null
rm -r /var/www; mkdir /var/www; echo in >/var/www/in; mkdir /srv/emptied; touch /srv/emptied/f; mv /srv/emptied /srv/renamed; truncate -s 5M /srv/sparse`

// TestSameEverywhere commits five times and compares `diff` and the whole trees.
func TestSameEverywhere(t *testing.T) {
	var reference []string
	for _, d := range drivers {
		t.Run(d.name, func(t *testing.T) {
			e := start(t, d.name)
			var seen []string
			image := "busybox"
			for i, work := range []string{changed, "rm -r /srv; mkdir /srv; echo s >/srv/s", "echo again >/etc/passwd; chmod 600 /etc/group", "rm /bin/moved; cp /bin/busybox /root/copy", ":"} {
				name := fmt.Sprintf("step%d", i)
				e.Run(t, "run", "--name", name, image, "sh", "-c", work)
				diff := strings.Split(strings.TrimSpace(e.Run(t, "diff", name)), "\n")
				slices.Sort(diff)
				seen = append(seen, name+":")
				seen = append(seen, diff...)
				image = fmt.Sprintf("image%d", i)
				e.Run(t, "commit", name, image)
				e.Run(t, "rm", name)
			}
			e.Run(t, "create", "--name", "last", image)
			seen = append(seen, tree(t, e.Run(t, "export", "last"))...)
			var saved bytes.Buffer
			save := e.Command("berth", "save", image)
			save.Stdout = &saved
			if err := save.Run(); err != nil {
				t.Fatal(err)
			}
			e.Run(t, "rm", "last")
			e.Run(t, "rmi", image)
			load := e.Command("berth", "load")
			load.Stdin = &saved
			if out, err := load.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			e.Run(t, "create", "--name", "loaded", image)
			seen = append(seen, tree(t, e.Run(t, "export", "loaded"))...)
			if reference == nil {
				reference = seen
			}
			if !slices.Equal(seen, reference) {
				t.Errorf("other than %s:\n%s", drivers[0].name, difference(reference, seen))
			}
		})
	}
}

func difference(want, got []string) string {
	var b strings.Builder
	for _, l := range want {
		if !slices.Contains(got, l) {
			fmt.Fprintln(&b, "missing", l)
		}
	}
	for _, l := range got {
		if !slices.Contains(want, l) {
			fmt.Fprintln(&b, "besides", l)
		}
	}
	return b.String()
}

// TestDaemonComesAndGoes: containers run on while the daemon is killed, and what stopped ones wrote is there.
func TestDaemonComesAndGoes(t *testing.T) {
	for _, d := range drivers[1:] {
		t.Run(d.name, func(t *testing.T) {
			e := start(t, d.name)
			e.Run(t, "run", "-d", "--name", "on", "busybox", "sh", "-c", "echo one >/file; exec sleep 100000")
			e.Run(t, "run", "--name", "off", "busybox", "sh", "-c", "echo two >/file")
			for _, end := range []func(){e.Kill, e.Down} {
				end()
				e.Up(t)
				if got := e.Run(t, "exec", "on", "sh", "-c", "cat /file; echo more >>/large; cat /large | wc -l"); !strings.HasPrefix(got, "one\n") {
					t.Errorf("after a restart: %q", got)
				}
				if got := e.Run(t, "cp", "off:/file", "-"); !strings.Contains(got, "two\n") {
					t.Errorf("what the other wrote: %q", got)
				}
			}
			e.Run(t, "stop", "-t", "1", "on")
			e.Run(t, "start", "on")
			if got := e.Run(t, "exec", "on", "wc", "-l", "/large"); !strings.HasPrefix(got, "2 ") {
				t.Errorf("after stop and start: %q", got)
			}
			if got := e.Run(t, "diff", "on"); !strings.Contains(got, "A /file") {
				t.Errorf("diff of one that runs: %q", got)
			}
			e.Run(t, "rm", "-f", "on", "off")
			if got := e.Run(t, "ps", "-aq"); got != "" {
				t.Errorf("left: %s", got)
			}
			if got := e.Run(t, "info", "--format", "{{.Driver}}"); strings.TrimSpace(got) != d.name {
				t.Errorf("info says %s", got)
			}
		})
	}
}

// TestKilledAtWork kills the daemon while clients create, commit and remove; nothing half is ever listed, and nothing is damaged.
func TestKilledAtWork(t *testing.T) {
	for _, d := range drivers[1:] {
		t.Run(d.name, func(t *testing.T) {
			e := start(t, d.name)
			for round := range 8 {
				var clients sync.WaitGroup
				begun := make(chan bool, 100)
				for i := range 2 {
					clients.Go(func() { // until the daemon is gone
						for j := range 6 {
							name := fmt.Sprintf("c%d-%d-%d", round, i, j)
							for _, args := range [][]string{{"run", "--name", name, "busybox", "sh", "-c", "echo " + name + " >/file"}, {"commit", name, name}, {"rm", name}, {"rmi", name}} {
								begun <- true
								if _, err := e.Try(args...); err != nil {
									return
								}
							}
						}
					})
				}
				for range 2 + rand.IntN(20) {
					select {
					case <-begun:
					case <-time.After(time.Minute): // both ended before
					}
				}
				e.Kill()
				clients.Wait()
				e.Up(t)
				for _, id := range strings.Fields(e.Run(t, "ps", "-aq")) {
					e.Run(t, "export", "-o", "/dev/null", id)
					e.Run(t, "rm", "-f", id)
				}
				for _, image := range strings.Fields(e.Run(t, "images", "--format", "{{.Repository}}")) {
					if got := e.Run(t, "run", "--rm", image, "sh", "-c", "cat /file 2>/dev/null; true"); image != "busybox" && strings.TrimSpace(got) != image {
						t.Errorf("image %s has %q", image, got)
					}
					if image != "busybox" {
						e.Run(t, "rmi", image)
					}
				}
			}
			testengine.Eventually(t, time.Minute, func() error { // what is removed in the background goes first
				out, err := e.Try("system", "fsck")
				if err != nil {
					return fmt.Errorf("%w\n%s", err, out)
				}
				return nil
			})
		})
	}
}

// TestDeviceMapper is about what only this driver has: sizes, rows of info, devices that go.
func TestDeviceMapper(t *testing.T) {
	e := start(t, "devicemapper")
	info := e.Run(t, "info")
	for _, row := range []string{"Storage Driver: devicemapper", "Pool Name: berth-", "Base Device Size: 268.4MB", "Data Space Used: ", "Thin Pool Minimum Free Space: "} {
		if !strings.Contains(info, row) {
			t.Errorf("info has no row %q:\n%s", row, info)
		}
	}
	df := e.Run(t, "run", "--rm", "--storage-opt", "size=600M", "busybox", "df", "-m", "/")
	var size int
	if fields := strings.Fields(df[strings.Index(df, "\n")+1:]); len(fields) < 2 {
		t.Errorf("df says %q", df)
	} else if fmt.Sscan(fields[1], &size); size < 450 {
		t.Errorf("a container of 600 MB has %d MiB", size)
	}
	if _, err := e.Try("create", "--storage-opt", "size=100M", "busybox"); err == nil || !strings.Contains(err.Error(), "dm.basesize") {
		t.Errorf("a container smaller than its image's device: %v", err)
	}
	full := e.Run(t, "run", "--rm", "busybox", "sh", "-c", "dd if=/dev/zero of=/f bs=1M count=400 2>&1; true")
	if !strings.Contains(full, "No space left on device") {
		t.Errorf("more than the base device holds: %s", full)
	}
}

// TestBtrfs is about what only this driver has: sizes, the row of info, subvolumes that somebody makes in a container.
func TestBtrfs(t *testing.T) {
	e := start(t, "btrfs", "--storage-opt", "btrfs.min_space=4M")
	if info := e.Run(t, "info"); !strings.Contains(info, "Storage Driver: btrfs") || !strings.Contains(info, "Btrfs:") {
		t.Errorf("info says\n%s", info)
	}
	full := e.Run(t, "run", "--name", "full", "--storage-opt", "size=8M", "busybox", "sh", "-c", "dd if=/dev/urandom of=/f bs=1M count=40 2>&1; true")
	if !strings.Contains(full, "Disk quota exceeded") {
		t.Errorf("more than the size: %s", full)
	}
	e.Kill()
	e.Up(t)
	if got := e.Run(t, "start", "-a", "full"); !strings.Contains(got, "Disk quota exceeded") {
		t.Errorf("the size after a restart: %s", got)
	}
	if _, err := e.Try("create", "--storage-opt", "size=1M", "busybox"); err == nil || !strings.Contains(err.Error(), "btrfs.min_space") {
		t.Errorf("less than the least: %v", err)
	}
	e.Run(t, "run", "-d", "--name", "nest", "busybox", "sleep", "100000")
	root, err := os.Open("/proc/" + strings.TrimSpace(e.Run(t, "inspect", "-f", "{{.State.Pid}}", "nest")) + "/root/root")
	if err != nil {
		t.Fatal(err)
	}
	err = btrfs.Create(root, "inner")
	if err = errors.Join(err, root.Close()); err != nil {
		t.Fatal(err)
	}
	e.Run(t, "exec", "nest", "sh", "-c", "echo kept >/root/inner/file")
	if got := e.Run(t, "diff", "nest"); got != "C /root\nA /root/inner\nA /root/inner/file\n" {
		t.Errorf("diff: %q", got)
	}
	e.Run(t, "commit", "nest", "nested")
	if got := e.Run(t, "run", "--rm", "nested", "cat", "/root/inner/file"); got != "kept\n" {
		t.Errorf("what was committed: %q", got)
	}
	e.Run(t, "rm", "-f", "nest", "full")
	trees := filepath.Join(union.Home(e.Data, "btrfs"), "trees", "subvolumes")
	testengine.Eventually(t, time.Minute, func() error {
		list, err := os.ReadDir(trees)
		for _, tree := range list {
			if strings.HasPrefix(tree.Name(), "root-") {
				return fmt.Errorf("%s is left", tree.Name())
			}
		}
		return err
	})
}
