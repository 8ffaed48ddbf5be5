package conform

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"berth/archive/compress"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// built is an image as far as builders are compared by it.
type built struct {
	failed string // why there is none
	tree   map[string]*inode
	config map[string]string // by field, as JSON
}

// inode is a file of an image; names of one file have one.
type inode struct {
	hdr  tar.Header
	data [32]byte
}

// readImage reads what "save" wrote.
func readImage(archive []byte) (*built, error) {
	members := map[string][]byte{}
	tr := tar.NewReader(bytes.NewReader(archive))
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		name := path.Clean(hdr.Name)
		if hdr.Typeflag == tar.TypeSymlink { // older engines save a layer once
			members[name] = members[path.Join(path.Dir(name), hdr.Linkname)]
			continue
		}
		if members[name], err = io.ReadAll(tr); err != nil {
			return nil, err
		}
	}
	var list []struct {
		Config string
		Layers []string
	}
	if err := json.Unmarshal(members["manifest.json"], &list); err != nil || len(list) != 1 {
		return nil, fmt.Errorf("manifest.json: %w, %d images", err, len(list))
	}
	b := &built{tree: map[string]*inode{}}
	for _, l := range list[0].Layers {
		if err := b.layer(members[l]); err != nil {
			return nil, fmt.Errorf("layer %s: %w", l, err)
		}
	}
	return b, b.settings(members[list[0].Config])
}

// layer puts a layer on what is below.
func (b *built) layer(data []byte) error {
	plain, _, err := compress.Open(bytes.NewReader(data))
	if err != nil {
		return err
	}
	defer plain.Close()
	below := maps.Clone(b.tree)
	remove := func(p string, self bool) {
		for name := range below {
			if self && name == p || strings.HasPrefix(name, strings.TrimSuffix(p, "/")+"/") {
				delete(b.tree, name)
			}
		}
	}
	tr := tar.NewReader(plain)
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := path.Clean("/" + hdr.Name)
		if gone, ok := strings.CutPrefix(path.Base(name), ".wh."); ok {
			if gone == ".wh..opq" {
				remove(path.Dir(name), false)
			} else {
				remove(path.Join(path.Dir(name), gone), true)
			}
			continue
		}
		if hdr.Typeflag == tar.TypeLink {
			b.tree[name] = b.tree[path.Clean("/"+hdr.Linkname)]
			continue
		}
		if hdr.Typeflag != tar.TypeDir {
			remove(name, true)
		}
		n := &inode{hdr: *hdr}
		h := sha256.New()
		if _, err := io.Copy(h, tr); err != nil {
			return err
		}
		copy(n.data[:], h.Sum(nil))
		b.tree[name] = n
	}
}

// settings reads an image's config; what no builder decides is left out.
func (b *built) settings(data []byte) error {
	var c struct {
		Author       string
		Architecture string
		OS           string
		Config       map[string]json.RawMessage
		History      []ocispec.History
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return err
	}
	b.config = map[string]string{"Author": c.Author, "Platform": c.OS + "/" + c.Architecture}
	for _, field := range []string{"Env", "Cmd", "Entrypoint", "User", "WorkingDir", "Labels", "ExposedPorts", "Volumes", "OnBuild", "StopSignal", "Healthcheck", "Shell"} {
		switch text := string(c.Config[field]); text {
		case "null", `""`, "{}", "[]", "false":
		default:
			b.config[field] = text
		}
	}
	layers := ""
	for _, h := range c.History {
		if h.EmptyLayer {
			layers += "."
		} else {
			layers += "L"
		}
	}
	b.config["Layers"] = layers
	return nil
}

// recent is when what has no time of its own was made, or after that.
var recent = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

// show writes all about a file that two builders have in common.
func (b *built) show(name string, dirTimes bool) string {
	n := b.tree[name]
	if n == nil {
		return "is not there"
	}
	h := n.hdr
	text := fmt.Sprintf("%c %04o %d:%d", h.Typeflag, h.Mode&0o7777, h.Uid, h.Gid)
	switch h.Typeflag {
	case tar.TypeReg:
		text += fmt.Sprintf(" %d bytes %x", h.Size, n.data[:4])
	case tar.TypeSymlink:
		text += " -> " + h.Linkname
	case tar.TypeChar, tar.TypeBlock:
		text += fmt.Sprintf(" %d,%d", h.Devmajor, h.Devminor)
	}
	for _, key := range slices.Sorted(maps.Keys(h.PAXRecords)) {
		if x, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok {
			text += fmt.Sprintf(" %s=%q", x, h.PAXRecords[key])
		}
	}
	if h.ModTime.Before(recent) && (dirTimes || h.Typeflag != tar.TypeDir) {
		text += h.ModTime.UTC().Format(" 2006-01-02T15:04:05")
	}
	var names []string
	for other, o := range b.tree {
		if o == n && other != name {
			names = append(names, other)
		}
	}
	slices.Sort(names)
	if len(names) > 0 {
		text += " also called " + strings.Join(names, " ")
	}
	return text
}

// compare lists where an image of ours differs from a peer's, each as "WHAT: how". Two things are not compared: the times of directories with docker.io's
// BuildKit, whose context has none, and the number of empty lines of history with its classic builder, which makes no layer for a directory that is there.
func compare(peer string, a, b *built) (all []string) {
	if a.failed != "" || b.failed != "" {
		if (a.failed == "") != (b.failed == "") {
			all = append(all, fmt.Sprintf("outcome: ours %q, theirs %q", a.failed, b.failed))
		}
		return all
	}
	names := maps.Clone(a.tree)
	maps.Copy(names, b.tree)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if x, y := a.show(name, peer == "classic"), b.show(name, peer == "classic"); x != y {
			all = append(all, fmt.Sprintf("%s: ours %s, theirs %s", name, x, y))
		}
	}
	fields := maps.Clone(a.config)
	maps.Copy(fields, b.config)
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if x, y := a.config[name], b.config[name]; x != y && (peer != "classic" || name != "Layers") {
			all = append(all, fmt.Sprintf("%s: ours %s, theirs %s", name, x, y))
		}
	}
	return all
}
