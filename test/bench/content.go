package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// The images that are measured with. Their content is Debian's own files, so that it compresses as images do.
const (
	tenLayers = "ten"    // ten layers of 20 MB in 740 files each
	tenFiles  = "large"  // ten layers of one file of 20 MB each
	oneLayer  = "debian" // a Debian root in one layer
)

// descriptor is the part of an OCI descriptor that is needed here.
type descriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
}

// manifest is an image's manifest, schema 2, which every engine takes.
type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
}

// contentDir is where the images lie: NAME.json is the manifest of one, HEX a blob, NAME.tar and NAME.tar.gz a docker-archive of it.
func contentDir() string { return filepath.Join(cache(), "bench-images") }

// makeContent makes the images once; later runs use them again.
func makeContent() error {
	root := filepath.Join(cache(), "debian.tar")
	if _, err := os.Stat(root); err != nil {
		return fmt.Errorf("no Debian root file system: `make fixtures` makes it: %w", err)
	}
	dir := contentDir()
	if _, err := os.Stat(filepath.Join(dir, "ready-2")); err == nil {
		return nil
	}
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		return err
	}
	fmt.Println("making images to measure with")
	members, err := regularFiles(root)
	if err != nil {
		return err
	}
	debian, err := os.ReadFile(root)
	if err != nil {
		return err
	}
	for name, layers := range map[string][][]byte{tenLayers: manyFiles(members), tenFiles: largeFiles(members), oneLayer: {debian}} {
		if err := makeImage(dir, name, layers); err != nil {
			return fmt.Errorf("make image %s: %w", name, err)
		}
	}
	return os.WriteFile(filepath.Join(dir, "ready-2"), nil, 0o644)
}

// regularFiles reads the archive's files.
func regularFiles(path string) (list [][]byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	t := tar.NewReader(f)
	for {
		h, err := t.Next()
		if err == io.EOF {
			return list, nil
		}
		if err != nil {
			return nil, err
		}
		if h.Typeflag != tar.TypeReg || h.Size > 4<<20 { // a few programs would fill a layer alone
			continue
		}
		data, err := io.ReadAll(t)
		if err != nil {
			return nil, err
		}
		list = append(list, data)
	}
}

// manyFiles makes layers of 742 files and 20 MB each: pieces of all files in turn, of 2 to 52 KB.
func manyFiles(members [][]byte) (layers [][]byte) {
	all := bytes.Join(members, nil)
	for l := range 10 {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		at := l * len(all) / 10
		for k := range 742 {
			if k%20 == 0 {
				w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: fmt.Sprintf("usr/share/l%d/d%d/", l, k/20), Mode: 0o755})
			}
			size := 2000 + 50_000*(k*7%100)/100
			if at+size > len(all) {
				at = 0
			}
			w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("usr/share/l%d/d%d/f%d", l, k/20, k), Mode: 0o644, Size: int64(size)})
			w.Write(all[at : at+size])
			at += size
		}
		w.Close()
		layers = append(layers, b.Bytes())
	}
	return layers
}

// largeFiles makes layers of one file of 20 MB each.
func largeFiles(members [][]byte) (layers [][]byte) {
	all := bytes.Join(members, nil)
	for l := range 10 {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		from := l * 20_000_000 % (len(all) - 20_000_000)
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("large%d", l), Mode: 0o644, Size: 20_000_000})
		fmt.Fprintf(w, "%08d", l) // no two are the same
		w.Write(all[from+8 : from+20_000_000])
		w.Close()
		layers = append(layers, b.Bytes())
	}
	return layers
}

func makeImage(dir, name string, layers [][]byte) error {
	m := manifest{SchemaVersion: 2, MediaType: "application/vnd.docker.distribution.manifest.v2+json"}
	type rootfs struct {
		Type  string   `json:"type"`
		Diffs []string `json:"diff_ids"`
	}
	config := struct {
		OS     string         `json:"os"`
		Arch   string         `json:"architecture"`
		Config map[string]any `json:"config"`
		RootFS rootfs         `json:"rootfs"`
	}{"linux", runtime.GOARCH, map[string]any{"Cmd": []string{"/bin/sh"}}, rootfs{Type: "layers"}}
	for _, plain := range layers {
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		w.Write(plain)
		w.Close()
		d, err := keepBlob(dir, "application/vnd.docker.image.rootfs.diff.tar.gzip", z.Bytes())
		if err != nil {
			return err
		}
		m.Layers = append(m.Layers, d)
		config.RootFS.Diffs = append(config.RootFS.Diffs, sum(plain))
	}
	data, err := json.Marshal(config)
	if err != nil {
		return err
	}
	if m.Config, err = keepBlob(dir, "application/vnd.docker.container.image.v1+json", data); err != nil {
		return err
	}
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, name+".json"), text, 0o644); err != nil {
		return err
	}
	return makeArchive(filepath.Join(dir, name+".tar"), name, data, layers)
}

func keepBlob(dir, mediaType string, data []byte) (descriptor, error) {
	d := descriptor{mediaType, sum(data), int64(len(data))}
	return d, os.WriteFile(filepath.Join(dir, strings.TrimPrefix(d.Digest, "sha256:")), data, 0o644)
}

func sum(data []byte) string {
	s := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(s[:])
}

// makeArchive writes what `docker save` of Debian's docker.io writes: plain layers and a table of contents; and the same in gzip.
func makeArchive(path, name string, config []byte, layers [][]byte) error {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(name string, data []byte) {
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data))})
		w.Write(data)
	}
	var names []string
	for i, plain := range layers {
		names = append(names, fmt.Sprintf("layer%d/layer.tar", i))
		add(names[i], plain)
	}
	add("config.json", config)
	table, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{name + ":loaded"}, "Layers": names}})
	if err != nil {
		return err
	}
	add("manifest.json", table)
	if err := w.Close(); err != nil {
		return err
	}
	var z bytes.Buffer
	zw := gzip.NewWriter(&z)
	zw.Write(b.Bytes())
	zw.Close()
	return errors.Join(os.WriteFile(path, b.Bytes(), 0o644), os.WriteFile(path+".gz", z.Bytes(), 0o644))
}

// readManifest returns the manifest of one of the images.
func readManifest(name string) (m manifest, data []byte, err error) {
	if data, err = os.ReadFile(filepath.Join(contentDir(), name+".json")); err == nil {
		err = json.Unmarshal(data, &m)
	}
	return m, data, err
}

// readBlob returns a blob of one of the images.
func readBlob(d descriptor) ([]byte, error) {
	return os.ReadFile(filepath.Join(contentDir(), strings.TrimPrefix(d.Digest, "sha256:")))
}
