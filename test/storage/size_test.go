package storage

import (
	"strings"
	"testing"
	"time"

	"berth/internal/kerneltest"
	"berth/test/testengine"
)

// bounded are drivers on file systems that can hold `--storage-opt size=`; devicemapper's sizes are of another kind, see TestDeviceMapper.
var bounded = []struct {
	driver
	kind string // of file system
	df   bool   // it shows the bound
}{
	{kind: "btrfs", driver: driver{name: "btrfs", on: func(t *testing.T) string { return kerneltest.Disk(t, "btrfs", 2<<30, nil, "") }}},
	{kind: "ext4", df: true, driver: driver{name: "overlay2", on: func(t *testing.T) string {
		return kerneltest.Disk(t, "ext4", 1<<30, []string{"-q", "-O", "quota,project", "-E", "quotatype=prjquota"}, "prjquota")
	}}},
	{kind: "xfs", df: true, driver: driver{name: "overlay2", on: func(t *testing.T) string { return kerneltest.Disk(t, "xfs", 1<<30, []string{"-q"}, "pquota") }}},
}

// TestSizes gives containers sizes, which bound what they write, and nothing else of theirs or of others.
func TestSizes(t *testing.T) {
	for _, d := range bounded {
		t.Run(d.name+" on "+d.kind, func(t *testing.T) {
			e := d.start(t)
			e.Run(t, "run", "--name", "maker", "--network", "none", "busybox", "dd", "if=/dev/urandom", "of=/of-the-image", "bs=1M", "count=24")
			e.Run(t, "commit", "maker", "large")
			e.Run(t, "run", "-d", "--name", "one", "--network", "none", "--storage-opt", "size=16M", "large", "sleep", "100000")
			e.Run(t, "run", "-d", "--name", "other", "--network", "none", "large", "sleep", "100000")
			if got := e.Run(t, "inspect", "-f", "{{.HostConfig.StorageOpt.size}}", "one"); got != "16M\n" {
				t.Errorf("inspect: %q", got)
			}
			if df := strings.Fields(e.Run(t, "exec", "one", "df", "-m", "/")); d.df && (len(df) < 4 || df[len(df)-5] != "16") {
				t.Errorf("df: %q", df)
			}
			e.Run(t, "exec", "one", "dd", "if=/dev/urandom", "of=/fits", "bs=1M", "count=8", "conv=fsync")
			wantFull(t, e, "exec", "one", "dd", "if=/dev/urandom", "of=/more", "bs=1M", "count=16", "conv=fsync")
			wantFull(t, e, "run", "--privileged", "--network", "none", "--storage-opt", "size=16M", "busybox", "dd", "if=/dev/urandom", "of=/more", "bs=1M", "count=24", "conv=fsync")
			e.Run(t, "exec", "other", "dd", "if=/dev/urandom", "of=/more", "bs=1M", "count=32", "conv=fsync")

			e.Run(t, "exec", "one", "rm", "/more")
			testengine.Eventually(t, time.Minute, func() error { // what was removed counts until the file system has written that down
				_, err := e.Try("exec", "one", "dd", "if=/dev/urandom", "of=/instead", "bs=1M", "count=4", "conv=fsync")
				return err
			})
			e.Kill()
			e.Up(t)
			wantFull(t, e, "exec", "one", "dd", "if=/dev/urandom", "of=/more", "bs=1M", "count=16", "conv=fsync")
			e.Run(t, "stop", "-t", "1", "one")
			e.Run(t, "start", "one")
			wantFull(t, e, "exec", "one", "dd", "if=/dev/urandom", "of=/again", "bs=1M", "count=16", "conv=fsync")

			e.Run(t, "commit", "one", "from-one")
			e.Run(t, "run", "--rm", "--network", "none", "from-one", "sh", "-ec", "ls /fits /instead; dd if=/dev/urandom of=/free bs=1M count=24 conv=fsync")
			e.Run(t, append([]string{"rm", "-f"}, strings.Fields(e.Run(t, "ps", "-aq"))...)...)
			testengine.Eventually(t, time.Minute, func() error { _, err := e.Try("system", "fsck"); return err })
		})
	}
}

// wantFull runs a command that has to be told that there is no more room.
func wantFull(t *testing.T, e *testengine.Engine, args ...string) {
	t.Helper()
	out, err := e.Try(args...)
	if err == nil || !strings.Contains(err.Error()+out, "Disk quota exceeded") && !strings.Contains(err.Error()+out, "No space left on device") {
		t.Errorf("%q is not told that the container's size is reached: %v %s", args, err, out)
	}
}
