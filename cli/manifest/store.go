// Package manifest has the commands that put images of several platforms under one name: lists of manifests.
//
// It asks no registry itself: the engine does. A list in the making is kept beside the client's configuration, in the form that docker
// keeps it in, so that either program can go on with what the other began.
// Invariant: what is kept of a manifest are the registry's own bytes, so that its digest stays.
package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"berth/cli/reference"
	"berth/cli/session"
	"berth/fault"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types of Docker's, beside those of OCI.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// entry is one image's manifest in a list; the fields' names are those of docker's files.
type entry struct {
	Ref              string
	Descriptor       ocispec.Descriptor
	Raw              []byte          `json:",omitempty"`
	SchemaV2Manifest json.RawMessage `json:",omitempty"`
	OCIManifest      json.RawMessage `json:",omitempty"`
}

// newEntry makes an entry of a registry's answer.
func newEntry(ref string, desc ocispec.Descriptor, text []byte) (entry, error) {
	e := entry{Ref: ref, Descriptor: desc, Raw: text}
	switch desc.MediaType {
	case dockerManifest:
		e.SchemaV2Manifest = text
	case ocispec.MediaTypeImageManifest:
		e.OCIManifest = text
	case dockerList, ocispec.MediaTypeImageIndex:
		return entry{}, fmt.Errorf("%s is a manifest list", ref)
	default:
		return entry{}, fmt.Errorf("%s is not a manifest: its type is %s", ref, desc.MediaType)
	}
	return e, nil
}

// text is the manifest itself.
func (e *entry) text() []byte {
	switch {
	case len(e.Raw) > 0:
		return e.Raw
	case e.SchemaV2Manifest != nil:
		return e.SchemaV2Manifest
	}
	return e.OCIManifest
}

// store is where lists in the making are: a directory for each, with a file for each of its manifests.
type store struct{ dir string }

func newStore(s *session.Session) store {
	return store{filepath.Join(filepath.Dir(s.Config().Path), "manifests")}
}

// fileName makes a file's name of an image's.
func fileName(ref string) string { return strings.NewReplacer(":", "-", "/", "_").Replace(ref) }

func missing(ref string) error { return fault.New(fault.NotFound, "No such manifest: %s", ref) }

// get reads one manifest of a list. One that isn't there is fault.NotFound.
func (s store) get(list, ref string) (entry, error) {
	return read(filepath.Join(s.dir, fileName(list), fileName(ref)), ref)
}

func read(path, ref string) (entry, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return entry{}, missing(ref)
	}
	if err != nil {
		return entry{}, err
	}
	var e entry
	if err := json.Unmarshal(text, &e); err != nil {
		return e, fmt.Errorf("read %s: %w", path, err)
	}
	if e.Descriptor.Digest == "" {
		return e, fault.New(fault.Invalid, "%s has no descriptor: an old release wrote it; remove the list with '%s manifest rm' and create it again", path, session.Name)
	}
	return e, nil
}

// list reads all manifests of a list, in the order of their files' names.
func (s store) list(list string) ([]entry, error) {
	dir := filepath.Join(s.dir, fileName(list))
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missing(list)
	}
	if err != nil {
		return nil, err
	}
	var all []entry
	for _, f := range files {
		if strings.HasPrefix(f.Name(), ".") {
			continue // a write that was killed
		}
		e, err := read(filepath.Join(dir, f.Name()), list)
		if err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	if len(all) == 0 {
		return nil, missing(list)
	}
	return all, nil
}

// save keeps a manifest of a list.
func (s store) save(list, ref string, e entry) error {
	dir := filepath.Join(s.dir, fileName(list))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".new-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(dir, fileName(ref)))
}

// remove forgets a list.
func (s store) remove(list string) error {
	dir := filepath.Join(s.dir, fileName(list))
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return missing(list)
	}
	return os.RemoveAll(dir)
}

// name reads an image's name; its version is the default tag unless it says one.
func name(text string) (reference.Name, error) {
	r, err := reference.Parse(text)
	return r.Tagged(), err
}

// index is a list as a registry wants it. The order of the fields is docker's, as the digest depends on it.
type index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Manifests     []descriptor `json:"manifests"`
}

type descriptor struct {
	MediaType string   `json:"mediaType,omitempty"`
	Size      int64    `json:"size,omitempty"`
	Digest    string   `json:"digest,omitempty"`
	Platform  platform `json:"platform"`
}

type platform struct {
	Architecture string   `json:"architecture"`
	OS           string   `json:"os"`
	OSVersion    string   `json:"os.version,omitempty"`
	OSFeatures   []string `json:"os.features,omitempty"`
	Variant      string   `json:"variant,omitempty"`
}

// newIndex makes a list of descriptors.
func newIndex(all []ocispec.Descriptor) (mediaType string, text []byte, err error) {
	m := index{SchemaVersion: 2, MediaType: dockerList, Manifests: []descriptor{}}
	if len(all) > 0 && all[0].MediaType == ocispec.MediaTypeImageManifest {
		m.MediaType = ocispec.MediaTypeImageIndex
	}
	for _, d := range all {
		one := descriptor{MediaType: d.MediaType, Size: d.Size, Digest: d.Digest.String()}
		if p := d.Platform; p != nil {
			one.Platform = platform{p.Architecture, p.OS, p.OSVersion, p.OSFeatures, p.Variant}
		}
		m.Manifests = append(m.Manifests, one)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "   ")
	err = e.Encode(m)
	return m.MediaType, bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}
