package dm

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"berth/fault"
	"berth/internal/kerneltest"
	"berth/kernel/block"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

func TestTableIsReadBack(t *testing.T) {
	table := []Target{
		{0, 8, "linear", "7:0 16"},
		{8, 1 << 40, "thin-pool", "7:1 7:0 128 0 2 skip_block_zeroing error_if_no_space"},
		{9, 1, "error", ""},
	}
	data := encodeTable(table)
	if len(data)%8 != 0 {
		t.Errorf("%d bytes are no multiple of 8", len(data))
	}
	// The kernel counts "next" of an answer from the start of all, that of a request from each target.
	for at := uint32(0); int(at) < len(data); {
		next := at + order.Uint32(data[at+20:])
		order.PutUint32(data[at+20:], next)
		at = next
	}
	if got := parseTable(data, uint32(len(table))); !slices.Equal(got, table) {
		t.Errorf("got %+v", got)
	}
}

// FuzzParse is about answers that are cut short: nothing may be read beyond them.
func FuzzParse(f *testing.F) {
	f.Add(encodeTable([]Target{{0, 8, "linear", "7:0 16"}}))
	f.Add(make([]byte, 40))
	f.Fuzz(func(t *testing.T, data []byte) {
		parseTable(data, 5)
		parseNames(data)
		parseVersions(data)
	})
}

// open skips where the kernel has no device mapper.
func open(t *testing.T, dir string) *Control {
	kerneltest.Root(t)
	c, err := Open(dir)
	if errors.Is(err, fault.Unsupported) {
		t.Skip("this kernel has no device mapper: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestLifeOfADevice(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir)
	file, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	loop, err := block.Loop(file, dir)
	if err != nil {
		t.Fatal(err)
	}
	numbers, err := block.Numbers(loop)
	if err != nil {
		t.Fatal(err)
	}
	const name = "berth-test-life"
	if _, err := c.Info(name); !errors.Is(err, fault.NotFound) {
		t.Fatalf("before it is there: %v", err)
	}
	if _, err := c.Create(name); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Create(name); !errors.Is(err, fault.Exists) {
		t.Errorf("twice: %v", err)
	}
	want := []Target{{0, 1024, "linear", numbers + " 8"}}
	if err := c.Load(name, false, want...); err != nil {
		t.Fatal(err)
	}
	loop.Close()
	info, err := c.Resume(name)
	if err != nil || !info.Live || info.Suspended || info.Open != 0 {
		t.Fatalf("%+v, %v", info, err)
	}
	if got, err := c.Table(name); err != nil || !slices.Equal(got, want) {
		t.Errorf("table %+v, %v", got, err)
	}
	if names, err := c.Devices(); err != nil || !slices.Contains(names, name) {
		t.Errorf("devices %v, %v", names, err)
	}
	node, err := c.Node(info)
	if err != nil {
		t.Fatal(err)
	}
	dev, err := os.OpenFile(node, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if size, err := block.Size(dev); err != nil || size != 512<<10 {
		t.Errorf("size %d, %v", size, err)
	}
	if _, err := dev.Write([]byte("written through the device")); err != nil || dev.Sync() != nil {
		t.Errorf("write: %v", err)
	}
	if err := c.Remove(name, false); !errors.Is(err, fault.Conflict) {
		t.Errorf("removed while it is open: %v", err)
	}
	if err := c.Remove(name, true); err != nil {
		t.Errorf("deferred: %v", err)
	}
	if info, err := c.Info(name); err != nil || !info.Deferred || info.Open != 1 {
		t.Errorf("after a deferred removal %+v, %v", info, err)
	}
	if err := c.Keep(name); err != nil {
		t.Errorf("taken back: %v", err)
	}
	dev.Close()
	if info, err := c.Info(name); err != nil || info.Deferred || info.Open != 0 {
		t.Errorf("kept %+v, %v", info, err)
	}
	if err := c.Suspend(name); err != nil {
		t.Error(err)
	}
	if info, err := c.Info(name); err != nil || !info.Suspended {
		t.Errorf("suspended %+v, %v", info, err)
	}
	if err := c.Remove(name, false); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 26)
	if _, err := file.ReadAt(got, 8*Sector); err != nil || string(got) != "written through the device" {
		t.Errorf("the file has %q, %v", got, err)
	}
	if err := c.Remove(name, false); !errors.Is(err, fault.NotFound) {
		t.Errorf("removed twice: %v", err)
	}
}

func TestNodesOfOurOwn(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir)
	info := Info{Dev: 253<<8 | 250} // not in /dev
	own, err := c.Node(info)
	if err != nil || own != filepath.Join(dir, "dm-250") || !is(own, 0o060000, info.Dev) {
		t.Errorf("%s, %v", own, err)
	}
	if err := errors.Join(c.DropNode(info), c.DropNode(info)); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(own); err == nil {
		t.Error("the node stayed")
	}
}

func TestUnknownTarget(t *testing.T) {
	c := open(t, t.TempDir())
	if _, err := c.Target("berth-no-such"); !errors.Is(err, fault.Unsupported) {
		t.Errorf("%v", err)
	}
	if v, err := c.Target("thin-pool"); err != nil || v == "" {
		t.Errorf("thin-pool: %q, %v", v, err)
	}
	if v, err := c.Version(); err != nil || v[0] != '4' {
		t.Errorf("version %q, %v", v, err)
	}
}
