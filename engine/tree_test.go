package engine

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func openTestTree(t *testing.T, dir string) *tree {
	t.Helper()
	top, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer top.Close()
	tr, err := openTree(top)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tr.Close() })
	return tr
}

func TestResolveStaysInside(t *testing.T) {
	dir := t.TempDir()
	for link, target := range map[string]string{
		"abs": "/etc", "up": "../../../../etc", "loop": "loop", "chain": "abs/../abs", "into": "/etc/deep", "file": "etc/../none",
	} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	os.MkdirAll(filepath.Join(dir, "etc/deep"), 0o755)
	tr := openTestTree(t, dir)
	for name, want := range map[string]string{
		"/": ".", "/etc/hosts": "etc/hosts", "abs/x": "etc/x", "up/x": "etc/x", "chain/y": "etc/y", "into/../z": "z", "into": "etc/deep",
		"../../x": "x", "file": "none", "a//b/./c": "a/b/c",
	} {
		if got, err := tr.resolve(name); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", name, got, err, want)
		}
	}
	if _, err := tr.resolve("loop/x"); !errors.Is(err, errTooManyLinks) {
		t.Errorf("a loop: %v", err)
	}
}

// TestInitLayerOfAHostileRoot gives it links where it wants to write; what lies outside stays as it is.
func TestInitLayerOfAHostileRoot(t *testing.T) {
	outside := t.TempDir()
	for name, prepare := range map[string]func(root string) error{
		"empty":               func(string) error { return nil },
		"etc leads out":       func(root string) error { return os.Symlink(outside, filepath.Join(root, "etc")) },
		"etc leads up":        func(root string) error { return os.Symlink("../"+filepath.Base(outside), filepath.Join(root, "etc")) },
		"etc is a file":       func(root string) error { return os.WriteFile(filepath.Join(root, "etc"), nil, 0o600) },
		"dev leads to itself": func(root string) error { return os.Symlink("pts", filepath.Join(root, "dev")) },
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
			if err := errors.Join(initLayer(top), initLayer(top)); err != nil {
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
