package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Where a world's registries listen: one has the images, the other gets them and is empty each time.
const (
	sourceAddress = "127.0.0.1:5000"
	targetAddress = "127.0.0.1:5001"
)

// shop is a registry in this worker's world.
type shop struct {
	cmd  *exec.Cmd
	root string
}

// openShop starts Debian's docker-registry at address, with nothing in it.
func openShop(root, address string) (*shop, error) {
	path, err := exec.LookPath("docker-registry")
	if err != nil {
		return nil, fmt.Errorf("docker-registry is missing: it comes with the package docker-registry")
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return nil, err
	}
	config := filepath.Join(root, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s/data}}\nhttp: {addr: %q}\n", root, address)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return nil, err
	}
	cmd := exec.Command(path, "serve", config)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &shop{cmd, root}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
			return s, nil
		}
		if time.Now().After(deadline) {
			return nil, errors.Join(err, s.close())
		}
	}
}

func (s *shop) close() error {
	s.cmd.Process.Signal(syscall.SIGKILL)
	s.cmd.Wait()
	return os.RemoveAll(s.root)
}

// shops are the registries of a world.
type shops struct{ source, target *shop }

// stock opens the registry that has the images.
func (s *shops) stock(dir string) error {
	if s.source != nil {
		return nil
	}
	var err error
	if s.source, err = openShop(filepath.Join(dir, "source"), sourceAddress); err != nil {
		return err
	}
	for _, name := range []string{tenLayers, tenFiles, oneLayer} {
		m, text, err := readManifest(name)
		if err != nil {
			return err
		}
		for _, d := range append(m.Layers, m.Config) {
			if err := upload(sourceAddress, name, d); err != nil {
				return fmt.Errorf("upload %s: %w", d.Digest, err)
			}
		}
		if _, err := ask(http.MethodPut, "http://"+sourceAddress+"/v2/"+name+"/manifests/latest", m.MediaType, text); err != nil {
			return err
		}
	}
	return nil
}

func upload(address, name string, d descriptor) error {
	data, err := readBlob(d)
	if err != nil {
		return err
	}
	to, err := ask(http.MethodPost, "http://"+address+"/v2/"+name+"/blobs/uploads/", "", nil)
	if err != nil {
		return err
	}
	_, err = ask(http.MethodPut, to+"&digest="+d.Digest, "application/octet-stream", data)
	return err
}

// ask makes one request and returns the place that the answer names.
func ask(method, url, mediaType string, data []byte) (string, error) {
	q, err := http.NewRequest(method, url, bytes.NewReader(data))
	if err != nil {
		return "", err
	}
	if mediaType != "" {
		q.Header.Set("Content-Type", mediaType)
	}
	resp, err := http.DefaultClient.Do(q)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	if resp.StatusCode/100 != 2 {
		return "", fmt.Errorf("%s %s: %s: %s", method, url, resp.Status, text)
	}
	return resp.Header.Get("Location"), nil
}

// empty replaces the registry that is pushed to.
func (s *shops) empty(dir string) (err error) {
	if s.target != nil {
		if err := s.target.close(); err != nil {
			return err
		}
	}
	s.target, err = openShop(filepath.Join(dir, "target"), targetAddress)
	return err
}

func (s *shops) close() (err error) {
	for _, one := range []*shop{s.source, s.target} {
		if one != nil {
			err = errors.Join(err, one.close())
		}
	}
	return err
}

// without removes images, where the engine has them, so that the next step brings them anew.
func without(e engine, names ...string) {
	for _, n := range names {
		timed(e.client("rmi", "-f", n))
	}
	// Where images of an equal content have other names, nothing would be unpacked.
	if out, err := e.client("images", "-q", "--no-trunc").Output(); err == nil && len(strings.Fields(string(out))) > 1 {
		timed(e.client("image", "prune", "-f"))
	}
}

// every other image goes before one comes, so that the engine has none of the content.
func everything() (names []string) {
	for _, n := range []string{tenLayers, tenFiles, oneLayer} {
		names = append(names, sourceAddress+"/"+n, targetAddress+"/"+n, n+":loaded", n+":imported")
	}
	return names
}

// cleared brings the engine to the start of a pull.
func cleared(e engine) error {
	b := e.common()
	if err := b.open.stock(b.dir); err != nil {
		return err
	}
	without(e, everything()...)
	return nil
}

func pulling(name string) measurement {
	return measurement{unit: "ms", slow: true, observe: true, floor: name, prepare: cleared, run: func(e engine) (float64, error) {
		return timed(e.client("pull", sourceAddress+"/"+name))
	}}
}

// having clears the engine and pulls the image first.
func having(name string) func(engine) error {
	return func(e engine) error {
		if _, err := timed(e.client("inspect", "--type", "image", sourceAddress+"/"+name)); err == nil {
			return nil // a saved or pushed image is as good as before
		}
		if err := cleared(e); err != nil {
			return err
		}
		_, err := timed(e.client("pull", sourceAddress+"/"+name))
		return err
	}
}

func saving(name string) measurement {
	return measurement{unit: "ms", slow: true, observe: true, prepare: having(name), run: func(e engine) (float64, error) {
		to := filepath.Join(e.common().dir, "saved.tar")
		defer os.Remove(to)
		return timed(e.client("save", "-o", to, sourceAddress+"/"+name))
	}}
}

func loading(name, ending string) measurement {
	return measurement{unit: "ms", slow: true, observe: true, prepare: cleared, run: func(e engine) (float64, error) {
		return timed(e.client("load", "-i", filepath.Join(contentDir(), name+ending)))
	}}
}

func pushing(name string) measurement {
	prepare := func(e engine) error {
		b := e.common()
		if err := errors.Join(having(name)(e), b.open.empty(b.dir)); err != nil {
			return err
		}
		_, err := timed(e.client("tag", sourceAddress+"/"+name, targetAddress+"/"+name))
		return err
	}
	return measurement{unit: "ms", slow: true, observe: true, prepare: prepare, run: func(e engine) (float64, error) {
		return timed(e.client("push", targetAddress+"/"+name))
	}}
}

// uploading sends an image's blobs to the registry side by side and does nothing else: what a push can't be faster than.
func uploading(name string) measurement {
	prepare := func(e engine) error {
		b := e.common()
		return b.open.empty(b.dir)
	}
	return measurement{unit: "ms", slow: true, prepare: prepare, run: func(engine) (float64, error) {
		m, _, err := readManifest(name)
		if err != nil {
			return 0, err
		}
		begin := time.Now()
		done := make(chan error, len(m.Layers))
		for _, d := range m.Layers {
			go func() { done <- upload(targetAddress, name, d) }()
		}
		for range m.Layers {
			err = errors.Join(err, <-done)
		}
		return float64(time.Since(begin).Microseconds()) / 1000, err
	}}
}

func called(name string, m measurement) measurement {
	m.name = name
	return m
}

var imageMeasurements = []measurement{
	called("pull, 10 layers", pulling(tenLayers)),
	called("save, 10 layers", saving(tenLayers)),
	called("push, 10 layers", pushing(tenLayers)),
	called("bare upload, 10 layers", uploading(tenLayers)),
	called("pull, 10 large files", pulling(tenFiles)),
	called("pull, Debian", pulling(oneLayer)),
	called("save, Debian", saving(oneLayer)),
	called("push, Debian", pushing(oneLayer)),
	called("bare upload, Debian", uploading(oneLayer)),
	called("load, Debian", loading(oneLayer, ".tar")),
	called("load, Debian, gzip", loading(oneLayer, ".tar.gz")),
	called("load, 10 layers", loading(tenLayers, ".tar")),
	called("import, Debian", measurement{unit: "ms", slow: true, observe: true, prepare: cleared, run: func(e engine) (float64, error) {
		return timed(e.client("import", filepath.Join(cache(), "debian.tar"), oneLayer+":imported"))
	}}),
	called("commit, 2,000 files and 32 MB", measurement{unit: "ms", slow: true, observe: true, prepare: func(e engine) error {
		timed(e.client("rmi", "-f", "benched"))
		timed(e.client("rm", "-f", "measured"))
		_, err := timed(e.client("run", "--name", "measured", "--network", "none", "busybox", "sh", "-c", fillScript))
		return err
	}, run: func(e engine) (float64, error) {
		return timed(e.client("commit", "measured", "benched"))
	}}),
}
