package union_test

import (
	"path/filepath"
	"strconv"
	"testing"

	"berth/internal/kerneltest"
)

// ground is a driver on a file system.
type ground struct {
	name   string
	driver string
	top    func(t *testing.T) string // of the file system, which lasts as long as the test

	at   string
	dirs int
}

// grounds are all drivers, on each kind of file system that makes a difference to them.
var grounds = []ground{
	{name: "overlay2", driver: "overlay2", top: (*testing.T).TempDir},
	{name: "fuse-overlayfs", driver: "fuse-overlayfs", top: (*testing.T).TempDir},
	{name: "aufs", driver: "aufs", top: (*testing.T).TempDir},
	{name: "vfs", driver: "vfs", top: (*testing.T).TempDir},
	{name: "vfs with reflinks", driver: "vfs", top: onBtrfs},
	{name: "btrfs", driver: "btrfs", top: onBtrfs},
	{name: "devicemapper", driver: "devicemapper", top: (*testing.T).TempDir},
	{name: "zfs", driver: "zfs", top: func(t *testing.T) string { _, dir := kerneltest.Pool(t, 4<<30); return dir }},
}

func onBtrfs(t *testing.T) string { return kerneltest.Disk(t, "btrfs", 8<<30, nil, "") }

// dir is a new directory for the driver.
func (g *ground) dir(t *testing.T) string {
	t.Helper()
	g.dirs++
	return filepath.Join(g.at, strconv.Itoa(g.dirs))
}

// overAll runs a test over all drivers that work here, and says why the others don't.
func overAll(t *testing.T, test func(t *testing.T, g *ground)) {
	kerneltest.Root(t)
	for _, g := range grounds {
		t.Run(g.name, func(t *testing.T) {
			g.at = g.top(t)
			if err := open(t, g.driver, g.dir(t)).Close(); err != nil { // or it is skipped
				t.Fatal(err)
			}
			test(t, &g)
		})
	}
}
