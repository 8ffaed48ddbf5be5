package block_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"berth/fault"
	"berth/internal/kerneltest"
	"berth/kernel"
	"berth/kernel/block"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

// loop backs a loop device with a sparse file, or skips where there are none.
func loop(t *testing.T, size int64) (file, dev *os.File) {
	kerneltest.Root(t)
	dir := t.TempDir()
	file, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	if err := file.Truncate(size); err != nil {
		t.Fatal(err)
	}
	dev, err = block.Loop(file, dir)
	if errors.Is(err, fault.Unsupported) {
		t.Skip("no loop devices: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	return file, dev
}

func TestLoopShowsTheFile(t *testing.T) {
	file, dev := loop(t, 1<<20)
	if size, err := block.Size(dev); err != nil || size != 1<<20 {
		t.Errorf("size %d, %v", size, err)
	}
	text := bytes.Repeat([]byte("0123456789abcdef"), 4096)
	if _, err := dev.WriteAt(text, 0); err != nil {
		t.Fatal(err)
	}
	if err := dev.Sync(); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := file.ReadAt(got, 0); err != nil || !bytes.Equal(got, text) {
		t.Errorf("the file holds something else, %v", err)
	}
	err := block.Discard(dev)
	if errors.Is(err, fault.Unsupported) {
		t.Skip("the file system of the file punches no holes: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.ReadAt(got, 0); err != nil || !bytes.Equal(got, make([]byte, len(got))) {
		t.Errorf("discarded bytes are there, %v", err)
	}
}

func TestNumbersOfWhatIsNoDevice(t *testing.T) {
	f, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := block.Numbers(f); !errors.Is(err, fault.Invalid) {
		t.Errorf("%v", err)
	}
}

func TestGrowsMountedFileSystem(t *testing.T) {
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			mkfs := "mkfs." + kind
			if _, err := exec.LookPath(mkfs); err != nil {
				t.Skip(mkfs, " is missing")
			}
			_, dev := loop(t, 1<<30)
			args := map[string][]string{"ext4": {"-q", dev.Name(), "64M"}, "xfs": {"-q", "-d", "size=320M", dev.Name()}}[kind]
			if out, err := exec.Command(mkfs, args...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			m, err := kernel.NewMount(kind, dev.Name(), nil, 0)
			if err != nil {
				t.Skip("this kernel can't mount it: ", err)
			}
			defer m.Close()
			dir, err := kernel.OpenIn(m, ".", kernel.ODirectory, 0, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer dir.Close()
			for range 2 { // the second has nothing to do
				err := block.Grow(dir, 1<<30)
				if errors.Is(err, os.ErrPermission) {
					t.Skip("growing needs CAP_SYS_RESOURCE: ", err)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			var st unix.Statfs_t
			if err := unix.Fstatfs(kernel.FD(dir), &st); err != nil {
				t.Fatal(err)
			}
			if size := st.Blocks * uint64(st.Bsize); size < 900<<20 {
				t.Errorf("the file system has %d MiB", size>>20)
			}
		})
	}
}
