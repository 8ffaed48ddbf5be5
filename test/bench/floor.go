package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"
)

// cost is what the parts of a pull's work take of one processor, in ms.
type cost struct{ hash, inflate, untar float64 }

// perCore is the time in ms that the work takes when all processors share it: no pull can be faster with these
// parts. Transfer and the last sync are left out.
func (c cost) perCore() float64 {
	return (c.hash + c.inflate + c.untar) / float64(min(runtime.NumCPU(), 2))
}

// floor does, one part after the other on one thread, what a pull of the image can't do without: hash what comes and what is in
// it, inflate it by the field's fastest library in Go, make the files.
func floor(name string) (c cost, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	m, _, err := readManifest(name)
	if err != nil {
		return c, err
	}
	dir, err := os.MkdirTemp("/var/tmp", "berth-floor-")
	if err != nil {
		return c, err
	}
	defer os.RemoveAll(dir)
	for i, d := range m.Layers {
		blob, err := readBlob(d)
		if err != nil {
			return c, err
		}
		plain := new(bytes.Buffer)
		plain.Grow(8 * len(blob))
		root := filepath.Join(dir, strconv.Itoa(i))
		if err := os.Mkdir(root, 0o755); err != nil {
			return c, err
		}
		for _, part := range []struct {
			sum *float64
			do  func() error
		}{
			{&c.inflate, func() error {
				z, err := gzip.NewReader(bytes.NewReader(blob))
				if err == nil {
					_, err = io.Copy(plain, z)
				}
				return err
			}},
			{&c.hash, func() error { sha256.Sum256(blob); sha256.Sum256(plain.Bytes()); return nil }},
			{&c.untar, func() error { return untar(root, plain.Bytes()) }},
		} {
			before, err := threadTime()
			if err != nil {
				return c, err
			}
			err = part.do()
			after, err2 := threadTime()
			if err := errors.Join(err, err2); err != nil {
				return c, err
			}
			*part.sum += after - before
		}
	}
	return c, nil
}

// threadTime is this thread's processor time so far in ms (the kernel's Documentation/scheduler/sched-stats.rst).
func threadTime() (float64, error) {
	data, err := os.ReadFile("/proc/thread-self/schedstat")
	if err != nil {
		return 0, err
	}
	ns, err := strconv.ParseFloat(strings.Fields(string(data))[0], 64)
	return ns / 1e6, err
}

// untar makes the files of a trusted archive, with owner, mode and time, in the plainest way.
func untar(root string, data []byte) error {
	t := tar.NewReader(bytes.NewReader(data))
	buf := make([]byte, 256<<10)
	for {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		path := filepath.Join(root, h.Name)
		if !strings.HasPrefix(path, root) {
			return fmt.Errorf("%s leaves the directory", h.Name)
		}
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(path, 0o755)
		case tar.TypeSymlink:
			err = os.Symlink(h.Linkname, path)
		case tar.TypeLink:
			err = os.Link(filepath.Join(root, h.Linkname), path)
		case tar.TypeReg:
			err = file(path, h, t, buf)
		}
		if err != nil {
			return err
		}
	}
}

func file(path string, h *tar.Header, r io.Reader, buf []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{f}, r, buf)
	return errors.Join(err, f.Chown(h.Uid, h.Gid), f.Chmod(h.FileInfo().Mode().Perm()), f.Close(), os.Chtimes(path, h.ModTime, h.ModTime))
}

// showFloor prints what the machine allows for the measurement, and how far from it ours is.
func showFloor(name string, ours []float64) error {
	c, err := floor(name)
	if err != nil {
		return err
	}
	mid, _ := quantiles(ours)
	fmt.Printf("%-30s %4s %17.2f   hash %.0f, inflate %.0f, untar %.0f ms of one core; ours is %.2f times that\n", "  floor", "ms", c.perCore(), c.hash, c.inflate, c.untar, mid/c.perCore())
	return nil
}
