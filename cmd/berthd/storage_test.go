package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestStorageSettings(t *testing.T) {
	file := filepath.Join(t.TempDir(), "daemon.json")
	if err := os.WriteFile(file, []byte(`{"storage-driver": "overlay2", "storage-opts": ["overlay2.size=10G", "overlay2.override_kernel_check=true"]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"--validate", "--config-file", file}
	o, err := parse(args)
	if err != nil || o.driver != "overlay2" || !slices.Equal(o.driverOptions, []string{"overlay2.size=10G", "overlay2.override_kernel_check=true"}) {
		t.Errorf("from the file: %+v, %v", o, err)
	}
	for _, twice := range [][]string{{"-s", "vfs"}, {"--storage-opt", "overlay2.size=1G"}} {
		if _, err := parse(append(twice, args...)); err == nil || !strings.Contains(err.Error(), "both as a flag and in the configuration file") {
			t.Errorf("%v also as a flag: %v", twice, err)
		}
	}
	t.Setenv("DOCKER_DRIVER", "btrfs")
	if o, err := parse(args); err != nil || o.driver != "btrfs" {
		t.Errorf("from the environment: %v", err)
	}
}
