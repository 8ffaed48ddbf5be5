package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

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
	if err := k.settings(d.Settings); err != nil {
		return err
	}
	if do.Script != nil {
		k.parts["script"] = do.Script.Data
	}
	for _, kv := range do.Env {
		name, value, _ := strings.Cut(kv, "=")
		k.parts["env "+name] = value
	}
	for n, m := range do.Mounts {
		text, err := json.Marshal(m.Shape())
		if err != nil {
			return err
		}
		// A mount that comes later hides what lies below it.
		k.parts["mount "+m.Target+m.Env] += fmt.Sprintf("%d %s", n, text)
		if m.Type != "bind" { // nothing else is any part of what a result is kept under
			continue
		}
		if err := d.bindKey(ctx, k, &m); err != nil {
			return err
		}
	}
	return nil
}

// settings adds those by which a program can come to something else. How much it may use of the machine decides whether it ends well, and no result
// is kept of one that doesn't.
func (k *key) settings(s Settings) error {
	if len(s.Hosts) > 0 {
		k.parts["hosts"] = strings.Join(s.Hosts, "\n")
	}
	if s.ShmSize > 0 {
		k.parts["shm"] = strconv.FormatInt(s.ShmSize, 10)
	}
	for name, list := range map[string]any{"ulimits": s.Ulimits, "rights": s.SecurityOpt} {
		text, err := json.Marshal(list)
		if err != nil {
			return err
		}
		if string(text) != "null" && string(text) != "[]" {
			k.parts[name] = string(text)
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
	return d.copiedKey(ctx, k, do)
}
