package build

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"

	"berth/archive"
	"berth/build/dockerfile"
	"berth/union"
)

// copiedKey adds what a Copy brings to its key.
func (d *doing) copiedKey(ctx context.Context, k *key, do *dockerfile.Copy) error {
	add := func(parts map[string]string) error {
		return d.copied(ctx, do, func(from *Files) error { return d.sources(ctx, from, do, parts) })
	}
	if do.From == nil {
		return add(k.parts)
	}
	other, err := d.wait(ctx, do.From)
	if err != nil {
		return err
	}
	if other.tree != nil && !other.tree.whole {
		return add(k.parts)
	}
	// Layers never change: what is found in them is worked out once.
	what, err := json.Marshal(struct {
		Sources []dockerfile.Source
		Parents bool
		Exclude []string
	}{do.Sources, do.Parents, do.Exclude})
	if err != nil {
		return err
	}
	place := treePart{chain(other.layers), "copied " + string(what)}
	known, ok := d.Cache.trees.Load(place)
	if !ok {
		parts := map[string]string{}
		if err := add(parts); err != nil {
			return err
		}
		known = parts
		if len(parts) <= maxRemembered {
			d.Cache.trees.Store(place, known)
		}
	}
	maps.Copy(k.parts, known.(map[string]string))
	return nil
}

// maxRemembered is of how many files what is copied from a stage is remembered.
const maxRemembered = 1000

// sources adds the digests of all that a Copy brings.
func (d *doing) sources(ctx context.Context, from *Files, do *dockerfile.Copy, parts map[string]string) error {
	list, err := d.find(ctx, from.Top, do)
	if err != nil {
		return err
	}
	b := &bringing{doing: d, do: do}
	if b.exclude, err = matcher(do.Exclude); err != nil {
		return err
	}
	for n, f := range list {
		if in := f.source.Inline; in != nil {
			parts["document "+in.Name] = in.Data
			continue
		}
		parts[fmt.Sprintf("source %d", n)] = fmt.Sprint(f.name, f.dir, f.source.Unpack)
		if f.remote != nil {
			parts[place(f.source)] = f.remote.Key
			continue
		}
		var failed error
		var leave func(name string) bool
		if b.exclude != nil {
			leave = func(name string) bool { return b.excluded(f, name, &failed) }
		}
		if err := errors.Join(digestOf(ctx, from, f.path, leave, "file ", parts), failed); err != nil {
			return err
		}
	}
	return nil
}

// maxNamed is how many files of one source are told apart; of more, a digest of each directory is kept.
const maxNamed = 5000

// digestOf adds the digests of what p has, file by file: times are left out, and so is the top itself, and what leave says (nil: nothing), which is
// given names below p, that of p being "".
func digestOf(ctx context.Context, files *Files, p string, leave func(name string) bool, prefix string, parts map[string]string) error {
	all := map[string]string{}
	top := strings.Trim(path.Clean("/"+p), "/")
	add := func(hdr *tar.Header, content string) {
		name := strings.Trim(hdr.Name, "/")
		if name == "" {
			return
		}
		if leave != nil && leave(strings.Trim(strings.TrimPrefix(name, top), "/")) {
			return
		}
		all[prefix+name] = sumOf(hdr, content)
	}
	if files.Each == nil || !files.Each(p, add) {
		if err := readAll(ctx, files.Top, p, add); err != nil {
			return err
		}
	}
	if len(all) <= maxNamed {
		maps.Copy(parts, all)
		return nil
	}
	for name, sum := range grouped(all, prefix, top) {
		parts[name] = sum
	}
	return nil
}

// grouped has one digest for each directory that lies at p, of so many files that they can't be told one by one.
func grouped(all map[string]string, prefix, p string) map[string]string {
	if p != "" {
		p += "/"
	}
	groups := map[string]hash.Hash{}
	sums := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		inner, deeper := strings.CutPrefix(strings.TrimPrefix(name, prefix), p)
		first, _, more := strings.Cut(inner, "/")
		if !deeper || !more && len(sums) < maxNamed {
			sums[name] = all[name]
			continue
		}
		group := "files below " + p + first
		if len(groups) >= maxNamed || !more {
			group = "files of /" + p
		}
		h := groups[group]
		if h == nil {
			h = sha256.New()
			groups[group] = h
		}
		fmt.Fprintf(h, "%q %s\n", name, all[name])
	}
	for group, h := range groups {
		sums[group] = hex.EncodeToString(h.Sum(nil))
	}
	return sums
}

// sumOf is a digest of all of a member but its name and times.
func sumOf(hdr *tar.Header, content string) string {
	b := make([]byte, 0, 256)
	b = append(b, hdr.Typeflag)
	for _, n := range []int64{hdr.Mode & 0o7777, int64(hdr.Uid), int64(hdr.Gid), hdr.Devmajor, hdr.Devminor} {
		b = append(strconv.AppendInt(b, n, 10), ' ')
	}
	b = append(strconv.AppendQuote(b, hdr.Linkname), content...)
	if len(hdr.PAXRecords) > 0 {
		for _, name := range slices.Sorted(maps.Keys(hdr.PAXRecords)) {
			if strings.HasPrefix(name, xattr) { // others are of how the archive was written
				b = strconv.AppendQuote(strconv.AppendQuote(b, name), hdr.PAXRecords[name])
			}
		}
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// xattr begins the records of extended attributes.
const xattr = "SCHILY.xattr."

// readAll is Files.Each for a tree of which nothing is known.
func readAll(ctx context.Context, top *os.File, p string, fn func(hdr *tar.Header, digest string)) error {
	r, w := io.Pipe()
	packed := make(chan struct{})
	defer func() {
		r.CloseWithError(io.ErrClosedPipe)
		<-packed
	}()
	go func() {
		defer close(packed)
		packer := archive.NewPacker(ctx, w, archive.PackOptions{})
		err := packer.AddPath(top, p, strings.TrimPrefix(path.Clean(p), "/"))
		if err == nil {
			err = packer.Close()
		}
		w.CloseWithError(err)
	}()
	tr := tar.NewReader(r)
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		content := ""
		if err == nil && hdr.Typeflag == tar.TypeLink {
			hdr.Linkname = strings.TrimPrefix(hdr.Linkname, "/")
		}
		if err == nil && hdr.Typeflag == tar.TypeReg {
			h := sha256.New()
			_, err = io.Copy(h, tr)
			content = hex.EncodeToString(h.Sum(nil))
		}
		if err != nil {
			return err
		}
		fn(hdr, content)
	}
}

// view shows a stage's files to those that copy from it, while the build lasts. The zero value is ready.
type view struct {
	once  sync.Once
	files *Files
	err   error
	done  chan struct{}
	ended chan error
}

// open makes the view at the first call.
func (v *view) open(b *Builder, layers digest.Digest) (*Files, error) {
	v.once.Do(func() {
		id := b.NewID()
		root, err := b.Layers.Create(id, layers, nil)
		if err != nil {
			v.err = err
			return
		}
		ready, done, ended := make(chan *os.File), make(chan struct{}), make(chan error, 1)
		go func() {
			err := union.View(root, func(top *os.File) error {
				ready <- top
				<-done
				return nil
			})
			ended <- errors.Join(err, b.Layers.Delete(id))
		}()
		select {
		case top := <-ready:
			v.files, v.done, v.ended = &Files{Top: top}, done, ended
		case v.err = <-ended:
		}
	})
	return v.files, v.err
}

// close ends the view when nobody looks any more.
func (v *view) close() error {
	if v.done == nil {
		return nil
	}
	close(v.done)
	return <-v.ended
}
