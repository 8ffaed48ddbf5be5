package files

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"berth/internal/kerneltest"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

// TestPrepareAHostileRoot gives it links where it wants to write; what lies outside stays as it is.
func TestPrepareAHostileRoot(t *testing.T) {
	outside := t.TempDir()
	for name, prepare := range map[string]func(root string) error{
		"empty":                func(string) error { return nil },
		"etc leads out":        func(root string) error { return os.Symlink(outside, filepath.Join(root, "etc")) },
		"etc leads up":         func(root string) error { return os.Symlink("../"+filepath.Base(outside), filepath.Join(root, "etc")) },
		"etc is a file":        func(root string) error { return os.WriteFile(filepath.Join(root, "etc"), nil, 0o600) },
		"etc leads in circles": func(root string) error { return os.Symlink("etc", filepath.Join(root, "etc")) },
		"dev leads to itself":  func(root string) error { return os.Symlink("pts", filepath.Join(root, "dev")) },
		"hosts leads out": func(root string) error {
			return errors.Join(os.Mkdir(filepath.Join(root, "etc"), 0o755), os.Symlink(filepath.Join(outside, "made"), filepath.Join(root, "etc/hosts")))
		},
		"resolv.conf of systemd": func(root string) error {
			return errors.Join(os.Mkdir(filepath.Join(root, "etc"), 0o755), os.Symlink("../run/systemd/resolve/stub-resolv.conf", filepath.Join(root, "etc/resolv.conf")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			if err := prepare(root); err != nil {
				t.Fatal(err)
			}
			top, err := os.Open(root)
			if err != nil {
				t.Fatal(err)
			}
			defer top.Close()
			if err := errors.Join(Prepare(top), Prepare(top)); err != nil {
				t.Fatal(err)
			}
			if left, _ := os.ReadDir(outside); len(left) != 0 {
				t.Errorf("written outside: %v", left)
			}
			if _, err := os.Stat(filepath.Join(root, ".dockerenv")); err != nil {
				t.Error(err)
			}
			if name == "resolv.conf of systemd" {
				if _, err := os.Stat(filepath.Join(root, "run/systemd/resolve/stub-resolv.conf")); err != nil {
					t.Error("what the link means was not made")
				}
			}
		})
	}
}
