package hostile

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"berth/test/testengine"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// hostFiles are what containers of a hostile image may try to reach; the test compares them before and after.
var hostFiles = []string{"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/passwd", "/proc/sys/kernel/domainname", "/proc/sys/kernel/hostname", "/proc/mounts"}

func hostState(t testing.TB) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, path := range hostFiles {
		data, err := os.ReadFile(path)
		all[path] = fmt.Sprint(string(data), err)
	}
	for _, path := range []string{"/dev/null", "/dev/console", "/dev", "/etc", "/proc/sys"} {
		info, err := os.Stat(path)
		if err == nil {
			all[path] = fmt.Sprint(info.Mode(), " ", info.Size())
		}
	}
	return all
}

func sameHost(t testing.TB, before map[string]string) {
	t.Helper()
	for path, now := range hostState(t) {
		if now != before[path] {
			t.Errorf("%s of the host changed from\n%s\nto\n%s", path, before[path], now)
		}
	}
}

// TestImageThatReplacesWhatWeMountOver: an image whose /etc, /dev, /proc, /sys and files below are links to the host's.
// Containers of it may start or be refused; the host stays as it is.
func TestImageThatReplacesWhatWeMountOver(t *testing.T) {
	e := testengine.Start(t)
	c := plant(t)
	busybox := busyboxLayer(t)
	up := strings.Repeat("../", 30) + strings.TrimPrefix(c.dir, "/")
	load(t, e, "busybox:latest", nil, busybox)
	before := settled(t, e)
	host := hostState(t)
	for i, path := range []string{"etc", "dev", "proc", "sys", "etc/hosts", "etc/resolv.conf", "etc/hostname", "etc/passwd", "etc/group",
		"etc/mtab", "dev/console", "dev/null", "dev/pts", "dev/ptmx", "dev/shm", "dev/mqueue", "dev/fd", ".dockerenv", "proc/sys", "proc/self", "sys/fs", "sys/fs/cgroup", "tmp"} {
		for kind, target := range map[string]string{"directory": up, "file": up + "/canary", "new": up + "/new", "absolute": c.dir + "/canary", "magic": "/proc/1/root" + c.dir, "self": "/proc/self/fd/3"} {
			if kind != "directory" && kind != "file" && (i+len(kind))%3 != 0 { // a sample of the rest
				continue
			}
			name := fmt.Sprintf("evil%d:%s", i, kind)
			// Whiteouts make room where the first layer has something.
			evil := layerOf(t, symlink(path, target))
			load(t, e, name, nil, busybox, evil)
			for _, args := range [][]string{
				{"run", "--rm", "-h", "evil", "--add-host", "x:1.2.3.4", "--network", "none", "--tmpfs", "/tmp", name, "sh", "-c", "echo in; echo x >/dev/null; echo x >>/etc/hosts; true"},
				{"run", "--rm", "-t", name, "true"},
			} {
				out, err := e.Command("berth", args...).CombinedOutput()
				if err != nil && len(strings.TrimSpace(string(out))) == 0 && !strings.Contains(fmt.Sprint(err), "exit status 1") {
					t.Errorf("/%s -> %s: %v without a word", path, kind, err)
				}
				c.alive(t)
				sameHost(t, host)
			}
			e.Run(t, "rmi", name)
			if t.Failed() {
				t.Fatalf("/%s -> %s (%s)", path, target, kind)
			}
		}
	}
	same(t, e, before)
}

// TestHostileWorkingDirectory: a working directory by way of a descriptor of ours (CVE-2024-21626), or of a link, stays inside.
func TestHostileWorkingDirectory(t *testing.T) {
	e := testengine.Start(t)
	c := plant(t)
	busybox := busyboxLayer(t)
	load(t, e, "busybox:latest", nil, busybox)
	before := settled(t, e)
	links := layerOf(t, symlink("out", strings.Repeat("../", 30)+strings.TrimPrefix(c.dir, "/")), symlink("self", "/proc/self/fd"), symlink("root1", "/proc/1/root"))
	for _, cwd := range []string{"/proc/self/fd/", "/self/", "/proc/thread-self/fd/"} {
		var wg sync.WaitGroup
		gate := make(chan struct{}, 4)
		name := "cwd:" + strings.Trim(strings.NewReplacer("/", "-", ".", "-").Replace(cwd), "-")
		for n := range 16 {
			at := fmt.Sprint(cwd, n)
			tag := fmt.Sprint(name, "-", n)
			load(t, e, tag, func(i *ocispec.Image) { i.Config.WorkingDir = at }, busybox, links)
			wg.Go(func() {
				gate <- struct{}{}
				defer func() { <-gate }()
				// What escaped sees the host's canary by climbing from where it stands.
				out, _ := e.Command("berth", "run", "--rm", tag, "sh", "-c", `pwd; ls -a . .. ../.. ; cat ../../../../../../..`+c.dir+`/canary; cat .`+c.dir+`/canary`).CombinedOutput()
				if strings.Contains(string(out), "alive") {
					t.Errorf("from %s the host is in reach:\n%s", at, out)
				}
			})
		}
		wg.Wait()
		for n := range 16 {
			e.Run(t, "rmi", fmt.Sprint(name, "-", n))
		}
	}
	// The same by exec, into a container that lives.
	load(t, e, "cwd:links", nil, busybox, links)
	id := strings.TrimSpace(e.Run(t, "run", "-d", "cwd:links", "sleep", "1000"))
	for n := range 16 {
		for _, cwd := range []string{"/proc/self/fd/", "/self/"} {
			out, _ := e.Command("berth", "exec", "-w", fmt.Sprint(cwd, n), id, "sh", "-c", `cat ../../../../../../../..`+c.dir+`/canary .`+c.dir+`/canary`).CombinedOutput()
			if strings.Contains(string(out), "alive") {
				t.Errorf("exec from %s%d: the host is in reach:\n%s", cwd, n, out)
			}
		}
	}
	e.Run(t, "run", "--rm", "-w", "/out/new", "cwd:links", "true")
	c.alive(t)
	e.Run(t, "rm", "-f", id)
	e.Run(t, "rmi", "cwd:links")
	same(t, e, before)
}

// TestOurProgramsAreNotOverwritten: an entry that is our own program by way of /proc/self/exe, and a container that writes
// to whatever program of ours runs in it (CVE-2019-5736).
func TestOurProgramsAreNotOverwritten(t *testing.T) {
	e := testengine.Start(t)
	busybox := busyboxLayer(t)
	load(t, e, "busybox:latest", nil, busybox)
	before := settled(t, e)
	read := func() map[string]string {
		now := map[string]string{}
		for _, name := range []string{"berth", "berthd", "berth-oci"} {
			data, err := os.ReadFile(filepath.Join(e.Bin, name))
			if err != nil {
				t.Fatal(err)
			}
			info, _ := os.Stat(filepath.Join(e.Bin, name))
			now[name] = fmt.Sprint(len(data), " ", info.Mode(), " ", info.ModTime())
		}
		return now
	}
	sums := read()
	evil := layerOf(t,
		file("entry", "#!/proc/self/exe\n"),
		symlink("me", "/proc/self/exe"),
		// For as long as it is looked at, anything that isn't busybox is written to.
		file("hunt", "#!/bin/sh\ni=0\nwhile [ $i -lt 300 ]; do i=$((i+1)); for p in /proc/[0-9]*; do case $(readlink $p/exe) in /bin/*) ;; *) (echo overwritten >$p/exe) 2>/dev/null && echo WRITTEN $p;; esac; done; done; echo hunted\n"))
	load(t, e, "evil:1", func(i *ocispec.Image) { i.Config.Entrypoint = []string{"/entry"} }, busybox, evil)
	for _, args := range [][]string{
		{"run", "--rm", "evil:1"},
		{"run", "--rm", "--entrypoint", "/proc/self/exe", "evil:1", "shim"},
		{"run", "--rm", "--entrypoint", "/me", "evil:1", "--help"},
		{"run", "--rm", "--init", "evil:1"},
	} {
		out, err := e.Command("berth", args...).CombinedOutput()
		t.Logf("%v: %v %s", args, err, out)
	}
	id := strings.TrimSpace(e.Run(t, "run", "-d", "--entrypoint", "/hunt", "evil:1"))
	for range 10 {
		e.Command("berth", "exec", id, "/entry").CombinedOutput()
		e.Command("berth", "exec", id, "/me").CombinedOutput()
	}
	e.Run(t, "wait", id)
	if out := e.Run(t, "logs", id); !strings.Contains(out, "hunted") || strings.Contains(out, "WRITTEN") {
		t.Errorf("the container wrote to a program:\n%s", out)
	}
	for name, now := range read() {
		if now != sums[name] {
			t.Errorf("%s changed from %s to %s", name, sums[name], now)
		}
	}
	if out := e.Run(t, "run", "--rm", "busybox", "echo", "well"); out != "well\n" {
		t.Errorf("after it: %q", out)
	}
	e.Run(t, "rm", id)
	e.Run(t, "rmi", "evil:1")
	same(t, e, before)
}

// TestMaskRaces: containers share a volume, in which one swaps what the others have as /dev/null, /dev/pts and /proc by
// links (CVE-2025-31133, CVE-2025-52565, CVE-2025-52881). The host's files stay as they are, and masks stay masks.
func TestMaskRaces(t *testing.T) {
	e := testengine.Start(t)
	c := plant(t)
	busybox := busyboxLayer(t)
	load(t, e, "busybox:latest", nil, busybox)
	before := settled(t, e)
	host := hostState(t)
	shared := t.TempDir()
	for _, d := range []string{"dev", "etc", "sub"} {
		if err := os.Mkdir(filepath.Join(shared, d), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	swap := `cd /v; while :; do
ln -sfn /proc/sys/kernel/domainname null; mv -f null dev/null; ln -sfn /proc/sys/kernel/domainname c; mv -f c dev/console
ln -sfn ../../../../../../../../..` + c.dir + `/canary h; mv -f h etc/hosts; rm -rf dev/pts; ln -sfn /proc dev/pts; rm -f dev/pts; mkdir -p dev/pts
rm -f dev/null dev/console etc/hosts; : >dev/null; rm -rf sub/d; ln -sfn / sub/d; rm -f sub/d; mkdir sub/d
done`
	racer := strings.TrimSpace(e.Run(t, "run", "-d", "-v", shared+":/v", "busybox", "sh", "-c", swap))
	var wg sync.WaitGroup
	for n := range 3 {
		wg.Go(func() {
			for k := range 12 {
				args := [][]string{
					{"run", "--rm", "-v", shared + "/dev:/dev", "busybox", "sh", "-c", "cat /proc/keys /proc/timer_list | wc -c; cat /proc/sysrq-trigger"},
					{"run", "--rm", "-t", "-v", shared + "/dev:/dev", "busybox", "sh", "-c", "echo x >/dev/console; cat /proc/keys | wc -c"},
					{"run", "--rm", "-v", shared + "/etc:/etc", "-h", "pwned", "busybox", "true"},
					{"run", "--rm", "-v", shared + ":/v", "-v", shared + "/etc:/v/sub/d", "--tmpfs", "/v/sub/d/t", "busybox", "true"},
				}[(n+k)%4]
				out, err := e.Command("berth", args...).CombinedOutput()
				if first := strings.TrimSpace(strings.SplitN(string(out), "\n", 2)[0]); err == nil && strings.Contains(args[len(args)-1], "timer_list") && first != "0" {
					t.Errorf("what is masked could be read: %s", out)
				}
			}
		})
	}
	wg.Wait()
	e.Run(t, "rm", "-f", racer)
	c.alive(t)
	sameHost(t, host)
	same(t, e, before)
}
