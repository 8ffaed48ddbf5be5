package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// The image that containers change: a large file, and many small ones.
const (
	storedImage = "bench-stored"
	storedLarge = 200 << 20
	storedSmall = 5000
	streamBytes = 300 << 20 // what is written and read in sequence
)

// work is this program in a container: it does one thing to the container's files, and prints the milliseconds that took and
// the milliseconds of processor time. The start of a program in a container is not part of it.
func work(what string) error {
	do, prepare := map[string]func() error{
		"append":       appendLarge,
		"touch 2000":   func() error { return touchSmall(2000) },
		"touch 5000":   func() error { return touchSmall(storedSmall) },
		"write stream": writeStream,
		"read stream":  readStream,
	}[what], func() error { return nil }
	if what == "read stream" {
		prepare = func() error { return errors.Join(writeStream(), forget("/stream")) }
	}
	if do == nil {
		return fmt.Errorf("no work is called %q", what)
	}
	if err := prepare(); err != nil {
		return err
	}
	began, before := time.Now(), processorTime()
	if err := do(); err != nil {
		return err
	}
	took, cost := time.Since(began), processorTime()-before
	_, err := fmt.Printf("%.3f %.3f\n", took.Seconds()*1e3, cost.Seconds()*1e3)
	return err
}

// synced writes at a file's end and has it on the disk.
func synced(path string, flags int, write func(*os.File) error) error {
	f, err := os.OpenFile(path, flags|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Sync(), f.Close())
}

func appendLarge() error {
	return synced("/large", os.O_APPEND, func(f *os.File) error { _, err := f.WriteString("more\n"); return err })
}

func touchSmall(n int) error {
	for i := range n {
		f, err := os.OpenFile(fmt.Sprintf("/small/%d", i), os.O_APPEND|os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteString("more\n")
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func writeStream() error {
	chunk := bytes.Repeat([]byte("sequence"), 1<<17)
	return synced("/stream", os.O_CREATE|os.O_TRUNC, func(f *os.File) (err error) {
		for n := 0; n < streamBytes && err == nil; n += len(chunk) {
			_, err = f.Write(chunk)
		}
		return err
	})
}

func readStream() error {
	f, err := os.Open("/stream")
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, make([]byte, 1<<20))
	if err == nil && n != streamBytes {
		err = fmt.Errorf("read %d bytes", n)
	}
	return err
}

// forget has a file that is on the disk leave the page cache (posix_fadvise(2)), and nothing else: others use this machine.
func forget(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	const dontNeed = 4
	if _, _, errno := syscall.Syscall6(syscall.SYS_FADVISE64, f.Fd(), 0, 0, dontNeed, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// importStored gives the engine the image, once.
func importStored(e engine) error {
	if quiet(e.client("inspect", "--type", "image", storedImage)) == nil {
		return nil
	}
	script := `set -e; cd "$1"; cp -r root stored; mkdir stored/small; head -c "$2" /dev/urandom >stored/large
		i=0; while [ $i -lt "$3" ]; do head -c 3000 /dev/urandom >stored/small/$i; i=$((i+1)); done; tar -C stored -cf stored.tar .; rm -r stored`
	dir := e.common().dir
	if err := quiet(exec.Command("sh", "-c", script, "sh", dir, fmt.Sprint(storedLarge), fmt.Sprint(storedSmall))); err != nil {
		return err
	}
	defer os.Remove(filepath.Join(dir, "stored.tar"))
	return quiet(e.client("import", filepath.Join(dir, "stored.tar"), storedImage))
}

// working runs a new container of that image, which does nothing but to wait, for do. It is kept to the end of the world: ext4 gives inodes that were freed in the
// last half minute to nobody, and looks at each of them for every new file, so that an engine would pay for what it removed before.
func working(e engine, do func(name string) error) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	name := fmt.Sprintf("bench-works-%d", time.Now().UnixNano())
	defer func() { quiet(e.client("kill", name)) }()
	if err := quiet(e.client("run", "-d", "--name", name, "--network", "none", "-v", self+":/bench:ro", storedImage, "sleep", "10000")); err != nil {
		return err
	}
	syscall.Sync() // what making it left to write is not measured
	return do(name)
}

// worked is how long a piece of work took in the container, and the processor time of it.
func worked(e engine, name, what string) (ms, cost float64, err error) {
	cmd := e.client("exec", name, "/bench", "-work", what)
	out, err := cmd.CombinedOutput()
	if err == nil {
		_, err = fmt.Sscan(string(out), &ms, &cost)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, out)
	}
	return ms, cost, err
}

// storageMeasurements are named "storage: …". Of work in a container the processor time is shown as well, in which others that load the machine and its disk show less.
func storageMeasurements() (all []measurement) {
	for _, w := range []struct{ name, what string }{
		{"storage: copy-up of 200 MB", "append"},
		{"storage: copy-up of 2,000 files", "touch 2000"},
		{"storage: write of 300 MB", "write stream"},
		{"storage: read of 300 MB", "read stream"},
	} {
		all = append(all, measurement{name: w.name, unit: "ms", slow: true, prepare: importStored, inside: func(e engine) (ms, cost float64, err error) {
			err = working(e, func(name string) error {
				ms, cost, err = worked(e, name, w.what)
				return err
			})
			return ms, cost, err
		}})
	}
	return append(all, measurement{name: "storage: diff of 5,000 files", unit: "ms", slow: true, prepare: importStored, inside: func(e engine) (ms, cost float64, err error) {
		err = working(e, func(name string) error {
			if _, _, err := worked(e, name, "touch 5000"); err != nil {
				return err
			}
			before := cpuOfWorld(&e.common().open)
			ms, err = timed(e.client("diff", name))
			cost = cpuOfWorld(&e.common().open) - before
			return err
		})
		return ms, cost, err
	}}, measurement{name: "storage: create and rm of 50", unit: "ms", slow: true, observe: true, run: func(e engine) (sum float64, err error) {
		for _, name := range names(50) {
			ms, err := timed(e.client("create", "--name", name, "busybox", "true"))
			if err != nil {
				return 0, err
			}
			sum += ms
		}
		for _, name := range names(50) {
			ms, err := timed(e.client("rm", name))
			if err != nil {
				return 0, err
			}
			sum += ms
		}
		return sum, nil
	}})
}
