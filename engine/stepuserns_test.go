package engine

import (
	archivetar "archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"berth/archive"
	"berth/build"
	"berth/build/dockerfile"
	"berth/container"
	"berth/engine/builds"
	"berth/fault"
	"berth/image"
	"berth/union"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// ofUserns is built by programs in a user namespace and by others.
const ofUserns = `FROM busybox AS stage
RUN mkdir /s && echo staged > /s/f && busybox chown 1000:10 /s/f && busybox chmod 600 /s/f && busybox chown 7:8 /s
FROM busybox
COPY --chown=guest:wheel f /copied
USER guest
WORKDIR /home/guest
RUN id -u; touch mine && busybox stat -c '%n %u %g' . mine
USER 0
RUN --mount=target=/ctx --mount=target=/rw,rw --mount=from=stage,source=/s,target=/ro --mount=from=stage,target=/st,rw --mount=source=f,target=/one \
    --mount=type=secret,id=s,uid=1000,gid=10,mode=0440 --mount=type=ssh,uid=1000,gid=10 --mount=type=cache,target=/c,uid=1000,gid=10,mode=0750 \
    --mount=type=cache,id=filled,from=stage,source=/s,target=/filled --mount=type=cache,id=plain,target=/plain --mount=type=tmpfs,target=/t <<EOF
exec 2>&1
busybox stat -c '%n %u %g %a' / /ctx /ctx/f /rw/f /ro /ro/f /st/s /st/s/f /one /run/secrets/s $SSH_AUTH_SOCK /c /filled /filled/f /plain /t /copied /home/guest /etc/hosts /bin/busybox
cat /ctx/f /one /ro/f /st/s/f /rw/f /filled/f /run/secrets/s
touch /rw/new /st/new /st/s/new /c/new /filled/new /plain/new /t/new && busybox stat -c '%n %u %g' /rw/new /st/s/new /c/new /filled/new /plain/new /t/new
busybox rm -r /data && mkdir /data /made && busybox chown guest:wheel /made && touch /made/x && busybox chown 1000:10 /made/x && busybox chmod 4755 /made/x
busybox ln /made/x /made/y; busybox ln -s x /made/link; busybox chown -h 9:9 /made/link; busybox mkfifo /made/fifo; echo more >> /etc/group; busybox chown 5 /bin/data
echo ready
EOF
RUN --mount=type=cache,id=plain,target=/plain busybox stat -c '%n %u %g' /plain/new /made/x /made/link /copied; rm /copied
`

// TestStepUserns: a daemon with user ids of its own for containers has builds' programs run with them. What they see and the trees that
// come of it are the same as without, be it that layers are id-mapped or copied.
func TestStepUserns(t *testing.T) {
	type outcome struct {
		Out  string
		Tree map[string]string
	}
	done := map[string]outcome{}
	for _, how := range []string{"without", "mapped", "copied"} {
		t.Run(how, func(t *testing.T) {
			b := newBuilder(newWorld(t))
			if how != "without" {
				remap(b.world)
			}
			mapped := b.Containers.mapsLayers
			b.Containers.mapsLayers = func() bool { return how != "copied" && mapped() }
			b.secrets["s"], b.agents["default"] = "secret", func(c net.Conn) { c.Close() }
			if err := os.WriteFile(filepath.Join(b.context.Name(), "f"), []byte("context\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			out, tree := b.tree(ofUserns)
			if ids := b.run("FROM busybox\nRUN cat /proc/self/uid_map\n"); (how == "without") == strings.Contains(ids, "300000      65536") {
				t.Errorf("a program has the ids %q", ids)
			}
			done[how] = outcome{Out: out, Tree: tree}
		})
	}
	want := done["without"]
	if !strings.Contains(want.Out, "/ro/f 1000 10 600\n") || !strings.Contains(want.Out, "/run/buildkit/ssh_agent.0 1000 10 600\n") || !strings.Contains(want.Out, "ready\n/plain/new 0 0\n/made/x 1000 10\n/made/link 9 9\n/copied 1000 10\n") || !strings.Contains(want.Tree["made/x"], "4755 1000:10") {
		t.Errorf("%+v", want)
	}
	for _, how := range []string{"mapped", "copied"} {
		if diff := cmp.Diff(want, done[how]); diff != "" {
			t.Errorf("%s: %s", how, diff)
		}
	}
}

// remap makes a world's containers have ids of their own, as --userns-remap would.
func remap(w *world) {
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 300000, Size: 65536}}
	w.Containers.ids.Remap = container.IDs{UIDs: ids, GIDs: ids}
}

// tree builds text and gives what its programs wrote, and what lies in the tree that came of it but for times.
func (b *builder) tree(text string) (string, map[string]string) {
	b.t.Helper()
	var mu sync.Mutex
	var out bytes.Buffer
	solved, err := b.Builds.Solve(context.Background(), builds.Options{Text: []byte(text)}, b, builds.Teller{
		Plan: func(*dockerfile.Plan) {}, Warn: func(dockerfile.Warning) {},
		Event: func(e build.Event) {
			mu.Lock()
			defer mu.Unlock()
			out.Write(e.Output)
		},
	})
	if err != nil {
		b.t.Fatalf("%v\n%s", err, &out)
	}
	defer solved.Release()
	chains := image.Chains(solved.Results[0].Layers)
	var tar bytes.Buffer
	err = union.Look(b.Containers.layers, chains[len(chains)-1], func(top *os.File) error {
		return archive.Pack(context.Background(), &tar, top, archive.PackOptions{})
	})
	if err != nil {
		b.t.Fatal(err)
	}
	all := map[string]string{}
	for r := archivetar.NewReader(&tar); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		var content []byte
		if err == nil && h.Name != "bin/busybox" {
			content, err = io.ReadAll(r)
		}
		if err != nil {
			b.t.Fatal(err)
		}
		maps.DeleteFunc(h.PAXRecords, func(key, _ string) bool { return strings.HasSuffix(key, "time") })
		all[strings.TrimSuffix(h.Name, "/")] = fmt.Sprintf("%c %o %d:%d %q %v %q", h.Typeflag, h.Mode, h.Uid, h.Gid, h.Linkname, h.PAXRecords, content)
	}
	return out.String(), all
}

// TestStepUsernsRefusals: what a container in a user namespace can't have, a build's program can't either, and the rest builds.
func TestStepUsernsRefusals(t *testing.T) {
	w := newWorld(t)
	b := newBuilder(w)
	plain, other := w.create(nil, "sleep", "1000"), w.create(auto, "sleep", "1000")
	w.start(plain)
	w.start(other)
	remap(w)
	b.Builds.Granted.Insecure = true
	for _, c := range []struct{ run, network, want string }{
		{"--security=insecure", "", "privileged mode is incompatible with user namespaces"},
		{"--network=host", "", "cannot share the host's network namespace when user namespaces are enabled"},
		{"", "host", "cannot share the host's network namespace when user namespaces are enabled"},
		{"", "container:" + plain, "is in the host's user namespace"},
		{"", "container:" + other, "has other user ids than builds"},
	} {
		text := "# syntax=docker/dockerfile:1-labs\nFROM busybox\nRUN " + c.run + " true\n"
		o := builds.Options{Text: []byte(text), Network: c.network, Allow: []string{dockerfile.NetworkHost, dockerfile.SecurityInsecure}}
		solved, err := b.Builds.Solve(context.Background(), o, b, builds.Teller{Plan: func(*dockerfile.Plan) {}, Warn: func(dockerfile.Warning) {}, Event: func(build.Event) {}})
		if err == nil {
			solved.Release()
		}
		if fault.Of(err) != fault.Invalid || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %s: %v", c.run, c.network, err)
		}
	}
}
