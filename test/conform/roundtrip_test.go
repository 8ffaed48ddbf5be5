package conform

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/registry/registrytest"
	"berth/test/testengine"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestRegistryRoundTrip: what we push others pull, and the reverse, through the field's own registry; digests stay.
func TestRegistryRoundTrip(t *testing.T) {
	o := newOthers(t)
	e := testengine.Start(t)
	shop := o.registry("")
	id := layered(t, e, "box:1")
	at := shop + "/team/box:1"
	e.Run(t, "tag", "box:1", at)
	if out := e.Run(t, "push", at); !strings.Contains(out, "digest: "+id) {
		t.Errorf("push does not tell the digest %s:\n%s", id, out)
	}
	if got := o.digest("docker://" + at); got != id {
		t.Errorf("pushed, it has digest %s, want %s", got, id)
	}
	o.skopeo("copy", "docker://"+at, "docker://"+shop+"/skopeo/box:1")
	o.podman("pull", "--tls-verify=false", at)
	if got := o.podman("image", "inspect", "--format", "{{.Digest}}", at); got != id {
		t.Errorf("podman has digest %s, want %s", got, id)
	}
	o.podman("push", "--tls-verify=false", at, shop+"/podman/box:gzip")
	o.podman("push", "--tls-verify=false", "--compression-format", "zstd", at, shop+"/podman/box:zstd")
	o.podman("push", "--tls-verify=false", "--format", "v2s2", at, shop+"/podman/box:schema2")
	forget(t, e)
	for _, name := range []string{"team/box:1", "skopeo/box:1", "podman/box:gzip", "podman/box:zstd", "podman/box:schema2"} {
		e.Run(t, "pull", shop+"/"+name)
		if got, want := imageID(t, e, shop+"/"+name), o.digest("docker://"+shop+"/"+name); got != want || strings.HasSuffix(name, "/box:1") && got != id {
			t.Errorf("%s: pulled as %s, the registry has %s, pushed was %s", name, got, want, id)
		}
		runs(t, e, shop+"/"+name)
		forget(t, e)
	}
	// An image of podman's own.
	o.podman("import", "--change", `CMD ["echo","from podman"]`, testengine.BusyboxTar(t), shop+"/podman/own:1")
	o.podman("push", "--tls-verify=false", shop+"/podman/own:1")
	e.Run(t, "pull", shop+"/podman/own:1")
	if out := e.Run(t, "run", "--rm", "--network", "none", shop+"/podman/own:1"); out != "from podman\n" {
		t.Errorf("podman's image says %q", out)
	}
}

// TestDockerRoundTrip is the same with Debian's docker.io, by its registry verbs and its archives.
func TestDockerRoundTrip(t *testing.T) {
	o := newOthers(t)
	e := testengine.Start(t)
	shop := o.registry("")
	id := layered(t, e, "box:1")
	at := shop + "/team/box:1"
	e.Run(t, "tag", "box:1", at)
	e.Run(t, "push", at)
	if out := o.docker("pull", at); !strings.Contains(out, "Digest: "+id) {
		t.Errorf("docker pulled another digest than %s:\n%s", id, out)
	}
	o.docker("tag", at, shop+"/docker/box:1")
	pushed := o.docker("push", shop+"/docker/box:1")
	o.docker("save", "-o", o.dir+"/docker.tar", at)
	e.Run(t, "save", "-o", o.dir+"/ours.tar", "box:1")
	if out := o.docker("load", "-i", o.dir+"/ours.tar"); !strings.Contains(out, "Loaded image: box:1") {
		t.Errorf("docker load: %s", out)
	}
	forget(t, e)
	e.Run(t, "pull", shop+"/docker/box:1")
	if got := imageID(t, e, shop+"/docker/box:1"); !strings.Contains(pushed, "digest: "+got) {
		t.Errorf("pulled as %s, docker says:\n%s", got, pushed)
	}
	runs(t, e, shop+"/docker/box:1")
	forget(t, e)
	if out := e.Run(t, "load", "-i", o.dir+"/docker.tar"); !strings.Contains(out, "Loaded image: "+at) {
		t.Errorf("load of docker's archive: %s", out)
	}
	runs(t, e, at)
}

// TestArchiveRoundTrip: archives of both kinds go to others and come back, with the same manifest where the kind carries one.
func TestArchiveRoundTrip(t *testing.T) {
	o := newOthers(t)
	e := testengine.Start(t)
	shop := o.registry("")
	id := layered(t, e, "example.org/box:1")
	file := func(name string) string { return filepath.Join(o.dir, name) }
	e.Run(t, "save", "-o", file("ours.tar"), "example.org/box:1")
	if got := o.digest("oci-archive:" + file("ours.tar")); got != id {
		t.Errorf("saved, it has digest %s, want %s", got, id)
	}
	o.skopeo("copy", "oci-archive:"+file("ours.tar"), "docker://"+shop+"/team/box:1")
	if got := o.digest("docker://" + shop + "/team/box:1"); got != id {
		t.Errorf("copied from our archive to a registry, it has digest %s, want %s", got, id)
	}
	o.skopeo("copy", "docker://"+shop+"/team/box:1", "oci-archive:"+file("skopeo-oci.tar")+":example.org/box:oci")
	o.skopeo("copy", "docker://"+shop+"/team/box:1", "docker-archive:"+file("skopeo-docker.tar")+":example.org/box:docker")
	if out := o.podman("load", "-i", file("ours.tar")); !strings.Contains(out, "example.org/box:1") {
		t.Errorf("podman load: %s", out)
	}
	o.podman("save", "--format", "oci-archive", "-o", file("podman-oci.tar"), "example.org/box:1")
	o.podman("save", "--format", "docker-archive", "-o", file("podman-docker.tar"), "example.org/box:1")
	o.skopeo("copy", "docker-archive:"+file("ours.tar"), "docker-archive:"+file("through-skopeo.tar")+":example.org/box:through")
	for name, tag := range map[string]string{
		"skopeo-oci.tar": "oci", "skopeo-docker.tar": "docker", "podman-oci.tar": "1", "podman-docker.tar": "1", "through-skopeo.tar": "through",
	} {
		forget(t, e)
		e.Run(t, "load", "-q", "-i", file(name))
		ref := "example.org/box:" + tag
		runs(t, e, ref)
		if name != "skopeo-oci.tar" {
			continue
		}
		if got := imageID(t, e, ref); got != id {
			t.Errorf("%s: loaded as %s, want %s", name, got, id)
		}
		e.Run(t, "save", "-o", file("again.tar"), ref)
		if got := o.digest("oci-archive:" + file("again.tar")); got != id {
			t.Errorf("%s: saved again, it has digest %s, want %s", name, got, id)
		}
	}
}

// TestIndexRoundTrip: an image for several platforms keeps the digest of its index on all ways.
func TestIndexRoundTrip(t *testing.T) {
	o := newOthers(t)
	e := testengine.Start(t)
	shop := o.registry("")
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, arch := range []string{"amd64", "arm64"} {
		name := shop + "/team/multi:" + arch
		e.Run(t, "import", "--platform", "linux/"+arch, testengine.BusyboxTar(t), name)
		e.Run(t, "push", name)
		raw := o.skopeo("inspect", "--raw", "docker://"+name)
		index.Manifests = append(index.Manifests, ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(raw), Size: int64(len(raw)), Platform: &ocispec.Platform{OS: "linux", Architecture: arch},
		})
	}
	data, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	send(t, http.MethodPut, "http://"+shop+"/v2/team/multi/manifests/all", ocispec.MediaTypeImageIndex, data)
	id := digest.FromBytes(data).String()
	o.skopeo("copy", "--all", "docker://"+shop+"/team/multi:all", "docker://"+shop+"/skopeo/multi:all")
	forget(t, e)
	for _, platform := range []string{"linux/arm64", "linux/amd64"} {
		e.Run(t, "pull", "--platform", platform, shop+"/skopeo/multi:all")
		if got := imageID(t, e, shop+"/skopeo/multi:all"); got != id {
			t.Errorf("for %s: pulled as %s, want %s", platform, got, id)
		}
	}
	// With all its platforms here it can be pushed, and saved, as it is.
	e.Run(t, "tag", shop+"/skopeo/multi:all", shop+"/again/multi:all")
	e.Run(t, "push", shop+"/again/multi:all")
	if got := digest.FromString(o.skopeo("inspect", "--raw", "docker://"+shop+"/again/multi:all")).String(); got != id {
		t.Errorf("pushed, the index has digest %s, want %s", got, id)
	}
	e.Run(t, "save", "-o", o.dir+"/multi.tar", shop+"/skopeo/multi:all")
	o.skopeo("copy", "--all", "oci-archive:"+o.dir+"/multi.tar", "docker://"+shop+"/saved/multi:all")
	if got := digest.FromString(o.skopeo("inspect", "--raw", "docker://"+shop+"/saved/multi:all")).String(); got != id {
		t.Errorf("saved, the index has digest %s, want %s", got, id)
	}
}

// TestGuardedRegistries: passwords, tokens, too many requests and connections that break are no obstacle.
func TestGuardedRegistries(t *testing.T) {
	o := newOthers(t)
	e := testengine.Start(t)
	id := layered(t, e, "box:1")
	login := func(address, password string) error {
		cmd := e.Command("berth", "login", "-u", "ann", "--password-stdin", address)
		cmd.Stdin = strings.NewReader(password)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	token := registrytest.New()
	token.SetAccess(registrytest.Access{Scheme: "bearer", Users: map[string]string{"ann": "right"}, Private: []string{"team/box"}})
	web := httptest.NewServer(token)
	defer web.Close()
	// What htpasswd -B writes for the password "right".
	basic := o.registry("ann:$2b$04$5FMWESQV.PGIpuR0Xtn0su7u/JBX4Rh.3pacDWOcahGvgEOWjy2/i\n")
	for kind, address := range map[string]string{"basic": basic, "token": strings.TrimPrefix(web.URL, "http://")} {
		at := address + "/team/box:1"
		e.Run(t, "tag", "box:1", at)
		if _, err := e.Try("push", at); err == nil {
			t.Errorf("%s: pushed without a password", kind)
		}
		if err := login(address, "wrong"); err == nil {
			t.Errorf("%s: a wrong password passes", kind)
		}
		if err := login(address, "right"); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		e.Run(t, "push", at)
		e.Run(t, "rmi", at)
		if out := e.Run(t, "pull", at); !strings.Contains(out, id) {
			t.Errorf("%s: pulled something else:\n%s", kind, out)
		}
		e.Run(t, "logout", address)
		if _, err := e.Try("pull", at); err == nil {
			t.Errorf("%s: pulled after the logout", kind)
		}
	}
	hindered(t, o, e, id)
}

// hindered pulls from a registry that answers 429, and over connections that are cut after a megabyte.
func hindered(t *testing.T, o *others, e *testengine.Engine, id string) {
	t.Helper()
	shop := o.registry("")
	busy := registrytest.New()
	web := httptest.NewServer(busy)
	defer web.Close()
	cutter, err := registrytest.NewCutter(shop, 1<<20, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer cutter.Close()
	for _, address := range []string{shop, strings.TrimPrefix(web.URL, "http://")} {
		e.Run(t, "tag", "box:1", address+"/team/box:1")
		e.Run(t, "push", address+"/team/box:1")
	}
	forget(t, e)
	busy.SetFaults(registrytest.Faults{TooMany: 2, RetryAfter: "1"})
	out := e.Run(t, "pull", strings.TrimPrefix(web.URL, "http://")+"/team/box:1")
	if !strings.Contains(out, id) || !strings.Contains(out, "toomanyrequests") {
		t.Errorf("pull from a busy registry:\n%s", out)
	}
	forget(t, e)
	if out := e.Run(t, "pull", cutter.Addr()+"/team/box:1"); !strings.Contains(out, id) {
		t.Errorf("pull over connections that break:\n%s", out)
	}
	runs(t, e, cutter.Addr()+"/team/box:1")
	if left, _ := os.ReadDir(filepath.Join(e.Data, "blobs", "ingest")); len(left) > 0 {
		t.Errorf("%d unfinished downloads are left", len(left))
	}
}
