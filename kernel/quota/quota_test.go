package quota_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"berth/fault"
	"berth/internal/kerneltest"
	"berth/kernel"
	"berth/kernel/quota"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

// disks are the file systems that can have quotas of projects.
var disks = []struct {
	kind    string
	args    []string
	options string
}{
	{"ext4", []string{"-q", "-O", "quota,project", "-E", "quotatype=prjquota"}, "prjquota"},
	{"xfs", []string{"-q"}, "pquota"},
}

// plain is a thread without CAP_SYS_RESOURCE, for which ext4 has no limits.
func plain(fn func() error) error {
	return kernel.Thread(func() error {
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var sets [2]unix.CapUserData
		if err := unix.Capget(&hdr, &sets[0]); err != nil {
			return err
		}
		sets[0].Effective &^= 1 << unix.CAP_SYS_RESOURCE
		if err := unix.Capset(&hdr, &sets[0]); err != nil {
			return err
		}
		return fn()
	})
}

func TestLimits(t *testing.T) {
	for _, d := range disks {
		t.Run(d.kind, func(t *testing.T) {
			at := kerneltest.Disk(t, d.kind, 400<<20, d.args, d.options)
			top, err := os.Open(at)
			if err != nil {
				t.Fatal(err)
			}
			defer top.Close()
			if err := quota.Check(top); err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(at, "d")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			const project, bound = 1 << 30, 2 << 20
			if err := errors.Join(quota.Assign(f, project), quota.Set(top, project, bound-1)); err != nil {
				t.Fatal(err)
			}
			if err := plain(func() error { return os.WriteFile(filepath.Join(dir, "fits"), make([]byte, 1<<20), 0o644) }); err != nil {
				t.Errorf("half of it: %v", err)
			}
			err = plain(func() error { return os.WriteFile(filepath.Join(dir, "big"), make([]byte, 2<<20), 0o644) })
			if !errors.Is(err, syscall.EDQUOT) && !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("more than that: %v", err)
			}
			inner, err := os.Open(filepath.Join(dir, "fits"))
			if err != nil {
				t.Fatal(err)
			}
			defer inner.Close()
			if p, err := quota.Project(inner); p != project || err != nil {
				t.Errorf("a file in it is of project %d, %v", p, err)
			}
			got, used, err := quota.Get(top, project)
			if got != bound || used < 1<<20 || used > bound || err != nil {
				t.Errorf("bound %d, used %d, %v", got, used, err)
			}
			if err := errors.Join(os.RemoveAll(dir), quota.Set(top, project, 0)); err != nil {
				t.Fatal(err)
			}
			if got, _, err := quota.Get(top, project); got != 0 || err != nil {
				t.Errorf("bound %d, %v afterwards", got, err)
			}
			if got, used, err := quota.Get(top, project+1); got != 0 || used != 0 || err != nil {
				t.Errorf("bound %d, used %d, %v of a project that nobody has", got, used, err)
			}
		})
	}
}

func TestNone(t *testing.T) {
	kerneltest.Root(t)
	for name, at := range map[string]string{
		"tmpfs": "/dev/shm",
		"ext4":  kerneltest.Disk(t, "ext4", 100<<20, []string{"-q"}, ""),
	} {
		f, err := os.Open(at)
		if err != nil {
			t.Fatal(err)
		}
		if err := quota.Check(f); fault.Of(err) != fault.Unsupported {
			t.Errorf("%s: %v", name, err)
		}
		f.Close()
	}
}
