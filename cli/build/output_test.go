package build

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/build/protocol"
	"berth/cli/session"

	"github.com/google/go-cmp/cmp"
)

func TestWhatIsAskedFor(t *testing.T) {
	type is = protocol.Output
	for _, c := range []*struct {
		o    outputs
		tags []string
		want []is
		err  string
	}{
		{o: outputs{}, tags: []string{"a", "b:1"}, want: []is{{Type: "image", Attributes: map[string]string{"name": "a,b:1"}}}},
		{o: outputs{push: true}, tags: []string{"a"}, want: []is{{Type: "image", Attributes: map[string]string{"name": "a", "push": "true"}}}},
		{o: outputs{wanted: []string{"out"}}, tags: []string{"a"}, want: []is{{Type: "local", Attributes: map[string]string{}}}},
		{o: outputs{wanted: []string{"-"}}, want: []is{{Type: "tar", Attributes: map[string]string{}}}},
		{o: outputs{wanted: []string{"out"}, load: true}, tags: []string{"a"}, want: []is{{Type: "local", Attributes: map[string]string{}}, {Type: "image", Attributes: map[string]string{"name": "a"}}}},
		{o: outputs{wanted: []string{"type=oci,dest=x.tar,name=n,tar=false"}}, tags: []string{"a"}, want: []is{{Type: "oci", Attributes: map[string]string{"name": "n", "tar": "false"}}}},
		{o: outputs{wanted: []string{"type=docker"}}, want: []is{{Type: "image", Attributes: map[string]string{}}}},
		{o: outputs{wanted: []string{`type=image,"name=a,b"`}}, want: []is{{Type: "image", Attributes: map[string]string{"name": "a,b"}}}},
		{o: outputs{annotations: []string{"k=v", "index,manifest-descriptor[linux/arm64]:o.p=q=r"}}, want: []is{{Type: "image", Attributes: map[string]string{"annotation-manifest.k": "v", "annotation-index.o.p": "q=r", "annotation-manifest-descriptor[linux/arm64].o.p": "q=r"}}}},
		{o: outputs{wanted: []string{"type=local"}}, err: "dest is required for local"},
		{o: outputs{wanted: []string{"dest=x,name=y"}}, err: "type is required for output"},
		{o: outputs{wanted: []string{"type=tar,x"}}, err: "invalid value x"},
		{o: outputs{wanted: []string{"type=image,dest=x"}}, err: "dest cannot be specified for image"},
		{o: outputs{wanted: []string{"out"}, push: true}, err: `push and "local" output can't be used together`},
		{o: outputs{wanted: []string{"out"}, annotations: []string{"k=v"}}, err: "annotations belong to images"},
		{o: outputs{annotations: []string{"k"}}, err: "expected key=value"},
		{o: outputs{annotations: []string{"layer:k=v"}}, err: `unknown annotation type "layer"`},
		{o: outputs{isolation: "hyperv"}, err: "invalid isolation (hyperv)"},
		{o: outputs{attests: []string{"mode=max"}}, err: "it has no type"},
	} {
		var r protocol.Request
		err := c.o.apply(&r, url.Values{}, c.tags)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%v: error %v, want %q", c.o.wanted, err, c.err)
			}
			continue
		}
		if d := cmp.Diff(c.want, r.Outputs); err != nil || d != "" {
			t.Errorf("%v: %v\n%s", c.o.wanted, err, d)
		}
	}
	o := outputs{attests: []string{"type=provenance,mode=max", "type=sbom"}, sbom: "false"}
	got, err := o.attested()
	if d := cmp.Diff(map[string]string{"provenance": "mode=max"}, got); err != nil || d != "" {
		t.Errorf("%v\n%s", err, d)
	}
}

// archived is an archive of files.
func archived(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, text := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o640, Size: int64(len(text)), Uid: os.Getuid(), Gid: os.Getgid()}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestReceive(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(t.TempDir(), "outside")
	for _, name := range []string{"kept/old", "cleared/old", "cleared/d/old"} {
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(outside, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Dir(outside), filepath.Join(dir, "cleared/link")); err != nil {
		t.Fatal(err)
	}
	stdout := &bytes.Buffer{}
	s := &session.Session{Program: &session.Program{Out: stdout}}
	o := &outputs{list: []output{
		{kind: "local", dest: filepath.Join(dir, "kept")}, {kind: "local", dest: filepath.Join(dir, "cleared"), attributes: map[string]string{"mode": "delete"}},
		{kind: "tar", dest: "-"}, {kind: "oci", dest: filepath.Join(dir, "file")}, {kind: "oci", dest: filepath.Join(dir, "layout"), attributes: map[string]string{"tar": "false"}}, {kind: "image"},
	}}
	data := archived(t, map[string]string{"d/new": "x"})
	for _, name := range []string{"0", "1", "2", "3", "4"} {
		if err := o.receive(t.Context(), s, name, bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"5", "6", "x"} {
		if o.receive(t.Context(), s, name, bytes.NewReader(data)) == nil {
			t.Errorf("output %s came, and is taken", name)
		}
	}
	there := func(p string) bool { _, err := os.Lstat(p); return err == nil }
	if there(filepath.Join(dir, "file")) {
		t.Error("a file is there before the build has ended")
	}
	id, metadata := filepath.Join(dir, "id"), filepath.Join(dir, "metadata")
	o.metadata = metadata
	result := map[string]string{"containerimage.digest": "sha256:1", "containerimage.descriptor": base64.StdEncoding.EncodeToString([]byte(`{"size":1}`))}
	if err := o.finish(result, id); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"kept/old": true, "kept/d/new": true, "cleared/old": false, "cleared/d/old": false, "cleared/link": false, "cleared/d/new": true, "file": true, "layout/d/new": true} {
		if there(filepath.Join(dir, name)) != want {
			t.Errorf("%s is there: %v, want %v", name, !want, want)
		}
	}
	if !there(outside) {
		t.Error("a link was followed when a directory was cleared")
	}
	if !bytes.Equal(stdout.Bytes(), data) {
		t.Error("standard output has something else")
	}
	if text, err := os.ReadFile(id); err != nil || string(text) != "sha256:1" {
		t.Errorf("%q %v", text, err)
	}
	if text, err := os.ReadFile(metadata); err != nil || !strings.Contains(string(text), `"size": 1`) {
		t.Errorf("%s %v", text, err)
	}

	// What is cut off leaves nothing in its place.
	o = &outputs{list: []output{{kind: "tar", dest: filepath.Join(dir, "cut")}, {kind: "local", dest: filepath.Join(dir, "kept"), attributes: map[string]string{"mode": "delete"}}}}
	if err := o.receive(t.Context(), s, "0", bytes.NewReader(data[:700])); err != nil {
		t.Fatal(err)
	}
	if err := o.receive(t.Context(), s, "1", bytes.NewReader(data[:700])); err != nil {
		t.Fatal(err)
	}
	if err := o.discard(); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".cut*")); err != nil || len(left) > 0 || there(filepath.Join(dir, "cut")) {
		t.Errorf("left: %v %v", left, err)
	}
	if !there(filepath.Join(dir, "kept/old")) {
		t.Error("a directory was cleared for an archive that was cut off")
	}
}
