package hold_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/fault"
	"berth/internal/kerneltest"
	"berth/kernel"
	"berth/volume/hold"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == hold.Arg { // the program under test
		os.Exit(hold.Main())
	}
	kerneltest.Main(m)
}

func keeper(t *testing.T) *hold.Keeper {
	t.Helper()
	kerneltest.Root(t)
	k := &hold.Keeper{Program: "/proc/self/exe"}
	t.Cleanup(func() { k.Close() })
	return k
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(time.Minute); !done(); {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func recorded(hold.Held) error { return nil }

func mounts(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestAMountIsWithItsHolderOnly(t *testing.T) {
	k := keeper(t)
	before := mounts(t)
	h, err := k.Start(t.Context(), hold.Mounting{Type: "tmpfs", Device: "tmpfs", Options: []string{"size=1m", "mode=0750", "noexec"}}, recorded)
	if err != nil {
		t.Fatal(err)
	}
	if !h.Alive() {
		t.Error("not alive")
	}
	if info, err := os.Stat(h.Path()); err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("%v, %v", info, err)
	}
	if err := os.WriteFile(filepath.Join(h.Path(), "f"), []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	seen, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", h.Pid))
	if lines := strings.Split(strings.TrimSpace(string(seen)), "\n"); err != nil || len(lines) != 2 || !strings.Contains(string(seen), " rw,noexec") || !strings.Contains(string(seen), "size=1024k") {
		t.Errorf("the holder sees %q, %v", lines, err)
	}
	if mounts(t) != before {
		t.Error("the mount shows outside")
	}
	if err := h.End(); err != nil {
		t.Fatal(err)
	}
	if h.Alive() {
		t.Error("alive after its end")
	}
	if err := h.End(); err != nil {
		t.Errorf("ended twice: %v", err)
	}
}

func TestWhatIsNotRecordedEnds(t *testing.T) {
	k := keeper(t)
	var h hold.Held
	_, err := k.Start(t.Context(), hold.Mounting{Type: "tmpfs", Device: "none"}, func(made hold.Held) error {
		h = made
		return errors.New("disk full")
	})
	if err == nil || err.Error() != "disk full" {
		t.Errorf("%v", err)
	}
	eventually(t, "the holder to end", func() bool { return !h.Alive() })
}

// TestHolderOfADeadDaemon kills whoever started a holder, before and after it was recorded.
func TestHolderOfADeadDaemon(t *testing.T) {
	kerneltest.Root(t)
	for _, recorded := range []bool{false, true} {
		dir := t.TempDir()
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestDaemon$")
		cmd.Env = append(os.Environ(), "HOLD_DIR="+dir, fmt.Sprintf("HOLD_RECORDED=%v", recorded))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var h hold.Held
		eventually(t, "the holder", func() bool {
			text, err := os.ReadFile(filepath.Join(dir, "ready"))
			if err == nil {
				_, err = fmt.Sscan(string(text), &h.Pid, &h.Start, &h.Boot)
			}
			return err == nil
		})
		cmd.Process.Kill()
		cmd.Wait()
		if recorded {
			if !h.Alive() {
				t.Error("it went with the daemon")
			}
			if err := h.End(); err != nil {
				t.Error(err)
			}
		}
		eventually(t, "the holder to end", func() bool { return !h.Alive() })
	}
}

func TestDaemon(t *testing.T) {
	dir := os.Getenv("HOLD_DIR")
	if dir == "" {
		return // the other process of the test above, or nothing
	}
	k := &hold.Keeper{Program: "/proc/self/exe"}
	tell := func(h hold.Held) {
		temp := filepath.Join(dir, "temp")
		err := errors.Join(os.WriteFile(temp, fmt.Appendf(nil, "%d %d %s", h.Pid, h.Start, h.Boot), 0o600), os.Rename(temp, filepath.Join(dir, "ready")))
		if err != nil {
			t.Fatal(err)
		}
		select {}
	}
	h, err := k.Start(t.Context(), hold.Mounting{Type: "tmpfs", Device: "none"}, func(h hold.Held) error {
		if os.Getenv("HOLD_RECORDED") != "true" {
			tell(h)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	tell(h)
}

func TestWhatCannotBeMounted(t *testing.T) {
	k := keeper(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		m    hold.Mounting
		want error
	}{
		{hold.Mounting{Type: "nosuchfs", Device: "none"}, syscall.ENODEV},
		{hold.Mounting{Type: "ext4", Device: "/none/such"}, syscall.ENOENT},
		{hold.Mounting{Type: "ext4", Device: file}, syscall.ENOTBLK},
		{hold.Mounting{Type: "tmpfs", Device: "none", Options: []string{"bogus=1"}}, syscall.EINVAL},
		{hold.Mounting{Type: "none", Device: "/none/such", Options: []string{"bind", "ro"}}, syscall.ENOENT},
		{hold.Mounting{Type: "none", Device: file, Options: []string{"bind", "ro"}}, syscall.ENOTDIR},
	} {
		_, err := k.Start(t.Context(), c.m, func(hold.Held) error { t.Error("recorded"); return nil })
		if !errors.Is(err, c.want) {
			t.Errorf("%+v: %v, want %v", c.m, err, c.want)
		}
	}
}

// TestServerWithoutAnAnswer stands for a mount that waits in the kernel: a fifo that nobody writes to can't be had, a holder that is stopped can.
func TestServerWithoutAnAnswer(t *testing.T) {
	k := keeper(t)
	k.Program, k.Limit = "/bin/sleep", time.Second/10 // "sleep hold" ends at once, which is no answer either
	if _, err := k.Start(t.Context(), hold.Mounting{Type: "tmpfs"}, recorded); err == nil {
		t.Error("no error")
	}
	script := filepath.Join(t.TempDir(), "silent")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nexec sleep 1000\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	k.Program = script
	if _, err := k.Start(t.Context(), hold.Mounting{Type: "nfs"}, recorded); !errors.Is(err, fault.Unavailable) {
		t.Errorf("%v", err)
	}
	k.Limit = 0
	ctx, cancel := context.WithTimeout(t.Context(), time.Second/10)
	defer cancel()
	if _, err := k.Start(ctx, hold.Mounting{Type: "nfs"}, recorded); !errors.Is(err, fault.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestBindOfADirectory(t *testing.T) {
	k := keeper(t)
	dir := t.TempDir()
	h, err := k.Start(t.Context(), hold.Mounting{Type: "none", Device: dir, Options: []string{"bind", "ro"}}, recorded)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(h.Path(), "f"), nil, 0o600); !kernel.IsReadOnlyError(err) {
		t.Errorf("%v", err)
	}
	if err := h.End(); err != nil {
		t.Error(err)
	}
}

func TestSorted(t *testing.T) {
	for _, c := range []struct {
		options string
		flags   uint64
		data    string
	}{
		{"", 0, ""},
		{"defaults,rw", 0, ""},
		{"ro,nosuid,nodev,noexec", kernel.ReadOnly | kernel.NoSUID | kernel.NoDev | kernel.NoExec, "ro"},
		{"nosuid,suid", 0, ""},
		{"noatime,nodiratime", kernel.NoATime | kernel.NoDirATime, ""},
		{"noatime,relatime", 0, ""},
		{"strictatime", kernel.StrictATime, ""},
		{"size=100m,uid=1000,noexec", kernel.NoExec, "size=100m,uid=1000"},
		{"addr=192.0.2.1,nfsvers=4,rw,hard", 0, "addr=192.0.2.1,nfsvers=4,hard"},
		{"username=a,password=b,vers=3.0,sync", 0, "username=a,password=b,vers=3.0,sync"},
		{"lowerdir=/a:/b,upperdir=/u,workdir=/w", 0, "lowerdir=/a:/b,upperdir=/u,workdir=/w"},
		{"bind,ro", kernel.ReadOnly, "ro"},
	} {
		m := hold.Mounting{Options: strings.Split(c.options, ",")}
		flags, data := m.Sorted()
		if flags != c.flags || strings.Join(data, ",") != c.data {
			t.Errorf("%q: %x %q", c.options, flags, data)
		}
		if m.Plain() {
			t.Errorf("%q is plain", c.options)
		}
	}
	for _, o := range [][]string{{"bind"}, {"rbind", "rw"}, {"bind", "defaults"}} {
		if m := (hold.Mounting{Options: slices.Clone(o)}); !m.Plain() {
			t.Errorf("%q is not plain", o)
		}
	}
}

// TestFileSystems mounts what a disk has, twice, and what lies on another file system.
func TestFileSystems(t *testing.T) {
	k := keeper(t)
	for _, kind := range []string{"ext4", "btrfs", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			args := []string{"-q"}
			disk := kerneltest.Disk(t, kind, 400<<20, args, "")
			device := deviceOf(t, disk)
			h, err := k.Start(t.Context(), hold.Mounting{Type: kind, Device: device, Options: []string{"noatime"}}, recorded)
			if err != nil {
				t.Fatal(err)
			}
			defer h.End()
			if err := os.WriteFile(filepath.Join(disk, "f"), []byte("of the disk"), 0o600); err != nil {
				t.Fatal(err)
			}
			if text, err := os.ReadFile(filepath.Join(h.Path(), "f")); err != nil || string(text) != "of the disk" {
				t.Errorf("%q, %v", text, err)
			}
			if err := h.End(); err != nil {
				t.Fatal(err)
			}
		})
	}
	t.Run("overlay", func(t *testing.T) {
		dir := kerneltest.Disk(t, "ext4", 16<<20, []string{"-q"}, "")
		for _, name := range []string{"lower", "upper", "work"} {
			if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "lower", "f"), []byte("below"), 0o600); err != nil {
			t.Fatal(err)
		}
		h, err := k.Start(t.Context(), hold.Mounting{Type: "overlay", Device: "overlay",
			Options: []string{"lowerdir=" + dir + "/lower", "upperdir=" + dir + "/upper", "workdir=" + dir + "/work"}}, recorded)
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(h.Path(), "f"))
		if err != nil || string(text) != "below" {
			t.Errorf("%q, %v", text, err)
		}
		if err := errors.Join(os.WriteFile(filepath.Join(h.Path(), "g"), nil, 0o600), h.End()); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(dir, "upper", "g")); err != nil {
			t.Error(err)
		}
	})
}

// deviceOf is what is mounted at a place.
func deviceOf(t *testing.T, at string) string {
	t.Helper()
	for line := range strings.Lines(mounts(t)) {
		if f := strings.Fields(line); f[4] == at {
			return f[len(f)-2]
		}
	}
	t.Fatalf("nothing is mounted at %s", at)
	return ""
}
