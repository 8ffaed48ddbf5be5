package storage

import (
	"archive/tar"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"berth/internal/kerneltest"
	"berth/test/testengine"
)

// steps make an image of five layers from Debian's root file system, by its own package tools.
var steps = []string{
	`set -e; mkdir -p /tmp/p/DEBIAN /tmp/p/opt/tool/bin; cp -a /usr/lib/$(uname -m)-linux-gnu/perl-base /tmp/p/opt/tool/lib
	printf '#!/bin/sh\necho one\n' > /tmp/p/opt/tool/bin/tool; chmod 755 /tmp/p/opt/tool/bin/tool; ln /tmp/p/opt/tool/bin/tool /tmp/p/opt/tool/bin/same
	printf 'Package: tool\nVersion: 1\nArchitecture: all\nMaintainer: nobody <n@example.org>\nDescription: a tool\n' > /tmp/p/DEBIAN/control
	dpkg-deb --root-owner-group -b /tmp/p /tmp/tool.deb; dpkg -i /tmp/tool.deb; /opt/tool/bin/tool`,
	`set -e; sed -i 's/^Version.*/Version: 2/' /tmp/p/DEBIAN/control; rm -r /tmp/p/opt/tool/lib/unicore /tmp/p/opt/tool/bin/*; printf '#!/bin/sh\necho two\n' > /tmp/p/opt/tool/bin/tool
	chmod 755 /tmp/p/opt/tool/bin/tool; ln /tmp/p/opt/tool/bin/tool /tmp/p/opt/tool/bin/same
	printf '#!/bin/sh\nuseradd -r -M tooler\nchown -R tooler /opt/tool/lib\n' > /tmp/p/DEBIAN/postinst; chmod 755 /tmp/p/DEBIAN/postinst
	dpkg-deb --root-owner-group -b /tmp/p /tmp/tool.deb; dpkg -i /tmp/tool.deb; /opt/tool/bin/tool`,
	`set -e; rm -r /usr/share/doc /usr/share/man; dpkg --purge --force-all tzdata mount; mkdir /usr/share/doc; echo none > /usr/share/doc/README`,
	`set -e; chmod -R go-w,o+X /opt; chmod 4755 /opt/tool/bin/tool; mv /opt/tool/lib/IO /opt/tool/lib/io; rm /opt/tool/bin/same; ln -s tool /opt/tool/bin/same; mknod /opt/null c 1 3`,
	`set -e; dpkg --purge tool || true; rm -rf /tmp/p; dpkg -i /tmp/tool.deb; perl -e 'open F, ">", "/opt/sparse"; seek F, 5000000, 0; print F "end"'`,
}

// What has times in its content, and what is not part of an image, is left out.
const prune = `find . -xdev \( -path ./var/log -o -path ./var/cache -o -path ./proc -o -path ./sys -o -path ./dev -o -name '*-old' -o -path ./tmp/tool.deb`

// all tells a tree but its times.
const all = "cd /; " + prune + ` \) -prune -o -printf '%p %y %m %U:%G %l\n' | LC_ALL=C sort
	` + prune + ` -o -path ./etc \) -prune -o -type f -exec sha256sum {} + | LC_ALL=C sort -k2`

// facts are for finding what is as it was: a line begins with the path.
const facts = "cd /; " + prune + ` \) -prune -o \( -type d -printf '%p %y %m %U:%G %T@\n' -o -printf '%p %y %m %U:%G %T@ %s %l\n' \)
	` + prune + ` \) -prune -o -type f -exec sha256sum {} + | sed -E 's/^([0-9a-f]+)  (.*)$/\2 \1/'`

// resurrected are files that fuse-overlayfs 1.10 shows again, the lower layer's: it makes no whiteout when a name that was replaced by a rename goes. dpkg
// does that to the lists of packages that it purges.
var resurrected = []string{"/var/lib/dpkg/info/mount.list", "/var/lib/dpkg/info/tzdata.list"}

// TestARealImage makes the same image on every driver that is here, and compares its tree, what the containers changed, and its export. It is part of the soak.
func TestARealImage(t *testing.T) {
	if os.Getenv("BERTH_SOAK") == "" {
		t.Skip("part of the long tests: BERTH_SOAK=1")
	}
	kerneltest.Root(t)
	debian := testengine.DebianTar(t)
	var first *made
	for _, d := range append(slices.Clone(drivers), driver{name: "fuse-overlayfs"}) {
		d.options = slices.Clone(d.options)
		for k, o := range d.options {
			d.options[k] = strings.Replace(o, "basesize=256M", "basesize=1G", 1)
		}
		t.Run(d.name, func(t *testing.T) {
			told := realImage(t, d.start(t), debian, first)
			if first == nil {
				first = told
			}
			for k, lines := range told.lines {
				got, want := lines, first.trim(first.lines[k], k)
				if d.name == "overlay2" || d.name == "fuse-overlayfs" {
					got = first.trim(got, k)
				}
				if d.name == "fuse-overlayfs" {
					got, want = without(got, resurrected), without(want, resurrected)
				}
				compareLines(t, told.names[k], got, want)
			}
		})
	}
}

// made is what a driver made of the steps.
type made struct {
	names []string          // what is listed
	lines [][]string        // the lists: of each step's changes first
	kept  []map[string]bool // of each step, the paths that are exactly as before it
}

func (m *made) add(name string, lines []string) {
	slices.Sort(lines)
	m.names, m.lines = append(m.names, name), append(m.lines, lines)
}

// trim leaves modifications out of the changes of step k that are none: stacking drivers count a file that was only opened to be written, or
// given what it had, as they have copied that. Drivers of whole trees compare, and are to tell none of these.
func (m *made) trim(lines []string, k int) []string {
	if k >= len(m.kept) {
		return lines
	}
	return slices.DeleteFunc(slices.Clone(lines), func(line string) bool {
		path, modified := strings.CutPrefix(line, "C ")
		return modified && m.kept[k][path]
	})
}

// without leaves the lines out that are about one of the paths.
func without(lines, paths []string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(line string) bool {
		return slices.ContainsFunc(paths, func(p string) bool { return strings.Contains(line, p[1:]) })
	})
}

// realImage makes the image and tells what is to be the same; with no first one to compare with, what the steps left alone, too.
func realImage(t *testing.T, e *testengine.Engine, debian string, first *made) *made {
	m := &made{}
	within := func(image, script string) []string {
		return strings.Split(strings.TrimSpace(e.Run(t, "run", "--rm", "--network", "none", image, "sh", "-c", script)), "\n")
	}
	e.Run(t, "import", debian, "step:0")
	var before map[string]string
	if first == nil {
		before = byPath(within("step:0", facts))
	}
	for k, s := range steps {
		name, next := fmt.Sprint("c", k), fmt.Sprint("step:", k+1)
		e.Run(t, "run", "--network", "none", "--name", name, fmt.Sprint("step:", k), "sh", "-c", s)
		var changes []string
		for line := range strings.Lines(e.Run(t, "diff", name)) {
			if !strings.Contains(line, "/var/cache") && !strings.Contains(line, "/var/log") {
				changes = append(changes, strings.TrimSpace(line))
			}
		}
		m.add("changes of "+next, changes)
		e.Run(t, "commit", name, next)
		if first == nil {
			now, kept := byPath(within(next, facts)), map[string]bool{}
			for path, fact := range now {
				kept[path] = before[path] == fact
			}
			m.kept, before = append(m.kept, kept), now
		}
	}
	last := fmt.Sprint("step:", len(steps))
	m.add("tree", within(last, all))
	dir := t.TempDir()
	e.Run(t, "save", "-o", dir+"/saved.tar", last)
	e.Run(t, "create", "--name", "flat", last)
	e.Run(t, "export", "-o", dir+"/flat.tar", "flat")
	m.add("export", members(t, dir+"/flat.tar"))
	for k := range steps {
		e.Run(t, "rm", fmt.Sprint("c", k))
	}
	e.Run(t, "rm", "flat")
	e.Run(t, "rmi", last)
	e.Run(t, "load", "-i", dir+"/saved.tar")
	m.add("tree that was saved and loaded", within(last, all))
	if text, err := e.Try("system", "fsck", "--deep"); err != nil {
		t.Errorf("%v: %s", err, text)
	}
	return m
}

// byPath joins what lines of facts say about each path.
func byPath(lines []string) map[string]string {
	of := map[string]string{}
	for _, line := range lines {
		path, fact, _ := strings.Cut(strings.TrimPrefix(line, "."), " ")
		of[path] += fact + "\n"
	}
	return of
}

// members lists an archive without times.
func members(t *testing.T, path string) (lines []string) {
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(h.Name, "var/log") || strings.HasPrefix(h.Name, "var/cache") || h.Name == "tmp/tool.deb" {
			continue
		}
		lines = append(lines, fmt.Sprint(h.Name, " ", string(h.Typeflag), " ", h.Mode, " ", h.Uid, ":", h.Gid, " ", h.Size, " ", h.Linkname, " ", h.Devmajor, " ", h.Devminor))
	}
	return lines
}

// compareLines tells the first few lines by which two lists differ.
func compareLines(t *testing.T, about string, got, want []string) {
	t.Helper()
	told := 0
	for _, side := range []struct {
		what string
		a, b []string
	}{{"only here", got, want}, {"only on the first driver", want, got}} {
		have := map[string]bool{}
		for _, line := range side.b {
			have[line] = true
		}
		for _, line := range side.a {
			if !have[line] && told < 20 {
				t.Errorf("%s, %s: %s", about, side.what, line)
				told++
			}
		}
	}
}
