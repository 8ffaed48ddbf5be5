package disk

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/engine/disk"
	"berth/registry/registrytest"

	"github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestCheckFindsAndMends damages each kind of thing by hand: it is found, nothing is changed by finding it, and what can be mended is.
func TestCheckFindsAndMends(t *testing.T) {
	w := newWorld(t)
	base := w.busybox()
	own := w.layer(1, map[string]int{"own/f": 100_000})
	name, m := w.pull("img", base, own)
	w.e.Run(t, "create", "--name", "holder", "-v", "vol:/v", name)
	w.e.Run(t, "run", "--rm", "-v", "vol:/v", name, "sh", "-c", "echo precious >/v/f")
	id := strings.TrimSpace(w.e.Run(t, "inspect", "-f", "{{.Id}}", "holder"))
	if all, sum := w.check("deep"); len(all) != 0 || !sum.Clean || sum.Blobs != 4 || sum.Layers != 2 || sum.Images != 1 || sum.Containers != 1 || sum.Volumes != 1 {
		t.Fatalf("before all damage: %+v %+v", all, sum)
	}
	at := func(path ...string) string { return filepath.Join(append([]string{w.e.Data}, path...)...) }
	old := time.Now().Add(-time.Hour)
	stray := func(path string) func() error {
		return func() error {
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				return err
			}
			return errors.Join(os.WriteFile(path, make([]byte, 5000), 0o600), os.Chtimes(path, old, old))
		}
	}
	for _, c := range []struct {
		name   string
		damage func() error
		kind   string
		object string // part of it
		deep   bool
	}{
		{"a layer's blob", func() error { return flip(w.blob(m.Layers[0].Digest)) }, disk.DamagedBlob, m.Layers[0].Digest.String(), false},
		{"the config", func() error { return flip(w.blob(m.Config.Digest)) }, disk.DamagedBlob, m.Config.Digest.String(), false},
		{"a cut blob", func() error { return os.Truncate(w.blob(m.Layers[1].Digest), 10) }, disk.DamagedBlob, m.Layers[1].Digest.String(), false},
		{"a lost blob", func() error { return os.Remove(w.blob(m.Layers[1].Digest)) }, disk.MissingBlob, m.Layers[1].Digest.String(), false},
		{"a lost config", func() error { return os.Remove(w.blob(m.Config.Digest)) }, disk.MissingBlob, m.Config.Digest.String(), false},
		{"a lost layer", func() error { return os.RemoveAll(filepath.Dir(w.diff(base.diff))) }, disk.MissingLayer, base.diff.String(), false},
		{"a lost file in a layer", func() error { return os.Remove(filepath.Join(w.diff(base.diff), "etc/passwd")) }, disk.DamagedLayer, base.diff.String(), false},
		{"a file cut in a layer", func() error { return os.Truncate(filepath.Join(w.diff(base.diff), "etc/passwd"), 3) }, disk.DamagedLayer, base.diff.String(), false},
		{"other content in a layer", func() error { return flip(filepath.Join(w.diff(base.diff), "etc/passwd")) }, disk.DamagedLayer, base.diff.String(), true},
		{"another mode in a layer", func() error { return os.Chmod(filepath.Join(w.diff(base.diff), "bin"), 0o700) }, disk.DamagedLayer, base.diff.String(), true},
		{"the record of a container", func() error { return os.WriteFile(at("containers", id, "record.json"), []byte("{"), 0o600) }, disk.DamagedRecord, "container " + id[:12], false},
		{"the record of a volume", func() error { return os.Remove(at("volumes/vol/volume.json")) }, disk.DamagedRecord, "volume vol", false},
		{"the names of images", func() error { return os.Truncate(at("images/images.json"), 3) }, disk.DamagedRecord, "images.json", false},
		{"a blob of nobody", func() error {
			return os.WriteFile(w.blob(ocispec.DescriptorEmptyJSON.Digest), []byte("{}"), 0o600)
		}, disk.Unreferenced, "", false},
		{"a file beside the blobs", stray(at("blobs/sha256/odd")), disk.Stray, "sha256/odd", false},
		{"a dead download", stray(at("blobs/ingest/new-dead")), disk.Stray, "ingest/new-dead", false},
		{"a root of nobody", stray(at("layers/roots/foreign/diff/f")), disk.Stray, "roots/foreign", false},
		{"a stage of nobody", stray(at("layers/stage/foreign/diff/f")), disk.Stray, "stage/foreign", false},
		{"a spare of nobody", stray(at("layers/spare/foreign/diff/f")), disk.Stray, "spare/foreign", false},
		{"a layer of nobody", stray(at("layers/layers/foreign/diff/f")), disk.Stray, "layers/foreign", false},
		{"mount points of nobody", stray(at("layers/inits/foreign/diff/f")), disk.Stray, "inits/foreign", false},
		{"a merged chain of nobody", stray(at("layers/merged/foreign/diff/f")), disk.Stray, "merged/foreign", false},
		{"a directory of no container", stray(at("containers/abcdef/f")), disk.Stray, "containers/abcdef", false},
		{"what a volume's removal left", stray(at("volumes/.stage-gone-x/_data/f")), disk.Stray, ".stage-gone-x", false},
		{"what a record's writer left", stray(at("images/images.json.tmp-1")), disk.Stray, "images.json.tmp-1", false},
	} {
		w.usage() // as somebody had asked before the damage
		w.must(c.damage())
		options := []string{}
		if c.deep {
			if all, _ := w.check(); len(all) != 0 {
				t.Errorf("%s: found without looking into files: %+v", c.name, all)
			}
			options = append(options, "deep")
		}
		for range 2 { // looking changes nothing
			all, sum := w.check(options...)
			if len(all) != 1 || all[0].Kind != c.kind || !strings.Contains(all[0].Object, c.object) || all[0].Repaired != "" || all[0].Advice == "" || all[0].Cause == "" {
				t.Errorf("%s: found %+v", c.name, all)
			}
			leftover := c.kind == disk.Stray || c.kind == disk.Unreferenced
			if sum.Clean != leftover || (sum.Leftovers == 1) != leftover || leftover && sum.LeftoverSize == 0 {
				t.Errorf("%s: %+v", c.name, sum)
			}
		}
		all, sum := w.check(append(options, "repair")...)
		if len(all) != 1 || all[0].Repaired == "" || !sum.Clean || sum.Repaired+sum.Leftovers != 1 || sum.Freed != sum.LeftoverSize {
			t.Errorf("%s: mended %+v %+v", c.name, all, sum)
		}
		if all, sum := w.check("deep"); len(all) != 0 || !sum.Clean {
			t.Errorf("%s: afterwards %+v %+v", c.name, all, sum)
		}
		if out := w.e.Run(t, "run", "--rm", "-v", "vol:/v", name, "cat", "/v/f"); out != "precious\n" {
			t.Errorf("%s: the image says %q", c.name, out)
		}
	}
	w.e.Kill()
	w.e.Up(t)
	if all, sum := w.check("deep"); len(all) != 0 || !sum.Clean {
		t.Errorf("after a restart: %+v %+v", all, sum)
	}
	w.same("after all")
}

// flip changes one byte of a file and nothing else of it.
func flip(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	data[len(data)/2] ^= 1
	return errors.Join(os.WriteFile(path, data, 0o600), os.Chtimes(path, info.ModTime(), info.ModTime()))
}

// TestCheckAfterARestart: what the engine itself notices at its start is mended too.
func TestCheckAfterARestart(t *testing.T) {
	w := newWorld(t)
	base := w.busybox()
	name, m := w.pull("img", base, w.layer(1, map[string]int{"own/f": 100_000}))
	manifest := strings.TrimSpace(w.e.Run(t, "image", "inspect", "-f", "{{.Id}}", name))
	for what, damage := range map[string]func() error{
		"config":   func() error { return os.Remove(w.blob(m.Config.Digest)) },
		"layer":    func() error { return os.Remove(w.blob(m.Layers[0].Digest)) },
		"manifest": func() error { return flip(filepath.Join(w.e.Data, "blobs", strings.Replace(manifest, ":", "/", 1))) },
		"both": func() error {
			return errors.Join(os.Remove(w.blob(m.Layers[0].Digest)), os.RemoveAll(filepath.Dir(w.diff(base.diff))))
		},
	} {
		w.e.Kill()
		w.must(damage())
		w.e.Up(t)
		all, sum := w.check()
		if len(all) == 0 || sum.Clean {
			t.Errorf("%s: %+v %+v", what, all, sum)
		}
		if all, sum := w.check("repair"); !sum.Clean {
			t.Errorf("%s: %+v %+v", what, all, sum)
		}
		if all, sum := w.check("deep"); len(all) != 0 || !sum.Clean {
			t.Errorf("%s: afterwards %+v %+v", what, all, sum)
		}
		if out := w.e.Run(t, "run", "--rm", name, "echo", "fine"); out != "fine\n" {
			t.Errorf("%s: %q", what, out)
		}
	}
}

// TestCheckSaysWhatCantBeMended: the next step is told, and nothing is made worse.
func TestCheckSaysWhatCantBeMended(t *testing.T) {
	w := newWorld(t)
	base := w.busybox()
	name, m := w.pull("img", base, w.layer(1, map[string]int{"own/f": 100_000}))
	w.e.Run(t, "run", "-d", "--name", "runs", name, "sleep", "1000")

	// A layer on which a container runs is not changed below it.
	w.must(flip(filepath.Join(w.diff(base.diff), "etc/group")))
	all, sum := w.check("deep", "repair")
	if sum.Clean || len(all) != 1 || !strings.Contains(all[0].Advice, "stop runs") {
		t.Errorf("a layer in use: %+v %+v", all, sum)
	}
	if out := w.e.Run(t, "exec", "runs", "echo", "alive"); out != "alive\n" {
		t.Errorf("the container says %q", out)
	}
	w.e.Run(t, "rm", "-f", "runs")
	if all, sum := w.check("deep", "repair"); !sum.Clean {
		t.Errorf("a layer that is not in use any more: %+v %+v", all, sum)
	}

	// A blob that nobody has any more.
	w.registry.SetFaults(registrytest.Faults{Missing: []digest.Digest{m.Layers[0].Digest}})
	w.must(flip(w.blob(m.Layers[0].Digest)))
	all, sum = w.check("repair")
	if sum.Clean || len(all) != 1 || !strings.Contains(all[0].Advice, "pull or load "+name+" again") {
		t.Errorf("a blob that can't be had: %+v %+v", all, sum)
	}
	if out := w.e.Run(t, "run", "--rm", name, "echo", "fine"); out != "fine\n" {
		t.Errorf("the image, which is still unpacked: %q", out)
	}
	// An image that came from no registry.
	w.e.Busybox(t)
	id := strings.TrimSpace(w.e.Run(t, "image", "inspect", "-f", "{{.Id}}", "busybox"))
	w.must(flip(filepath.Join(w.e.Data, "blobs", strings.Replace(id, ":", "/", 1))))
	all, _ = w.check("repair")
	found := false
	for _, f := range all {
		found = found || strings.Contains(f.Advice, "pull or load busybox:latest again")
	}
	if !found {
		t.Errorf("a local image: %+v", all)
	}
	var r image.PruneReport
	w.call("POST", "/v1.55/images/prune", filters("dangling=false"), &r)
	if all, sum := w.check(); !sum.Clean {
		t.Errorf("after the images went: %v", fmt.Sprint(all, sum))
	}
}

// TestCheckBesideWork: what is under way is no finding, and a check that mends harms nothing.
func TestCheckBesideWork(t *testing.T) {
	w := newWorld(t)
	base := w.busybox()
	kept, _ := w.pull("kept", base)
	for n := range 3 {
		w.publish(fmt.Sprintf("p%d", n), "1", nil, base, w.layer(1, map[string]int{"shared": 1 << 20}), w.layer(uint64(n+2), map[string]int{"own": 2 << 20}))
	}
	done := make(chan struct{})
	var work, checks sync.WaitGroup
	checks.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			for _, options := range [][]string{{"deep"}, {"repair"}} {
				all, sum := w.check(options...)
				if !sum.Clean {
					t.Errorf("%v: %+v %+v", options, all, sum)
				}
			}
		}
	})
	for n := range 3 {
		work.Go(func() {
			name := fmt.Sprintf("%s/p%d:1", w.address, n)
			for range 5 {
				for _, args := range [][]string{{"pull", "-q", name}, {"run", "--rm", "-v", "/x", name, "true"}, {"run", "--rm", kept, "true"}, {"rmi", name}} {
					if out, err := w.e.Try(args...); err != nil {
						t.Errorf("%v: %v %s", args, err, out)
					}
				}
			}
		})
	}
	work.Wait()
	close(done)
	checks.Wait()
	if all, sum := w.check("deep"); len(all) != 0 || !sum.Clean {
		t.Errorf("afterwards: %+v %+v", all, sum)
	}
}

// TestCheckFetchesWithCredentials: the client sends what the user has, and only it opens a private repository.
func TestCheckFetchesWithCredentials(t *testing.T) {
	w := newWorld(t)
	_, m := w.pull("private", w.busybox())
	w.registry.SetAccess(registrytest.Access{Scheme: "basic", Users: map[string]string{"me": "secret"}, Private: []string{"private"}})
	w.must(flip(w.blob(m.Layers[0].Digest)))
	if out, err := w.e.Try("system", "fsck", "--repair"); err == nil || !strings.Contains(out, "next: ") || strings.Contains(out, "secret") {
		t.Errorf("without credentials: %v\n%s", err, out)
	}
	login := w.e.Command("berth", "login", "-u", "me", "--password-stdin", w.address)
	login.Stdin = strings.NewReader("secret")
	if out, err := login.CombinedOutput(); err != nil {
		t.Fatalf("login: %v\n%s", err, out)
	}
	if out, err := w.e.Try("system", "fsck", "--repair"); err != nil || !strings.Contains(out, "-> fetched again") {
		t.Errorf("with credentials: %v\n%s", err, out)
	}
	if strings.Contains(w.e.Log(), "secret") {
		t.Error("the password is in the log")
	}
}

// TestCheckOfAnIndex: platforms that are not here are no finding, and what is kept beside a platform is checked too.
func TestCheckOfAnIndex(t *testing.T) {
	w := newWorld(t)
	put := func(media string, v any) ocispec.Descriptor {
		data, err := json.Marshal(v)
		w.must(err)
		if media == ocispec.MediaTypeImageManifest {
			w.registry.Manifest("multi", "", media, data)
		} else {
			w.registry.Blob("multi", data)
		}
		return ocispec.Descriptor{MediaType: media, Digest: digest.FromBytes(data), Size: int64(len(data))}
	}
	m := w.publish("multi", "plain", nil, w.busybox())
	native := put(ocispec.MediaTypeImageManifest, m)
	native.Platform = &ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	foreign := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("elsewhere"), Size: 9, Platform: &ocispec.Platform{OS: "linux", Architecture: "s390x"}}
	statement := put("application/vnd.in-toto+json", map[string]string{"what": "a statement"})
	about := m
	about.Config = put(ocispec.MediaTypeImageConfig, ocispec.Image{Platform: ocispec.Platform{OS: "unknown", Architecture: "unknown"}, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{statement.Digest}}})
	about.Layers = []ocispec.Descriptor{statement}
	attestation := put(ocispec.MediaTypeImageManifest, about)
	attestation.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	attestation.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": native.Digest.String()}
	index, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{native, foreign, attestation}})
	w.must(err)
	w.registry.Manifest("multi", "1", ocispec.MediaTypeImageIndex, index)
	name := w.address + "/multi:1"
	w.e.Run(t, "pull", "-q", name)
	if all, sum := w.check("deep"); len(all) != 0 || !sum.Clean {
		t.Fatalf("at first: %+v %+v", all, sum)
	}
	here := []digest.Digest{native.Digest}
	for _, d := range []digest.Digest{attestation.Digest, statement.Digest} {
		if _, err := os.Stat(w.blob(d)); err == nil {
			here = append(here, d)
		}
	}
	if len(here) != 3 {
		t.Errorf("the attestation did not come: %v", here)
	}
	for _, d := range here {
		w.must(flip(w.blob(d)))
		if all, sum := w.check(); sum.Clean || len(all) == 0 || all[0].Kind != disk.DamagedBlob || all[0].Object != d.String() {
			t.Errorf("%s: %+v %+v", d, all, sum)
		}
		if all, sum := w.check("repair"); !sum.Clean {
			t.Errorf("%s: %+v %+v", d, all, sum)
		}
		if all, sum := w.check("deep"); len(all) != 0 || !sum.Clean {
			t.Errorf("%s: afterwards %+v %+v", d, all, sum)
		}
	}
	w.must(os.Remove(w.blob(statement.Digest)))
	if all, sum := w.check(); sum.Clean || len(all) != 1 || all[0].Kind != disk.MissingBlob {
		t.Errorf("a lost attestation: %+v %+v", all, sum)
	}
	if all, sum := w.check("repair"); !sum.Clean {
		t.Errorf("a lost attestation: %+v %+v", all, sum)
	}
	w.e.Run(t, "rmi", name)
	if all, sum := w.check("deep"); len(all) != 0 || sum.Blobs != 0 {
		t.Errorf("after the removal: %+v %+v", all, sum)
	}
}
