package storage

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/test/testengine"
)

// orders do to a tree what layers have marks for, and what they have none for. The programs that one leaves behind write until they are ended.
const orders = `FROM busybox
ADD tree.tar /t/
RUN ` + "<<EOT\n" + changed + `
EOT
RUN mv /t/cap /t/sub/cap && ln /t/one /t/sub/three && echo more >>/t/two && chmod 600 /t/attr
RUN rm -r /srv && mkdir /srv && echo s >/srv/s && rm -r /t/made && echo f >/t/made && rm -r /t/led && ln -s / /t/led
RUN rm /t/made /t/led && mkdir /t/made /t/led && mv /t/moves /t/moved && rm /t/moved/f && mkdir /t/moved/f && mv /t/sub /t/moved/
RUN touch -d '1960-01-01 00:00:00' /t/old && chmod 6755 /t/attr && chown 1000:70000 /t/old && truncate -s 9M /t/holes && mkfifo /t/fifo /t/moved/fifo && mknod /t/null c 1 3
RUN exec 3>/gone && rm /gone && echo x >&3 && rm /t/fifo && mkfifo /t/fifo
RUN (while :; do echo more >>/left-1; mkdir -p /left/x; echo y >/left/x/$$; rm -r /left; done) & while ! [ -s /left-1 ]; do :; done
RUN setsid sh -c 'trap "" TERM HUP; cd /t; while :; do echo more >>/left-2; touch new; mv new newer; done' >/dev/null 2>&1 </dev/null & while ! [ -s /left-2 ]; do :; done
RUN echo mine >>/etc/hosts; echo mine >/etc/hostname; touch /dev/null /dev/shm/x; mkdir -p /run/x; echo kept >/run/x/kept
RUN touch /.wh.odd /t/.wh.moved
RUN chmod 700 /
RUN chmod 755 /
COPY --chown=5:6 --chmod=640 Dockerfile /copied/
WORKDIR /work/deep
USER 1000
RUN touch /tmp/mine
`

// context makes a directory with the orders and what they are given.
func context(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(h tar.Header, content string) {
		h.Size, h.Format, h.ModTime = int64(len(content)), tar.FormatPAX, time.Unix(1e9, 5e8)
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"sub/", "made/", "made/in/", "led/", "moves/"} {
		add(tar.Header{Name: name, Typeflag: tar.TypeDir, PAXRecords: map[string]string{"SCHILY.xattr.user.of": name}}, "")
	}
	add(tar.Header{Name: "cap", PAXRecords: map[string]string{"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}}, "program")
	add(tar.Header{Name: "attr", Uid: 7, Gid: 8, PAXRecords: map[string]string{"SCHILY.xattr.user.attr": "\x00\xff", "SCHILY.xattr.trusted.attr": "t"}}, "a")
	add(tar.Header{Name: "one"}, "several names")
	add(tar.Header{Name: "two", Typeflag: tar.TypeLink, Linkname: "one"}, "")
	for _, name := range []string{"made/in/a", "led/b", "moves/f", "old"} {
		add(tar.Header{Name: name}, name)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"tree.tar": b.String(), "Dockerfile": orders} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// exported lists what an export has with all that is told of it, but for what belongs to each container.
func exported(t *testing.T, e *testengine.Engine, image string) (lines []string) {
	t.Helper()
	id := strings.TrimSpace(e.Run(t, "create", "--network", "none", image))
	export := e.Run(t, "export", id)
	e.Run(t, "rm", id)
	r := tar.NewReader(strings.NewReader(export))
	for {
		h, err := r.Next()
		if err == io.EOF {
			slices.Sort(lines)
			return lines
		}
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(strings.TrimPrefix(h.Name, "./"), "/")
		switch top, _, _ := strings.Cut(name, "/"); {
		case top == "dev", top == "proc", top == "sys", top == ".dockerenv", name == "etc/hosts", name == "etc/hostname", name == "etc/resolv.conf", name == "etc/mtab":
			continue
		case name == "", name == "etc": // where those lie
			h.ModTime = time.Time{}
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, r); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("%q %c %o %d:%d %d →%s %d,%d %v %q %x", name, h.Typeflag, h.Mode, h.Uid, h.Gid, h.Size, h.Linkname, h.Devmajor, h.Devminor, h.ModTime.Unix(), h.PAXRecords, sum.Sum(nil)[:8]))
	}
}

// TestBuiltIsWhatIsSaved builds on each driver, compares layers with their blobs, and the tree with the one that another engine makes of what was saved.
func TestBuiltIsWhatIsSaved(t *testing.T) {
	for _, d := range drivers[:3] {
		t.Run(d.name, func(t *testing.T) {
			e := start(t, d.name)
			dir := context(t)
			if out, err := e.Command("berth", "build", "--progress", "plain", "-t", "built", dir).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if out := e.Run(t, "system", "fsck", "--deep"); !strings.Contains(out, "Problems: 0 found") {
				t.Errorf("compared with its blobs: %s", out)
			}
			want := exported(t, e, "built")
			layers := e.Run(t, "inspect", "-f", "{{.RootFS.Layers}}", "built")
			saved := filepath.Join(t.TempDir(), "saved.tar")
			e.Run(t, "save", "-o", saved, "built")
			other := start(t, d.name, "--bridge", "none")
			other.Run(t, "load", "-i", saved)
			if got := other.Run(t, "inspect", "-f", "{{.RootFS.Layers}}", "built"); got != layers {
				t.Errorf("layers %s, saved %s", layers, got)
			}
			if got := exported(t, other, "built"); !slices.Equal(got, want) {
				t.Errorf("what was saved is unlike what was built:\n%s", difference(want, got))
			}
		})
	}
}
