package image_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/fault"
	"berth/image"
	"berth/registry"
	"berth/registry/registrytest"
)

// fetchFrom is what the engine does for a pull.
func (p *place) fetchFrom(t testing.TB, client *registry.Client, ref reference.Named, auth registry.Auth) (*image.Image, error) {
	desc, err := client.Resolve(t.Context(), ref, auth)
	if err != nil {
		return nil, err
	}
	return p.Pull(t.Context(), client.Repository(ref, auth), desc, []reference.Named{ref}, nil, nil)
}

func TestPullFromRegistry(t *testing.T) {
	s := newShop()
	root := s.index(t, s.image(t, host, gzipLayer(t, files{"f": noise(500_000)}), gzipLayer(t, files{"g": noise(400_000)}), gzipLayer(t, files{"h": "x"})))
	for what, c := range map[string]struct {
		faults registrytest.Faults
		access registrytest.Access
	}{
		"plain":            {},
		"anonymous tokens": {access: registrytest.Access{Scheme: "bearer"}},
		"cut every 100 kB": {faults: registrytest.Faults{CutAfter: 100_000}},
		"429 and 503":      {faults: registrytest.Faults{TooMany: 2, Failing: 2}},
		"bare registry":    {faults: registrytest.Faults{NoHead: true, NoDigest: true, NoRanges: true}},
	} {
		t.Run(what, func(t *testing.T) {
			p := newPlace(t)
			server, client, ref := loopback(t, s, root)
			server.SetAccess(c.access)
			server.SetFaults(c.faults)
			img, err := p.fetchFrom(t, client, ref, registry.Auth{})
			if err != nil {
				t.Fatal(err)
			}
			if img.ID != root.Digest || p.read(t, img, "f") != noise(500_000) || p.read(t, img, "h") != "x" {
				t.Error("the image differs from what was pushed")
			}
			before := len(server.Requests())
			if _, err := p.fetchFrom(t, client, ref, registry.Auth{}); err != nil {
				t.Fatal(err)
			}
			for _, r := range server.Requests()[before:] {
				if strings.Contains(r, "/blobs/") {
					t.Errorf("a second pull asks %s", r)
				}
			}
		})
	}
}

func TestPullFromSpoiledRegistry(t *testing.T) {
	s := newShop()
	l := gzipLayer(t, files{"f": noise(200_000)})
	root := s.image(t, host, l)
	d := digest.FromBytes(l.blob)
	for what, c := range map[string]struct {
		faults registrytest.Faults
		kind   fault.Kind
	}{
		"layer damaged":    {registrytest.Faults{Corrupt: []digest.Digest{d}}, fault.Corrupt},
		"manifest damaged": {registrytest.Faults{Corrupt: []digest.Digest{root.Digest}}, fault.Corrupt},
		"layer lost":       {registrytest.Faults{Missing: []digest.Digest{d}}, fault.NotFound},
	} {
		t.Run(what, func(t *testing.T) {
			p := newPlace(t)
			server, client, ref := loopback(t, s, root)
			server.SetFaults(c.faults)
			if _, err := p.fetchFrom(t, client, ref, registry.Auth{}); !errors.Is(err, c.kind) {
				t.Errorf("got %v of kind %q", err, fault.Of(err))
			} else {
				t.Log(err)
			}
			p.checkNothing(t)
			server.SetFaults(registrytest.Faults{})
			if _, err := p.fetchFrom(t, client, ref, registry.Auth{}); err != nil {
				t.Errorf("from the repaired registry: %v", err)
			}
		})
	}
}

// skopeo runs the tool of that name, another implementation of all the formats.
func skopeo(t *testing.T, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("skopeo"); err != nil {
		t.Skip("skopeo is missing: apt-get install skopeo")
	}
	cmd := exec.Command("skopeo", append([]string{"--insecure-policy", "--tmpdir", t.TempDir()}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("skopeo %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestSkopeoReadsWhatWeSave(t *testing.T) {
	p := newPlace(t)
	s := newShop()
	img := p.pull(t, s, s.image(t, host, gzipLayer(t, files{"f": "x"}), plainLayer(t, files{"g": "y"})), "app:1")
	file := filepath.Join(t.TempDir(), "app.tar")
	if err := os.WriteFile(file, p.save(t, "app:1"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(skopeo(t, "inspect", "--format", "{{.Digest}}", "oci-archive:"+file)); got != img.ID.String() {
		t.Errorf("as an OCI archive it has digest %s, want %s", got, img.ID)
	}
	dir := t.TempDir()
	skopeo(t, "copy", "docker-archive:"+file+":app:1", "oci:"+dir+":app")
	if config := skopeo(t, "inspect", "--config", "--format", "{{.RootFS.DiffIDs}}", "oci:"+dir+":app"); !strings.Contains(config, img.DiffIDs[1].String()) {
		t.Errorf("as a docker-archive it has layers %s, want %s", config, img.DiffIDs)
	}
}

func TestWeReadWhatSkopeoWrites(t *testing.T) {
	p := newPlace(t)
	s := newShop()
	img := p.pull(t, s, s.image(t, host, gzipLayer(t, files{"f": "x"}), plainLayer(t, files{"g": "y"})), "app:1")
	dir := t.TempDir()
	file := filepath.Join(dir, "app.tar")
	if err := os.WriteFile(file, p.save(t, "app:1"), 0o600); err != nil {
		t.Fatal(err)
	}
	for kind, names := range map[string][]string{"docker-archive": {"their/name:2"}, "oci-archive": {"their/name:2"}} {
		out := filepath.Join(dir, kind+".tar")
		skopeo(t, "copy", "oci-archive:"+file, kind+":"+out+":"+names[0])
		data, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		p.removeAll(t)
		p.load(t, data)
		got, err := p.Get(names[0])
		if err != nil || !slices.Equal(got.DiffIDs, img.DiffIDs) || p.read(t, got, "g") != "y" {
			t.Errorf("%s: got %+v, %v", kind, got, err)
		}
	}
}

func TestSkopeoPushesAndWePull(t *testing.T) {
	p := newPlace(t)
	s := newShop()
	img := p.pull(t, s, s.image(t, host, gzipLayer(t, files{"f": noise(100_000)})), "app:1")
	file := filepath.Join(t.TempDir(), "app.tar")
	if err := os.WriteFile(file, p.save(t, "app:1"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.removeAll(t)
	server, client, ref := loopback(t, newShop(), ocispec.Descriptor{})
	server.SetAccess(registrytest.Access{Scheme: "bearer", Users: map[string]string{"ann": "right"}, Private: []string{"team/app"}})
	skopeo(t, "copy", "--dest-tls-verify=false", "--dest-creds", "ann:right", "--preserve-digests", "oci-archive:"+file, "docker://"+ref.String())
	got, err := p.fetchFrom(t, client, ref, registry.Auth{Username: "ann", Password: "right"})
	if err != nil || got.ID != img.ID {
		t.Fatalf("pulled %+v, %v; want %s", got, err, img.ID)
	}
	if !bytes.Equal([]byte(p.read(t, got, "f")), []byte(noise(100_000))) {
		t.Error("content differs")
	}
}

// pushTo is what the engine does for a push.
func (p *place) pushTo(t testing.TB, client *registry.Client, as string, auth registry.Auth) (image.Pushed, error) {
	t.Helper()
	return p.Push(t.Context(), client.Repository(name(t, as), auth), name(t, as), nil, nil)
}

func TestPushToRegistryAndPullBack(t *testing.T) {
	p := newPlace(t)
	s := newShop()
	mine := s.image(t, host, gzipLayer(t, files{"f": noise(500_000)}), plainLayer(t, files{"g": "y"}))
	root := s.index(t, s.attestation(t, mine), mine)
	server, client, ref := loopback(t, newShop(), ocispec.Descriptor{})
	server.SetAccess(registrytest.Access{Scheme: "bearer", Users: map[string]string{"ann": "right"}, Private: []string{"first/app", "second"}})
	ann := registry.Auth{Username: "ann", Password: "right"}
	first := reference.Domain(ref) + "/first/app:1"
	second := reference.Domain(ref) + "/second:2"
	p.pull(t, s, root, first)
	if _, err := p.pushTo(t, client, first, registry.Auth{}); err == nil {
		t.Error("an unknown user may push")
	}
	done, err := p.pushTo(t, client, first, ann)
	if err != nil || done.Target.Digest != root.Digest {
		t.Fatalf("pushed %+v, %v", done, err)
	}
	if err := p.Tag(first, name(t, second)); err != nil {
		t.Fatal(err)
	}
	before := len(server.Requests())
	if _, err := p.pushTo(t, client, second, ann); err != nil {
		t.Fatal(err)
	}
	for _, r := range server.Requests()[before:] {
		if strings.HasPrefix(r, "PUT ") && !strings.Contains(r, "/manifests/") || strings.HasPrefix(r, "PATCH ") {
			t.Errorf("a blob that could be mounted is sent: %s", r)
		}
	}
	p.removeAll(t)
	for _, from := range []string{first, second} {
		img, err := p.fetchFrom(t, client, name(t, from), ann)
		if err != nil || img.ID != root.Digest || p.read(t, img, "f") != noise(500_000) {
			t.Errorf("%s: got %+v, %v", from, img, err)
		}
	}
}
