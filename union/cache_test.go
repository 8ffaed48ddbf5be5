package union_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"syscall"
	"testing"
	"unsafe"

	"github.com/opencontainers/go-digest"

	"berth/archive"
	"berth/union"
)

// TestPageCache reads one file of an image in two roots and asks the kernel what the second one finds in memory. doc/storage.md says the same.
func TestPageCache(t *testing.T) {
	shares := map[string]bool{"overlay2": true, "vfs": false, "vfs with reflinks": false, "btrfs": false}
	overAll(t, func(t *testing.T, g *ground) {
		want, told := shares[g.name]
		if !told {
			t.Skip("how this one caches is its program's or its file system's affair")
		}
		size := int64(8 << 20)
		if want {
			size = 100 << 20
		}
		d := open(t, g.driver, g.dir(t))
		s, err := d.Stage()
		if err != nil {
			t.Fatal(err)
		}
		in(t, union.Root{Mount: union.Mount{Type: "bind", Source: s.Root().Name()}}, func(p place) {
			f, err := os.Create(p.path("big"))
			p.check(err)
			for written := int64(0); written < size; written += 1 << 20 {
				_, err := f.Write(bytes.Repeat([]byte{byte(written >> 20)}, 1<<20))
				p.check(err)
			}
			p.check(f.Close())
		})
		chain := digest.FromString("big")
		if err := s.Commit(chain, "", archive.Unpacked{Size: size}); err != nil {
			t.Fatal(err)
		}
		if err := d.Sync(); err != nil {
			t.Fatal(err)
		}
		one, two := create(t, d, "one", chain, nil), create(t, d, "two", chain, nil)
		for _, r := range []union.Root{one, two} {
			in(t, r, func(p place) { p.check(resident(p.path("big"), size, func(n int64) bool { return n < size/10 }, true)) })
		}
		in(t, one, func(first place) {
			in(t, two, func(second place) {
				f, err := os.Open(first.path("big"))
				first.check(err)
				defer f.Close()
				n, err := io.Copy(io.Discard, f)
				first.check(err)
				if n != size {
					t.Errorf("%d bytes", n)
				}
				second.check(resident(second.path("big"), size, func(n int64) bool { return n > size*9/10 == want && n < size/10 != want }, false))
			})
		})
	})
}

// resident checks how many bytes of a file are in memory (mincore(2)); drop has them leave it first (posix_fadvise(2)).
func resident(path string, size int64, fits func(int64) bool, drop bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if drop {
		if err := f.Sync(); err != nil { // what is dirty can't be dropped
			return err
		}
		const dontNeed = 4
		if _, _, errno := syscall.Syscall6(syscall.SYS_FADVISE64, f.Fd(), 0, 0, dontNeed, 0, 0); errno != 0 {
			return errno
		}
	}
	memory, err := syscall.Mmap(int(f.Fd()), 0, int(size), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return err
	}
	defer syscall.Munmap(memory)
	page := os.Getpagesize()
	pages := make([]byte, (int(size)+page-1)/page)
	if _, _, errno := syscall.Syscall(syscall.SYS_MINCORE, uintptr(unsafe.Pointer(&memory[0])), uintptr(size), uintptr(unsafe.Pointer(&pages[0]))); errno != 0 {
		return errno
	}
	n := int64(0)
	for _, p := range pages {
		n += int64(p&1) * int64(page)
	}
	if !fits(n) {
		return fmt.Errorf("%d of %d bytes of %s are in memory", n, size, path)
	}
	return nil
}
