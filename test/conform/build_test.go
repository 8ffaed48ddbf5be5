package conform

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"berth/internal/kerneltest"
	"berth/test/testengine"

	"github.com/rogpeppe/go-internal/txtar"
)

// dockerfile is a case of testdata/build: a Dockerfile with its context, built by several builders.
//
// The lines before the first file say how: "build FLAGS" adds flags, and "differs PEER WHAT: WHY" names a difference from a peer ("classic",
// "buildkit") that is meant, where WHAT is a pattern of what report says. A file called setup is a script that prepares the context.
type dockerfile struct {
	name    string
	flags   []string
	differs []difference
	skip    map[string]bool // peers that can't be asked
	files   *txtar.Archive
}

type difference struct {
	peer, what, why string
	seen            bool
}

func readDockerfile(t *testing.T, file string) *dockerfile {
	t.Helper()
	a, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	d := &dockerfile{name: strings.TrimSuffix(filepath.Base(file), ".txtar"), files: a, skip: map[string]bool{}}
	for _, line := range strings.Split(strings.TrimSpace(string(a.Comment)), "\n") {
		word, rest, _ := strings.Cut(line, " ")
		switch {
		case word == "build":
			d.flags = append(d.flags, strings.Fields(rest)...)
		case word == "differs" || word == "without":
			about, why, ok := strings.Cut(rest, ": ")
			fields := strings.SplitN(about, " ", 2)
			if !ok || why == "" {
				t.Fatalf("%s: %q gives no reason", file, line)
			}
			if word == "without" {
				d.skip[fields[0]] = true
				continue
			}
			d.differs = append(d.differs, difference{peer: fields[0], what: fields[1], why: why})
		case !strings.HasPrefix(line, "#"):
			t.Fatalf("%s: %q is neither build, differs, without nor a comment", file, line)
		}
	}
	return d
}

// context makes the case's files.
func (d *dockerfile) context(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	script := "set -e\n"
	for _, f := range d.files.Files {
		if f.Name == "setup" {
			script += string(f.Data)
			continue
		}
		name := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// Each case has a time of its own: what a builder has by name, size and time is not what it had for another case.
	script += fmt.Sprintf("find . -depth -exec touch -h -d @%d {} +\n", 1580000000+cases.Add(1))
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("setup: %v\n%s", err, out)
	}
	return dir
}

var cases atomic.Int64

// builder builds images and gives them as archives.
type builder struct {
	name    string
	command func(args ...string) *exec.Cmd
}

// build builds a context; what is wrong when it can't is in the result's failed.
func (b builder) build(t *testing.T, d *dockerfile, dir string) *built {
	t.Helper()
	tag := strings.ToLower(d.name) + ":" + b.name
	cmd := b.command(append(append([]string{"build", "-t", tag}, d.flags...), ".")...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return &built{failed: fmt.Sprintf("%v\n%s", err, tail(string(out), 600))}
	}
	var archive, complaints bytes.Buffer
	save := b.command("save", tag)
	save.Stdout, save.Stderr = &archive, &complaints
	if err := save.Run(); err != nil {
		t.Fatalf("%s save %s: %v\n%s", b.name, tag, err, complaints.String())
	}
	made, err := readImage(archive.Bytes())
	if err != nil {
		t.Fatalf("%s: read what was built: %v", b.name, err)
	}
	return made
}

// baseTar is what the cases begin with: busybox, users, and names that lead elsewhere.
func baseTar(t *testing.T) string {
	t.Helper()
	busybox := testengine.BusyboxTar(t)
	dir := t.TempDir()
	script := `set -e; mkdir root; tar -C root -xf "$1"; cd root
mkdir -p real/sub srv opt dev proc sys; : >etc/hosts; : >etc/resolv.conf; ln -s real link; ln -s /real abs; ln -s nowhere dangling; ln -s /no/where absdangling; ln -s /real/file filelink
echo base >real/file; echo able >real/capable; setcap cap_net_raw+ep real/capable; echo old >real/old; chmod 2770 srv; chown 1000:10 opt; chmod 700 opt
echo 'svc:x:33:10:svc:/srv:/bin/sh' >>etc/passwd
find . -depth -exec touch -h -d 2019-01-01T00:00:00Z {} +
tar --sort=name --numeric-owner --xattrs --xattrs-include=security.capability -cf ../base.tar .; cd ..; rm -rf root`
	cmd := exec.Command("sh", "-c", script, "sh", busybox)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make a base: %v\n%s", err, out)
	}
	return filepath.Join(dir, "base.tar")
}

// builders starts our engine and Debian's docker.io, and gives both the base image.
func builders(t *testing.T) (ours builder, peers []builder) {
	t.Helper()
	kerneltest.Root(t)
	dir, err := os.MkdirTemp("", "others-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		os.RemoveAll(dir)
		removeGroups(kerneltest.CgroupParent() + "/docker") // its BuildKit leaves those of its steps
	})
	e := testengine.Start(t)
	ours = builder{"berth", func(args ...string) *exec.Cmd { return e.Command("berth", args...) }}
	o := &others{T: t, dir: dir}
	o.docker("version")
	for name, buildkit := range map[string]string{"classic": "0", "buildkit": "1"} {
		peers = append(peers, builder{name, func(args ...string) *exec.Cmd {
			if args[0] == "build" {
				args = append([]string{"build", "--network=none"}, args[1:]...)
			}
			cmd := exec.Command(filepath.Join(testengine.Cache(), "docker.io/usr/bin/docker"), append([]string{"-H", "unix:///run/others-docker.sock", "--config", dir + "/docker-config"}, args...)...)
			cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT="+buildkit)
			return cmd
		}})
	}
	slices.SortFunc(peers, func(a, b builder) int { return strings.Compare(a.name, b.name) })
	base := baseTar(t)
	for _, b := range []builder{ours, peers[0]} {
		for _, args := range [][]string{
			{"import", "-c", `CMD ["sh"]`, "-c", "ENV BASE=1 PATH=/bin", base, "base"},
			{"import", "-c", "ONBUILD RUN echo triggered >/triggered", "-c", "ONBUILD ENV LATER=$BASE", "-c", `ONBUILD COPY trigger /`, base, "triggers"},
			{"import", "-c", "USER svc", "-c", "WORKDIR /srv", "-c", `ENTRYPOINT ["/bin/echo"]`, "-c", `CMD ["x"]`, "-c", "EXPOSE 1", "-c", "LABEL a=base", "-c", "ENV PATH=/bin", base, "settings"},
		} {
			if out, err := b.command(args...).CombinedOutput(); err != nil {
				t.Fatalf("%s %s: %v\n%s", b.name, strings.Join(args, " "), err, out)
			}
		}
	}
	return ours, peers
}

// removeGroups removes a cgroup that has no process, with those below it, in each hierarchy.
func removeGroups(parent string) {
	for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		tops, _ := filepath.Glob(filepath.Join(pattern, parent))
		for _, top := range tops {
			var all []string
			filepath.WalkDir(top, func(p string, e fs.DirEntry, err error) error {
				if err == nil && e.IsDir() {
					all = append(all, p)
				}
				return nil
			})
			for _, p := range slices.Backward(all) {
				os.Remove(p)
			}
		}
	}
}

// TestBuildsAsDocker builds each case of testdata/build by our builder and by the two of Debian's docker.io, and wants the same trees and settings. The
// classic one is asked in the soak.
func TestBuildsAsDocker(t *testing.T) {
	files, err := filepath.Glob("testdata/build/*.txtar")
	if err != nil || len(files) < 60 {
		t.Fatalf("%d cases: %v", len(files), err)
	}
	ours, peers := builders(t)
	for _, file := range files {
		d := readDockerfile(t, file)
		t.Run(d.name, func(t *testing.T) {
			dir := d.context(t)
			got := ours.build(t, d, dir)
			asked := map[string]bool{"both": true}
			for _, p := range peers {
				if d.skip[p.name] || p.name == "classic" && os.Getenv("BERTH_SOAK") == "" {
					continue
				}
				asked[p.name] = true
				for _, r := range compare(p.name, got, p.build(t, d, dir)) {
					if !d.meant(p.name, r) {
						t.Errorf("beside %s: %s", p.name, r)
					}
				}
			}
			for _, m := range d.differs {
				if !m.seen && asked[m.peer] {
					t.Errorf("there is no difference %s %s any more", m.peer, m.what)
				}
			}
		})
	}
}

// meant tells a difference that the case names.
func (d *dockerfile) meant(peer, report string) bool {
	what, _, _ := strings.Cut(report, ": ")
	for k := range d.differs {
		m := &d.differs[k]
		if ok, err := path.Match(m.what, what); (m.peer == peer || m.peer == "both") && err == nil && ok {
			m.seen = true
			return true
		}
	}
	return false
}
