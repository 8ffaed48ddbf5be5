package registry_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/fault"
	"berth/registry"
	"berth/registry/registrytest"
)

// distribution starts Debian's docker-registry, open or with one user, and returns its address.
func distribution(t *testing.T, private bool) string {
	t.Helper()
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("no docker-registry in the path: `make packages` installs it")
	}
	dir := t.TempDir()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	config := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage:\n  filesystem: {rootdirectory: %s/data}\n  delete: {enabled: true}\nhttp: {addr: '%s'}\n", dir, address)
	if private {
		config += fmt.Sprintf("auth:\n  htpasswd: {realm: test, path: %s/users}\n", dir)
	}
	user := "ann:$2b$04$5FMWESQV.PGIpuR0Xtn0su7u/JBX4Rh.3pacDWOcahGvgEOWjy2/i\n" // right
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "config.yml"), []byte(config), 0o600), os.WriteFile(filepath.Join(dir, "users"), []byte(user), 0o600)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "serve", filepath.Join(dir, "config.yml"))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("docker-registry says: %s", out.String())
		}
	})
	for deadline := time.Now().Add(20 * time.Second); ; {
		resp, err := http.Get("http://" + address + "/")
		if err == nil {
			resp.Body.Close()
			return address
		}
		if time.Now().After(deadline) {
			t.Fatal("docker-registry does not answer: ", err)
		}
	}
}

// TestDistribution: the field's own registry takes and gives, over connections that break.
func TestDistribution(t *testing.T) {
	for name, auth := range map[string]registry.Auth{"open": {}, "with a user": {Username: "ann", Password: "right"}} {
		t.Run(name, func(t *testing.T) {
			address := distribution(t, auth != registry.Auth{})
			cutter, err := registrytest.NewCutter(address, 1<<20, 6<<20, 2)
			if err != nil {
				t.Fatal(err)
			}
			defer cutter.Close()
			client := registry.NewClient(registry.Options{Backoff: time.Millisecond})
			defer client.Close()
			repo := client.Repository(named(t, cutter.Addr()+"/team/app"), auth)
			layer, data, open := goods(20 << 20)
			config, _, openConfig := goods(50)
			for range 2 { // what is there is taken again without harm
				for _, err := range []error{repo.Put(t.Context(), layer, open), repo.Put(t.Context(), config, openConfig)} {
					if err != nil {
						t.Fatal(err)
					}
				}
			}
			text, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageManifest,
				"config": map[string]any{"mediaType": ocispec.MediaTypeImageConfig, "digest": config.Digest, "size": config.Size},
				"layers": []any{map[string]any{"mediaType": ocispec.MediaTypeImageLayer, "digest": layer.Digest, "size": layer.Size}}})
			if err != nil {
				t.Fatal(err)
			}
			manifest := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(text), Size: int64(len(text))}
			for _, tag := range []string{"", "v1", "v2"} {
				if err := repo.PutManifest(t.Context(), manifest, text, tag); err != nil {
					t.Fatal(err)
				}
			}
			ref := named(t, cutter.Addr()+"/team/app:v2")
			if got, err := client.Resolve(t.Context(), ref, auth); err != nil || got.Digest != manifest.Digest || got.Size != manifest.Size {
				t.Errorf("resolved to %v, %v", got, err)
			}
			body, err := repo.Fetch(t.Context(), layer, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer body.Close()
			if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, data) {
				t.Errorf("got %d bytes, %v", len(got), err)
			}
			if tags, err := client.Tags(t.Context(), ref, auth); err != nil || !slices.Equal(tags, []string{"v1", "v2"}) {
				t.Errorf("tags: %v, %v", tags, err)
			}
			other := client.Repository(named(t, cutter.Addr()+"/team/other"), auth)
			if ok, err := other.Mount(t.Context(), layer, named(t, cutter.Addr()+"/team/app")); !ok || err != nil {
				t.Errorf("mount: %v, %v", ok, err)
			}
			if ok, err := other.Mount(t.Context(), ocispec.Descriptor{Digest: digest.FromString("x")}, named(t, cutter.Addr()+"/team/app")); ok || err != nil {
				t.Errorf("mount of what is nowhere: %v, %v", ok, err)
			}
			for desc, want := range map[*ocispec.Descriptor]bool{&layer: true, &config: false} {
				if has, err := other.Has(t.Context(), *desc); has != want || err != nil {
					t.Errorf("after the mount: has %v, %v", has, err)
				}
			}
			if status, _, err := client.Login(t.Context(), address, auth); auth.Username != "" && (err != nil || status != "Login Succeeded") {
				t.Errorf("login: %q, %v", status, err)
			}
			_, err = client.Resolve(t.Context(), named(t, address+"/team/app:none"), auth)
			if !errors.Is(err, fault.NotFound) || !strings.HasSuffix(err.Error(), "team/app:none: not found") {
				t.Errorf("an unknown tag: %v", err)
			}
		})
	}
}
