package volume_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"berth/fault"
	"berth/internal/kerneltest"
	"berth/volume"
)

// over tells that a quota is exceeded: xfs has the word of a full disk for a project's.
func over(err error) bool { return errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.ENOSPC) }

func TestSize(t *testing.T) {
	disk := kerneltest.Disk(t, "xfs", 400<<20, []string{"-q"}, "pquota") // which has no exception for root
	s, err := volume.Open(filepath.Join(disk, "volumes"))
	if err != nil {
		t.Fatal(err)
	}
	v, _, err := s.Create(volume.Volume{Name: "small", Options: map[string]string{"size": "1m"}})
	if err != nil {
		t.Fatal(err)
	}
	big := bytes.Repeat([]byte("x"), 2<<20)
	full := func(dir string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "f"), big, 0o600); !over(err) {
			t.Errorf("%v, want that the quota is exceeded", err)
		}
	}
	full(v.Path)
	if err := s.Replace("small", func(dir string) error {
		full(dir)
		return os.WriteFile(filepath.Join(dir, "g"), nil, 0o600)
	}); err != nil {
		t.Fatal(err)
	}
	full(v.Path)
	if err := s.Remove("small"); err != nil {
		t.Fatal(err)
	}
	// Content of an image that is too big is no content.
	if _, _, err := s.Create(volume.Volume{Name: "filled", Options: map[string]string{"size": "1m"}}); err != nil {
		t.Fatal(err)
	}
	image := t.TempDir()
	if err := os.WriteFile(filepath.Join(image, "big"), big, 0o600); err != nil {
		t.Fatal(err)
	}
	tree, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	if err := s.Fill(t.Context(), "filled", tree); !over(err) {
		t.Errorf("%v, want that the quota is exceeded", err)
	}
	if empty, err := volume.Empty(s.Path("filled")); !empty || err != nil {
		t.Errorf("half of it is there: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(disk, "volumes", ".stage-*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestNoSize(t *testing.T) {
	s, err := volume.Open(kerneltest.Disk(t, "ext4", 16<<20, []string{"-q"}, ""))
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = s.Create(volume.Volume{Name: "small", Options: map[string]string{"size": "1m"}})
	if !errors.Is(err, fault.Invalid) || !strings.HasPrefix(err.Error(), "create small: quota size requested but no quota support: ") || !strings.Contains(err.Error(), "prjquota") {
		t.Errorf("%v", err)
	}
	if all, err := s.List(); err != nil || len(all) > 0 {
		t.Errorf("%v, %v", all, err)
	}
}
