package main

import (
	"os"
	"path/filepath"
)

// fillScript is what the container wrote.
const fillScript = `mkdir /many; i=0; while [ $i -lt 2000 ]; do echo $i >/many/$i; i=$((i+1)); done; dd if=/dev/urandom of=/big bs=1M count=32 2>/dev/null`

// onFiles measures verbs that work on what a container wrote: two thousand small files and a large one. The container has ended.
func onFiles(run func(e engine, name, dir string) (float64, error)) func(engine) (float64, error) {
	return withRemoval(func(e engine, name string) (float64, error) {
		dir, err := os.MkdirTemp("", "bench-files-")
		if err != nil {
			return 0, err
		}
		defer os.RemoveAll(dir)
		if _, err := timed(e.client("run", "--name", name, "--network", "none", "busybox", "sh", "-c", fillScript)); err != nil {
			return 0, err
		}
		return run(e, name, dir)
	})
}

var fileMeasurements = []measurement{
	{name: "diff of 2,000 files", unit: "ms", slow: true, run: onFiles(func(e engine, name, _ string) (float64, error) {
		return timed(e.client("diff", name))
	})},
	{name: "export", unit: "ms", slow: true, run: onFiles(func(e engine, name, dir string) (float64, error) {
		return timed(e.client("export", "-o", filepath.Join(dir, "x"), name))
	})},
	{name: "cp out, 2,000 files", unit: "ms", slow: true, run: onFiles(func(e engine, name, dir string) (float64, error) {
		return timed(e.client("cp", name+":/many", dir))
	})},
	{name: "cp in, 2,000 files", unit: "ms", slow: true, run: onFiles(func(e engine, name, dir string) (float64, error) {
		return after(timed, e, e.client("cp", filepath.Join(dir, "many"), name+":/again"), "cp", name+":/many", dir)
	})},
	{name: "cp out, 32 MB", unit: "ms", slow: true, run: onFiles(func(e engine, name, dir string) (float64, error) {
		return timed(e.client("cp", name+":/big", dir))
	})},
}
