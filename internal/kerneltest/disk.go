package kerneltest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Disk mounts a new file system of a kind ("btrfs", "xfs", "ext4") for the test and returns where. It lies in a file without bytes yet, of that many in the
// end, behind a loop device; args are for its mkfs, options for its mount. The test is skipped where the
// kernel or the programs lack the kind. A world that is killed takes mount and device with it.
func Disk(t testing.TB, kind string, size int64, args []string, options string) string {
	t.Helper()
	Root(t)
	mkfs, err := exec.LookPath("mkfs." + kind)
	if err != nil {
		t.Skipf("needs a %s: %v", kind, err)
	}
	dir := t.TempDir()
	image := filepath.Join(dir, "image")
	f, err := os.OpenFile(image, os.O_CREATE|os.O_RDWR|os.O_EXCL, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(mkfs, append(args, image)...).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.%s: %v\n%s", kind, err, out)
	}
	loop, err := attach(f)
	if err != nil {
		t.Skipf("needs a loop device: %v", err)
	}
	defer loop.Close()
	at := filepath.Join(dir, "disk")
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(loop.Name(), at, kind, 0, options); err != nil {
		t.Skipf("needs a %s: mount: %v", kind, err)
	}
	t.Cleanup(func() {
		err := unix.Unmount(at, 0)
		for end := time.Now().Add(30 * time.Second); err == unix.EBUSY && time.Now().Before(end); { // a program that served a mount on it may be ending
			err = unix.Unmount(at, 0)
		}
		if err != nil {
			t.Errorf("unmount the test's %s: %v", kind, err)
			unix.Unmount(at, unix.MNT_DETACH)
		}
	})
	return at
}

// attach puts f behind a free loop device, which lets go of it when its last user does (loop(4)).
func attach(f *os.File) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		name := fmt.Sprintf("/dev/loop%d", n)
		if err := unix.Mknod(name, unix.S_IFBLK|0o600, int(unix.Mkdev(7, uint32(n)))); err != nil && err != unix.EEXIST {
			return nil, fmt.Errorf("make %s: %w", name, err)
		}
		loop, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		err = unix.IoctlLoopConfigure(int(loop.Fd()), &unix.LoopConfig{Fd: uint32(f.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}})
		if err == nil {
			return loop, nil
		}
		loop.Close()
		if err != unix.EBUSY { // somebody else was faster
			return nil, fmt.Errorf("attach to %s: %w", name, err)
		}
	}
}

// Pool makes a ZFS pool for the test, in a file of that many bytes, and returns its name and where its topmost dataset is mounted. The test is skipped
// where the kernel or the programs lack ZFS. A world that is killed leaves the pool behind: its name begins with that of the world.
func Pool(t testing.TB, size int64) (name, dir string) {
	t.Helper()
	Root(t)
	zpool, err := exec.LookPath("zpool")
	if err != nil {
		t.Skipf("needs ZFS: %v", err)
	}
	if _, err := os.Stat("/dev/zfs"); err != nil {
		t.Skipf("needs ZFS: %v", err)
	}
	top := t.TempDir()
	image := filepath.Join(top, "image")
	dir = filepath.Join(top, "pool")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, size); err != nil {
		t.Fatal(err)
	}
	name = fmt.Sprintf("%s-%d", filepath.Base(CgroupParent()), pools.Add(1))
	if out, err := exec.Command(zpool, "create", "-m", dir, "-o", "cachefile=none", name, image).CombinedOutput(); err != nil {
		t.Fatalf("zpool create: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command(zpool, "destroy", "-f", name).CombinedOutput(); err != nil {
			t.Errorf("zpool destroy: %v\n%s", err, out)
		}
	})
	return name, dir
}

var pools atomic.Int64
