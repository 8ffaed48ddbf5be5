package build

import (
	"archive/tar"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/pflag"
)

// caches are those elsewhere that a build takes from and gives to.
type caches struct{ from, to []string }

func (c *caches) flags(fs *pflag.FlagSet) {
	fs.StringArrayVar(&c.from, "cache-from", nil, "External cache sources (e.g., \"user/app:cache\", \"type=local,src=path/to/dir\")")
	fs.StringArrayVar(&c.to, "cache-to", nil, "Cache export destinations (e.g., \"user/app:cache\", \"type=local,dest=path/to/dir\")")
}

func (c *caches) apply(q url.Values) error {
	for name, list := range map[string][]string{"cachefrom": c.from, "cacheto": c.to} {
		if len(list) == 0 {
			continue
		}
		text, err := json.Marshal(list)
		if err != nil {
			return err
		}
		q.Set(name, string(text))
	}
	return nil
}

// cacheAttributes reads "type=TYPE,KEY=VALUE".
func cacheAttributes(cache string) (map[string]string, error) {
	fields, err := csv.NewReader(strings.NewReader(cache)).Read()
	if err != nil {
		return nil, fmt.Errorf("cache %q: %w", cache, err)
	}
	attrs := map[string]string{}
	for _, f := range fields {
		k, v, _ := strings.Cut(f, "=")
		attrs[strings.ToLower(k)] = v
	}
	return attrs, nil
}

// local gives the directory that a cache lies in; "" when it lies in none.
func local(cache, key string) (string, error) {
	attrs, err := cacheAttributes(cache)
	if err != nil || attrs["type"] != "local" {
		return "", err
	}
	if attrs[key] == "" {
		return "", fmt.Errorf("cache %q: %s is missing", cache, key)
	}
	return attrs[key], nil
}

// lend makes the directories known that caches lie in, as far as they are there, and takes what the daemon gives to others.
func (c *caches) lend(ctx context.Context, a *asked) error {
	for n, text := range c.from {
		dir, err := local(text, "src")
		if err != nil {
			return err
		}
		if dir == "" {
			continue
		}
		if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
			continue // as before the first build: the daemon says that there is none
		}
		d := &directory{path: dir}
		if err := a.add(fmt.Sprint("cache-from:", n), d, "cache"); err != nil {
			return err
		}
		d.begin(ctx, false)
	}
	dirs := map[string]string{}
	for n, text := range c.to {
		dir, err := local(text, "dest")
		if err != nil {
			return err
		}
		if dir != "" {
			dirs[fmt.Sprint("cache-to:", n)] = dir
		}
	}
	if len(dirs) == 0 {
		return nil
	}
	outputs := a.put
	a.put = func(ctx context.Context, name string, from io.Reader) error {
		if dir := dirs[name]; dir != "" {
			return keepCache(dir, from)
		}
		if outputs == nil {
			return fmt.Errorf("there is no output %q", name)
		}
		return outputs(ctx, name, from)
	}
	return nil
}

// ofLayout are the files of an image layout, index.json left out.
var ofLayout = regexp.MustCompile(`^(oci-layout|blobs/sha256/[0-9a-f]{64})$`)

// keepCache puts a cache, an image layout in a tar, into a directory that may have others. The index is written when all else is there.
func keepCache(dir string, from io.Reader) error {
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil {
		return err
	}
	var index []byte
	r := tar.NewReader(from)
	for {
		hdr, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		switch {
		case hdr.Name == "index.json":
			if index, err = io.ReadAll(io.LimitReader(r, 1<<20)); err != nil {
				return err
			}
		case !ofLayout.MatchString(hdr.Name):
			return fmt.Errorf("the daemon sends %q, which is no part of a cache", hdr.Name)
		default:
			if err := replace(filepath.Join(dir, hdr.Name), r); err != nil {
				return err
			}
		}
	}
	if index == nil {
		return errors.New("the daemon sent no whole cache")
	}
	index, err := withOthers(filepath.Join(dir, "index.json"), index)
	if err != nil {
		return err
	}
	return replace(filepath.Join(dir, "index.json"), strings.NewReader(string(index)))
}

// replace writes a file in one step.
func replace(path string, from io.Reader) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-")
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(f.Name()))
	}
	return err
}

// layoutIndex is an index of caches, by their tags.
type layoutIndex struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	Manifests     []json.RawMessage `json:"manifests"`
}

// withOthers adds to an index what the one at path has under other tags.
func withOthers(path string, index []byte) ([]byte, error) {
	var all, before layoutIndex
	if err := json.Unmarshal(index, &all); err != nil {
		return nil, err
	}
	old, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && json.Unmarshal(old, &before) != nil {
		return index, nil
	}
	if err != nil {
		return nil, err
	}
	taken := map[string]bool{}
	for _, m := range all.Manifests {
		taken[tagOf(m)] = true
	}
	for _, m := range before.Manifests {
		if !taken[tagOf(m)] {
			all.Manifests = append(all.Manifests, m)
		}
	}
	return json.Marshal(all)
}

func tagOf(manifest json.RawMessage) string {
	var m struct{ Annotations map[string]string }
	_ = json.Unmarshal(manifest, &m) // what can't be read has no tag
	return m.Annotations["org.opencontainers.image.ref.name"]
}
