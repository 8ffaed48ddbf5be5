package oci

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/fault"
	"berth/internal/kerneltest"
	"berth/kernel"
	"berth/kernel/namespace"
)

// What a subpath shows lies in the source, whatever links lie there.
func TestSubpath(t *testing.T) {
	eachBuilder(t, func(t *testing.T, r runner) {
		dir := t.TempDir()
		secret := filepath.Join(dir, "secret")
		write(t, dir, "vol/a/b/f", "shown", 0o644)
		write(t, dir, "secret/f", "hidden", 0o644)
		for link, to := range map[string]string{"in": "a/b", "abs": secret, "up": "../secret", "deep": "a/../../secret", "proc": "/proc/self/root"} {
			if err := os.Symlink(to, dir+"/vol/"+link); err != nil {
				t.Fatal(err)
			}
		}
		bind := func(sub string) *Bundle {
			b := newBundle(t, newRoot(t), sh("cat /m/f 2>/dev/null || cat /m")...)
			b.Spec.Mounts = append(b.Spec.Mounts, specs.Mount{Destination: "/m", Type: "bind", Source: dir + "/vol", Options: []string{"rbind", "ro", "rprivate", Subpath + sub}})
			return b
		}
		for _, sub := range []string{"a/b", "in", "a/b/f", "a/./b", "a/../in"} {
			if res := r.run(t, bind(sub)); res.out != "shown" {
				t.Errorf("%s: %+v", sub, res)
			}
		}
		for sub, want := range map[string]string{
			"abs": "leads out of there", "up": "leads out of there", "deep": "leads out of there", "../secret": "leads out of there", "/" + secret: "leads out of there",
			"proc": "leads out of there", "in/../../../secret": "leads out of there", "nosuch": "no such file or directory", "a/b/f/x": "not a directory",
		} {
			res, err := r.try(t, bind(sub))
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "cannot access path") || !errors.Is(err, fault.Invalid) && !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %+v, %v", sub, res, err)
			}
		}
	})
}

// Somebody swaps a directory of the volume for a link to the host's while containers start: each shows the directory, or is refused.
func TestSwappedSubpath(t *testing.T) {
	eachBuilder(t, func(t *testing.T, r runner) {
		dir := t.TempDir()
		write(t, dir, "secret/f", "hidden", 0o644)
		write(t, dir, "vol/real/f", "shown", 0o644)
		if err := os.Symlink("../secret", dir+"/vol/link"); err != nil {
			t.Fatal(err)
		}
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			real, link, at := dir+"/vol/real", dir+"/vol/link", dir+"/vol/at"
			for {
				select {
				case <-stop:
					return
				default:
				}
				if errors.Join(os.Rename(real, at), os.Rename(at, real), os.Rename(link, at), os.Rename(at, link)) != nil {
					t.Error("the swap fails")
					return
				}
			}
		})
		for range 20 {
			b := newBundle(t, newRoot(t), sh("cat /m/f")...)
			b.Spec.Mounts = append(b.Spec.Mounts, specs.Mount{Destination: "/m", Type: "bind", Source: dir + "/vol", Options: []string{"rbind", "rprivate", Subpath + "at"}})
			if res, err := r.try(t, b); err == nil && res.out != "shown" {
				t.Errorf("%+v", res)
			}
		}
		close(stop)
		wg.Wait()
	})
}

// A part of a file system that is mounted for the container, read-only; a file of it, too.
func TestSubpathOfAnOverlay(t *testing.T) {
	eachBuilder(t, func(t *testing.T, r runner) {
		dir := t.TempDir()
		write(t, dir, "top/etc/f", "shown", 0o644)
		write(t, dir, "low/etc/g", "below", 0o644)
		if err := os.Symlink("/etc", dir+"/top/abs"); err != nil {
			t.Fatal(err)
		}
		overlay := func(options ...string) specs.Mount {
			return specs.Mount{Destination: "/m", Type: "overlay", Source: "overlay", Options: append([]string{"lowerdir+=" + dir + "/top", "lowerdir+=" + dir + "/low", "ro", Outside}, options...)}
		}
		for _, c := range []struct{ sub, script, want string }{
			{"", "cat /m/etc/f /m/etc/g; touch /m/x 2>&1", "shownbelowtouch: /m/x: Read-only file system\n"},
			{"etc", "cat /m/f /m/g; ls /m; touch /m/x 2>&1", "shownbelowf\ng\ntouch: /m/x: Read-only file system\n"},
			{"etc/f", "cat /m; (echo x >/m) 2>&1 | grep -o Read-only; grep -c ' /m' /proc/mounts", "shownRead-only\n1\n"},
		} {
			b := newBundle(t, newRoot(t), sh(c.script)...)
			m := overlay()
			if c.sub != "" {
				m = overlay(Subpath + c.sub)
			}
			b.Spec.Mounts = append(b.Spec.Mounts, m)
			if res := r.run(t, b); res.out != c.want {
				t.Errorf("%q: %q %q", c.sub, res.out, res.err)
			}
		}
		b := newBundle(t, newRoot(t), "/bin/true")
		b.Spec.Mounts = append(b.Spec.Mounts, overlay(Subpath+"abs"))
		if res, err := r.try(t, b); err == nil || !strings.Contains(err.Error(), "leads out of there") {
			t.Errorf("%+v, %v", res, err)
		}
	})
}

// The same in a user namespace: files of the layers belong to whom the container knows.
func TestSubpathOfAnOverlayInAUserNamespace(t *testing.T) {
	kerneltest.Root(t)
	dir := t.TempDir()
	write(t, dir, "top/etc/f", "shown", 0o644)
	write(t, dir, "low/etc/g", "below", 0o644)
	b, _ := mapped(t, newRoot(t), 300000, sh("stat -c %u:%g /m/f /m/g; cat /m/f")...)
	b.Spec.Mounts = append(b.Spec.Mounts, specs.Mount{Destination: "/m", Type: "overlay", Source: "overlay", UIDMappings: b.Spec.Linux.UIDMappings, GIDMappings: b.Spec.Linux.GIDMappings,
		Options: []string{"lowerdir+=" + dir + "/top", "lowerdir+=" + dir + "/low", "ro", Outside, Subpath + "etc"}})
	if res := (runner{}).run(t, b); res.out != "0:0\n0:0\nshown" {
		t.Errorf("%q %q", res.out, res.err)
	}
}

// Before Linux 6.15 a part is taken of a mount that stands somewhere for a moment.
func TestPartOfAnAttachedMount(t *testing.T) {
	kerneltest.Root(t)
	dir := t.TempDir()
	write(t, dir, "sub/f", "shown", 0o644)
	err := kernel.Thread(func() error {
		if err := errors.Join(kernel.UnshareFS(), namespace.Unshare(namespace.Mount), kernel.Propagation("/", kernel.PropPrivate, true)); err != nil {
			return err
		}
		m, err := kernel.CloneMount(nil, dir, false)
		if err != nil {
			return err
		}
		defer m.Close()
		at, err := openPart(m, "sub")
		if err != nil {
			return err
		}
		defer at.Close()
		f, err := partAttached(m, at)
		if err != nil {
			return err
		}
		defer f.Close()
		file, err := kernel.OpenIn(f, "f", os.O_RDONLY, 0, kernel.Beneath)
		if err != nil {
			return err
		}
		if left, err := os.ReadDir(procPlace); err != nil || len(left) > 0 && left[0].Name() == "sub" {
			return fmt.Errorf("left at %s: %v, %w", procPlace, left, err)
		}
		return file.Close()
	})
	if err != nil {
		t.Error(err)
	}
}

// The source's owner is the program's user, by number, by name, and in a user namespace.
func TestOwnerIsTheProgramsUser(t *testing.T) {
	for user, want := range map[string]string{"": "0:0", "1000:1000": "1000:1000", "alice": "1000:1000", "7": "7:0"} {
		for _, inNamespace := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s %v", user, inNamespace), func(t *testing.T) {
				kerneltest.Root(t)
				root, dir := newRoot(t), t.TempDir()
				write(t, root, "etc/passwd", "root:x:0:0::/:/bin/sh\nalice:x:1000:1000::/:/bin/sh\n", 0o644)
				write(t, root, "etc/group", "root:x:0:\nalice:x:1000:\n", 0o644)
				if err := errors.Join(os.Chmod(dir, 0o700), os.Chown(dir, 500, 600)); err != nil {
					t.Fatal(err)
				}
				script := sh("stat -c %u:%g /m && touch /m/made && echo done")
				b := newBundle(t, root, script...)
				if inNamespace {
					b, _ = mapped(t, root, 300000, script...)
				}
				b.User = user
				b.Spec.Mounts = append(b.Spec.Mounts, specs.Mount{Destination: "/m", Type: "bind", Source: dir, Options: []string{"rbind", "rprivate", OwnerIsRoot}})
				if res := (runner{}).run(t, b); res.out != want+"\ndone\n" {
					t.Errorf("%q %q", res.out, res.err)
				}
				if got := owner(t, dir+"/made"); got != "500:600" {
					t.Errorf("what the user made belongs to %s", got)
				}
			})
		}
	}
}
