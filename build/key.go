package build

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"berth/archive"
	"berth/build/dockerfile"
)

// key is what a step's result is kept under: all that it could see, part by part, so that a difference can be named.
type key struct {
	place string            // which step it is, however it looks
	parts map[string]string // "base", "command", "env NAME", "file PATH" …
}

// hash is the key's own name.
func (k *key) hash() string {
	text, err := json.Marshal(k.parts) // maps are written sorted
	if err != nil {
		panic(err) // strings
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// newKey looks at all that the step will see.
func (d *doing) newKey(ctx context.Context) (*key, error) {
	k := &key{parts: map[string]string{"base": string(chain(d.below))}}
	k.place = fmt.Sprintf("%s %d %s", d.s.Name, d.st.Number, strings.SplitN(d.st.Text, " ", 2)[0])
	if e := d.Plan.Epoch; e != nil {
		k.parts["SOURCE_DATE_EPOCH"] = e.String()
	}
	switch do := d.st.Do.(type) {
	case *dockerfile.Mkdir:
		k.parts["command"], k.parts["user"] = "mkdir "+do.Path, do.User
	case *dockerfile.Run:
		return k, d.runKey(ctx, k, do)
	case *dockerfile.Copy:
		return k, d.copyKey(ctx, k, do)
	}
	return k, nil
}

func (d *doing) runKey(ctx context.Context, k *key, do *dockerfile.Run) error {
	k.parts["command"] = "run " + strings.Join(do.Args, "\x00")
	k.parts["directory"], k.parts["user"], k.parts["network"], k.parts["security"] = do.Dir, do.User, do.Network, do.Security
	k.parts["platform"] = d.s.Platform.Architecture
	if do.Script != nil {
		k.parts["script"] = do.Script.Data
	}
	for _, kv := range do.Env {
		name, value, _ := strings.Cut(kv, "=")
		k.parts["env "+name] = value
	}
	for _, m := range do.Mounts {
		text, err := json.Marshal(m.Shape())
		if err != nil {
			return err
		}
		k.parts["mount "+m.Target+m.Env] = string(text)
		if m.Type != "bind" { // nothing else is any part of what a result is kept under
			continue
		}
		if err := d.bindKey(ctx, k, &m); err != nil {
			return err
		}
	}
	return nil
}

func (d *doing) copyKey(ctx context.Context, k *key, do *dockerfile.Copy) error {
	shape := *do
	shape.From, shape.Sources = nil, nil
	text, err := json.Marshal(shape)
	if err != nil {
		return err
	}
	k.parts["command"] = "copy " + string(text)
	return d.copied(ctx, do, func(from *os.File) error {
		list, err := d.find(ctx, from, do)
		if err != nil {
			return err
		}
		for n, f := range list {
			if in := f.source.Inline; in != nil {
				k.parts["document "+in.Name] = in.Data
				continue
			}
			k.parts[fmt.Sprintf("source %d", n)] = fmt.Sprint(f.name, f.dir, f.source.Unpack)
			if f.remote != nil {
				k.parts[place(f.source)] = f.remote.Key
				continue
			}
			if err := digestOf(ctx, from, f.path, "file ", k.parts); err != nil {
				return err
			}
		}
		return nil
	})
}

// maxNamed is how many files of one source are told apart; of more, a digest of all is kept.
const maxNamed = 5000

// digestOf adds the digests of what p has, file by file, times left out.
func digestOf(ctx context.Context, root *os.File, p, prefix string, parts map[string]string) error {
	r, w := io.Pipe()
	go func() {
		packer := archive.NewPacker(ctx, w, archive.PackOptions{})
		err := packer.AddPath(root, p, strings.TrimPrefix(p, "/"))
		if err == nil {
			err = packer.Close()
		}
		w.CloseWithError(err)
	}()
	all := map[string]string{}
	tr := tar.NewReader(r)
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			r.CloseWithError(err)
			return err
		}
		h := sha256.New()
		fmt.Fprintln(h, hdr.Typeflag, hdr.Mode, hdr.Uid, hdr.Gid, hdr.Linkname, hdr.Devmajor, hdr.Devminor, hdr.PAXRecords)
		if _, err := io.Copy(h, tr); err != nil {
			r.CloseWithError(err)
			return err
		}
		all[prefix+strings.TrimSuffix(hdr.Name, "/")] = hex.EncodeToString(h.Sum(nil)[:16])
	}
	if len(all) <= maxNamed {
		maps.Copy(parts, all)
		return nil
	}
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintln(h, name, all[name])
	}
	parts["files below "+p] = hex.EncodeToString(h.Sum(nil))
	return nil
}
