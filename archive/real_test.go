package archive_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"berth/archive"
	"berth/internal/kerneltest"
	"berth/kernel"
)

// A real distribution's root must come out as GNU tar unpacks it, and survive a round trip.
func TestRealRootIsAsTarUnpacksIt(t *testing.T) {
	kerneltest.Root(t)
	path := os.Getenv("BERTH_TEST_ROOTFS")
	if path == "" {
		t.Skip("needs a tar of a root file system: set BERTH_TEST_ROOTFS, such as one made by mmdebstrap --variant=minbase")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	top := t.TempDir()
	if err := kernel.ScatterDirs(openDir(t, top)); err != nil {
		t.Fatal(err)
	}
	dirs := map[string]string{}
	for _, name := range []string{"ours", "theirs", "again"} {
		dirs[name] = filepath.Join(top, name)
		if err := os.Mkdir(dirs[name], 0o755); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	u, err := unpack(t, dirs["ours"], data, archive.UnpackOptions{Whiteouts: true})
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(start)
	ours := listing(t, dirs["ours"])
	t.Logf("%d names, %d bytes in files, implied %q, in %v: %.0f names/s", len(ours), u.Size, u.Implied, took, float64(len(ours))/took.Seconds())
	out, err := exec.Command("tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", path, "-C", dirs["theirs"]).CombinedOutput()
	if err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	compare(t, ours, listing(t, dirs["theirs"]))
	start = time.Now()
	packed := pack(t, dirs["ours"], archive.PackOptions{Whiteouts: true})
	t.Logf("packed %d bytes in %v", len(packed), time.Since(start))
	if _, err := unpack(t, dirs["again"], packed, archive.UnpackOptions{Whiteouts: true}); err != nil {
		t.Fatal(err)
	}
	compare(t, listing(t, dirs["again"])[1:], ours[1:])
	if !bytes.Equal(packed, pack(t, dirs["again"], archive.PackOptions{Whiteouts: true})) {
		t.Error("the second round packs to other bytes")
	}
}
