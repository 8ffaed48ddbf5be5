package thin

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/fault"
	"berth/internal/kerneltest"
	"berth/kernel"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

// small is a pool that an emulated machine makes in a moment.
var small = []string{"dm.basesize=256M", "dm.loopdatasize=2G", "dm.loopmetadatasize=16M", "dm.mkfsarg=-J", "dm.mkfsarg=size=4"}

// openTest opens a pool, or skips where the kernel has no device mapper.
func openTest(t *testing.T, dir string, list ...string) *Trees {
	t.Helper()
	kerneltest.Root(t)
	trees, err := Open(dir, list)
	if errors.Is(err, fault.Unsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return trees
}

func closeTest(t *testing.T, trees *Trees) {
	t.Helper()
	list, err := trees.List()
	if err != nil {
		t.Error(err)
	}
	for _, name := range list {
		if err := trees.Remove(name); err != nil {
			t.Error(err)
		}
	}
	if err := trees.Close(); err != nil {
		t.Error(err)
	}
	if out, err := exec.Command("sh", "-c", "ls /sys/block").Output(); err != nil || strings.Contains(string(out), "dm-") {
		t.Errorf("devices stayed: %s, %v", out, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// in mounts a tree, calls fn with its top and unmounts it.
func in(t *testing.T, trees *Trees, name string, fn func(dir string)) {
	t.Helper()
	m, err := trees.Mount(name)
	must(t, err)
	err = within(m, func(dir *os.File) error {
		fn(kernel.ProcFD(dir))
		return nil
	})
	must(t, err)
	must(t, trees.Unmounted(name))
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	must(t, os.WriteFile(path, data, 0o644))
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	return string(data)
}

func TestTrees(t *testing.T) {
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			options := small
			if fs == "xfs" {
				options = []string{"dm.fs=xfs", "dm.basesize=320M", "dm.loopdatasize=2G", "dm.loopmetadatasize=16M"}
			}
			trees := openTest(t, t.TempDir(), options...)
			defer closeTest(t, trees)
			must(t, trees.Make("bottom", ""))
			in(t, trees, "bottom", func(dir string) {
				if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
					t.Errorf("a new tree has %v, %v", entries, err)
				}
				info, err := os.Stat(dir)
				if err != nil || info.Mode().Perm() != 0o755 {
					t.Errorf("its top: %v, %v", info.Mode(), err)
				}
				write(t, dir+"/below", bytes.Repeat([]byte("x"), 4<<20))
				write(t, dir+"/changed", []byte("first"))
			})
			must(t, trees.Freeze("bottom"))
			must(t, trees.Sync("bottom"))
			must(t, trees.Make("top", "bottom"))
			in(t, trees, "top", func(dir string) {
				if got := read(t, dir+"/changed"); got != "first" {
					t.Errorf("the copy has %q", got)
				}
				write(t, dir+"/changed", []byte("second"))
				write(t, dir+"/own", bytes.Repeat([]byte("y"), 2<<20))
			})
			must(t, trees.Sync("top"))
			in(t, trees, "bottom", func(dir string) {
				if got := read(t, dir+"/changed"); got != "first" {
					t.Errorf("the origin has %q", got)
				}
				if err := os.WriteFile(dir+"/new", nil, 0o644); !kernel.IsReadOnlyError(err) {
					t.Errorf("a frozen tree is written to: %v", err)
				}
			})
			own, err := trees.Usage("top")
			spare := int64(1 << 20) // what a file system writes by itself; xfs cycles 2 MiB of its log with each mount
			if fs == "xfs" {
				spare = 4 << 20
			}
			if err != nil || own < 2<<20 || own > 3<<20+spare {
				t.Errorf("top has %d bytes of its own, %v", own, err)
			}
			below, err := trees.Usage("bottom")
			if err != nil || below < 4<<20 || below > 8<<20 {
				t.Errorf("bottom has %d bytes of its own, %v", below, err)
			}
			must(t, trees.Make("idle", "bottom"))
			in(t, trees, "idle", func(string) {})
			idle, err := trees.Usage("idle")
			if err != nil || idle > spare {
				t.Errorf("an idle tree has %d bytes, %v", idle, err)
			}
			t.Logf("%s: own %d, below %d, idle %d bytes", fs, own, below, idle)
			if list, err := trees.List(); err != nil || !slices.Equal(list, []string{"bottom", "idle", "top"}) {
				t.Errorf("list %v, %v", list, err)
			}
			must(t, trees.Remove("bottom")) // copies don't need what they were made of
			in(t, trees, "top", func(dir string) {
				if got := read(t, dir+"/changed"); got != "second" || len(read(t, dir+"/below")) != 4<<20 {
					t.Errorf("without its origin the copy has %q", got)
				}
			})
			for _, err := range []error{trees.Remove("bottom"), trees.Unmounted("bottom"), trees.Unmounted("top"), trees.Unmounted("top")} {
				must(t, err)
			}
			if _, err := trees.Mount("bottom"); !errors.Is(err, fault.NotFound) {
				t.Errorf("mount of what is gone: %v", err)
			}
			if err := trees.Make("top", ""); !errors.Is(err, fault.Exists) {
				t.Errorf("made twice: %v", err)
			}
			for _, row := range []string{"Pool Name", "Pool Blocksize", "Base Device Size", "Backing Filesystem", "Data file", "Metadata file", "Data loop file",
				"Metadata loop file", "Data Space Used", "Data Space Total", "Data Space Available", "Metadata Space Used", "Metadata Space Total",
				"Metadata Space Available", "Thin Pool Minimum Free Space", "Udev Sync Supported", "Deferred Removal Enabled", "Deferred Deletion Enabled"} {
				if !slices.ContainsFunc(trees.Status(), func(r [2]string) bool { return r[0] == row && r[1] != "" }) {
					t.Errorf("info has no row %s: %v", row, trees.Status())
				}
			}
		})
	}
}

// TestUnderWay is about a tree that is mounted: it stays through removals, closing and a restart.
func TestUnderWay(t *testing.T) {
	dir := t.TempDir()
	trees := openTest(t, dir, small...)
	must(t, trees.Make("a", ""))
	m, err := trees.Mount("a")
	must(t, err)
	err = within(m, func(top *os.File) error {
		path := kernel.ProcFD(top)
		write(t, path+"/file", []byte("before"))
		if err := trees.Remove("a"); !errors.Is(err, fault.Conflict) {
			t.Errorf("removed while mounted: %v", err)
		}
		must(t, trees.Make("b", "a")) // of what is in use
		must(t, trees.Unmounted("a")) // too early: it goes when the mount goes
		again, err := trees.Mount("a")
		if err != nil || again.Source != m.Source {
			t.Errorf("mounted again as %v, %v", again, err)
		}
		must(t, trees.Close())
		trees = openTest(t, dir, small...)
		write(t, path+"/file", []byte("after"))
		return nil
	})
	must(t, err)
	in(t, trees, "b", func(dir string) {
		if got := read(t, dir+"/file"); got != "before" {
			t.Errorf("the copy has %q", got)
		}
	})
	must(t, trees.Unmounted("a"))
	must(t, trees.Close())
	trees = openTest(t, dir, small...) // as after a boot: no pool, no devices
	defer closeTest(t, trees)
	in(t, trees, "a", func(dir string) {
		if got := read(t, dir+"/file"); got != "after" {
			t.Errorf("after all is made again: %q", got)
		}
	})
}

func TestLimit(t *testing.T) {
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			options := small
			if fs == "xfs" {
				options = []string{"dm.fs=xfs", "dm.basesize=320M", "dm.loopdatasize=2G", "dm.loopmetadatasize=16M"}
			}
			dir := t.TempDir()
			trees := openTest(t, dir, options...)
			defer func() { closeTest(t, trees) }()
			must(t, trees.Make("a", ""))
			if err := trees.Limit("a", 100<<20); !errors.Is(err, fault.Invalid) {
				t.Errorf("smaller than it is: %v", err)
			}
			must(t, trees.Limit("a", 400<<20))
			m, err := trees.Mount("a")
			must(t, err)
			err = within(m, func(top *os.File) error {
				for _, size := range []int64{0, 500 << 20} {
					if size != 0 {
						must(t, trees.Limit("a", size)) // while it is mounted
					}
					free, err := kernel.FreeSpace(top)
					must(t, err)
					if least := max(size, 400<<20) * 7 / 10; free < least {
						t.Errorf("%d MiB free, at least %d expected", free>>20, least>>20)
					}
				}
				return nil
			})
			must(t, err)
			must(t, trees.Unmounted("a"))
			// A larger base is for what is made from now on.
			must(t, trees.Close())
			trees = openTest(t, dir, append(slices.Clone(options), "dm.basesize=600M")...)
			must(t, trees.Make("b", ""))
			in(t, trees, "b", func(dir string) {
				top, err := os.Open(dir)
				must(t, err)
				defer top.Close()
				if free, err := kernel.FreeSpace(top); err != nil || free < 450<<20 {
					t.Errorf("%d MiB free on a larger base, %v", free>>20, err)
				}
			})
		})
	}
}

// TestNobodyTellsOfTheEnd is about devices that were given out by Mount, of which no Unmounted tells.
func TestNobodyTellsOfTheEnd(t *testing.T) {
	dir := t.TempDir()
	trees := openTest(t, dir, small...)
	must(t, trees.Make("used", ""))
	must(t, trees.Make("idle", ""))
	there := func(name string) bool {
		_, err := trees.dm.Info(trees.prefix + name)
		return err == nil
	}
	_, err := trees.Mount("idle")
	must(t, err)
	m, err := trees.Mount("used")
	must(t, err)
	err = within(m, func(*os.File) error {
		must(t, trees.tidy(time.Now()))
		if !there("idle") || !there("used") {
			t.Error("a device that was given out just now is gone")
		}
		must(t, trees.tidy(time.Now().Add(2*grace)))
		if there("idle") {
			t.Error("a device that nobody wanted stayed")
		}
		return nil
	})
	must(t, err)
	for end := time.Now().Add(time.Minute); there("used"); {
		if time.Now().After(end) {
			t.Fatal("the device stayed after the last mount")
		}
	}
	_, err = trees.Mount("used")
	must(t, err)
	must(t, trees.Unmounted("used"))
	must(t, trees.tidy(time.Now()))
	if !there("used") {
		t.Error("a device that somebody may want just now is gone")
	}
	must(t, trees.tidy(time.Now().Add(2*linger)))
	if there("used") {
		t.Error("a device stayed that is not needed any more")
	}
	_, err = trees.Mount("idle")
	must(t, err)
	must(t, trees.Close()) // with the pool, as openTest finds
	if devices, err := exec.Command("ls", "/sys/block").Output(); err != nil || strings.Contains(string(devices), "dm-") {
		t.Errorf("after closing: %s, %v", devices, err)
	}
	trees = openTest(t, dir, small...)
	closeTest(t, trees)
}

// TestSpaceComesBack is about the data file: what a removed tree had is a hole again.
func TestSpaceComesBack(t *testing.T) {
	dir := t.TempDir()
	trees := openTest(t, dir, small...)
	defer closeTest(t, trees)
	must(t, trees.Make("a", ""))
	before, _ := trees.state(true)
	in(t, trees, "a", func(dir string) { write(t, dir+"/large", bytes.Repeat([]byte("z"), 50<<20)) })
	s, err := trees.state(true)
	must(t, err)
	if grown := int64(s.data.used-before.data.used) * trees.blocks; grown < 50<<20 {
		t.Errorf("the pool has grown by %d bytes", grown)
	}
	full := allocated(t, dir)
	must(t, trees.Remove("a"))
	s, err = trees.state(true)
	must(t, err)
	if s.data.used > before.data.used {
		t.Errorf("%d blocks were used before, %d are now", before.data.used, s.data.used)
	}
	if now := allocated(t, dir); full-now < 45<<20 {
		t.Errorf("the data file had %d bytes, now %d", full, now)
	}
}

func allocated(t *testing.T, dir string) int64 {
	t.Helper()
	out, err := exec.Command("stat", "-c", "%b", filepath.Join(dir, "data")).Output()
	must(t, err)
	var blocks int64
	_, err = fmt.Sscan(string(out), &blocks)
	must(t, err)
	return blocks * 512
}

func TestManyAtOnce(t *testing.T) {
	trees := openTest(t, t.TempDir(), small...)
	defer closeTest(t, trees)
	must(t, trees.Make("origin", ""))
	must(t, trees.Freeze("origin"))
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			for j := range 5 {
				name := fmt.Sprintf("tree-%d-%d", i, j)
				if err := trees.Make(name, "origin"); err != nil {
					t.Error(err)
					return
				}
				m, err := trees.Mount(name)
				if err == nil {
					err = within(m, func(dir *os.File) error {
						return os.WriteFile(kernel.ProcFD(dir)+"/file", []byte(name), 0o644)
					})
				}
				if err = errors.Join(err, trees.Unmounted(name)); err != nil {
					t.Error(err)
				}
				if j%2 == 0 {
					if err := trees.Remove(name); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wait.Wait()
	if list, err := trees.List(); err != nil || len(list) != 8*2+1 {
		t.Errorf("left: %v, %v", list, err)
	}
}

func TestFullPool(t *testing.T) {
	options := append(slices.Clone(small), "dm.loopdatasize=100M", "dm.min_free_space=50%")
	trees := openTest(t, t.TempDir(), options...)
	defer closeTest(t, trees)
	must(t, trees.Make("a", ""))
	in(t, trees, "a", func(dir string) { write(t, dir+"/large", bytes.Repeat([]byte("z"), 50<<20)) })
	if err := trees.Make("b", ""); !errors.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "dm.min_free_space") {
		t.Errorf("made on a pool that is nearly full: %v", err)
	}
	m, err := trees.Mount("a")
	must(t, err)
	err = within(m, func(dir *os.File) error { // and then really full: an error, no hanging
		f, err := os.Create(kernel.ProcFD(dir) + "/larger")
		must(t, err)
		defer f.Close()
		chunk := bytes.Repeat([]byte("f"), 1<<20)
		for range 120 {
			if _, err = f.Write(chunk); err != nil {
				break
			}
		}
		if err = errors.Join(err, f.Sync()); err == nil {
			t.Error("120 MiB more were written to a pool of 100")
		}
		return nil
	})
	must(t, err)
	must(t, trees.Unmounted("a"))
	must(t, trees.Remove("a"))
	must(t, trees.Make("c", ""))
	in(t, trees, "c", func(dir string) { write(t, dir+"/file", []byte("room again")) })
}

func TestPoolOfOthers(t *testing.T) {
	dir := t.TempDir()
	trees := openTest(t, dir, small...)
	defer closeTest(t, trees)
	must(t, trees.Make("a", ""))
	if _, err := Open(t.TempDir(), []string{"dm.thinpooldev=berth-no-such"}); !errors.Is(err, fault.NotFound) {
		t.Errorf("a pool that isn't there: %v", err)
	}
	if _, err := Open(t.TempDir(), []string{"dm.thinpooldev=/dev/mapper/" + trees.pool.name}); !errors.Is(err, fault.Conflict) {
		t.Errorf("a pool that is another's: %v", err)
	}
}

func TestGivenPool(t *testing.T) {
	disks := openTest(t, t.TempDir(), small...) // for the names of disks alone
	must(t, disks.dm.Remove(disks.pool.name, false))
	disks.pool.name = "berth-test-given"
	must(t, os.Remove(disks.path("metadata")))
	must(t, disks.makePool())
	defer func() { must(t, disks.Close()) }()
	dir := t.TempDir()
	given := []string{"dm.thinpooldev=berth-test-given", "dm.basesize=256M", "dm.blkdiscard=true"}
	for _, name := range []string{"first", "second"} {
		trees := openTest(t, dir, given...)
		must(t, trees.Make(name, ""))
		in(t, trees, name, func(dir string) { write(t, dir+"/file", make([]byte, 1<<20)) })
		if own, err := trees.Usage(name); err != nil || own < 1<<20 {
			t.Errorf("%s has %d bytes, %v", name, own, err)
		}
		if name == "second" {
			must(t, errors.Join(trees.Remove("first"), trees.Remove(name)))
		}
		must(t, trees.Close())
	}
}

// TestRefused is for kernels that lack what openTest wants.
func TestRefused(t *testing.T) {
	kerneltest.Root(t)
	if misc, err := os.ReadFile("/proc/misc"); err != nil || strings.Contains(string(misc), "device-mapper") {
		t.Skip("this kernel has a device mapper, or doesn't tell: ", err)
	}
	_, err := Open(t.TempDir(), nil)
	if !errors.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), "devicemapper: this kernel has no device mapper (/dev/mapper/control, module dm_thin_pool): ") {
		t.Errorf("%v", err)
	}
	if _, err := Open(t.TempDir(), []string{"dm.nosuch=1"}); !errors.Is(err, fault.Invalid) {
		t.Errorf("an unknown option: %v", err)
	}
}
