package config

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"berth/fault"

	"github.com/moby/moby/api/types/registry"
)

// SetAuth records a registry's credentials under server, or that a helper program has them where a has neither name nor token. It tells
// whether anything changed.
func (c *File) SetAuth(server string, a registry.AuthConfig) (changed bool, err error) {
	entry := struct {
		Auth          string `json:"auth,omitempty"`
		IdentityToken string `json:"identitytoken,omitempty"`
	}{IdentityToken: a.IdentityToken}
	if a.Username != "" || a.Password != "" {
		entry.Auth = base64.StdEncoding.EncodeToString([]byte(a.Username + ":" + a.Password))
	}
	return c.edit(func(_, auths *object) (bool, error) {
		var o object
		before, known := auths.get(server)
		if known && json.Unmarshal(before, &o) != nil {
			o = nil
		}
		// What else stands in the entry stays: mail addresses, and what newer programs put there.
		for _, secret := range []string{"auth", "username", "password", "identitytoken", "registrytoken"} {
			o.delete(secret)
		}
		for _, secret := range [][2]string{{"auth", entry.Auth}, {"identitytoken", entry.IdentityToken}} {
			if secret[1] != "" {
				text, err := json.Marshal(secret[1])
				if err != nil {
					return false, err
				}
				o.set(secret[0], text)
			}
		}
		after, err := json.Marshal(o)
		if err != nil {
			return false, err
		}
		auths.set(server, after)
		return !known || !sameJSON(before, after), nil
	})
}

// DeleteAuth forgets the credentials of a server; it is no error that there are none.
func (c *File) DeleteAuth(server string) error {
	_, err := c.edit(func(_, auths *object) (bool, error) { return auths.delete(server), nil })
	return err
}

// SetCredentialsStore records which helper program keeps credentials from now on.
func (c *File) SetCredentialsStore(helper string) error {
	_, err := c.edit(func(all, _ *object) (bool, error) {
		text, err := json.Marshal(helper)
		all.set("credsStore", text)
		return true, err
	})
	if err == nil {
		c.CredentialsStore = helper
	}
	return err
}

// edit changes the file's credentials and leaves all else as it is: others keep their settings there too. change tells whether it changed any.
func (c *File) edit(change func(all, auths *object) (bool, error)) (changed bool, err error) {
	target, err := follow(c.Path)
	if err != nil {
		return false, err
	}
	dir := filepath.Dir(target)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return false, err
	}
	if c.Lock != nil {
		unlock, err := c.Lock(dir)
		if err != nil {
			return false, fmt.Errorf("lock the client's configuration: %w", err)
		}
		defer unlock()
	}
	var all, auths object
	text, err := os.ReadFile(target)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if len(bytes.TrimSpace(text)) > 0 {
		if err := json.Unmarshal(text, &all); err != nil {
			return false, fault.New(fault.Invalid, "%s is not changed, as it can't be read: %s; mend it, or move it away", target, err)
		}
	}
	if old, ok := all.get("auths"); ok {
		if err := json.Unmarshal(old, &auths); err != nil {
			return false, fault.New(fault.Invalid, "%s is not changed, as its auths can't be read: %s; mend it, or move it away", target, err)
		}
	}
	if changed, err = change(&all, &auths); err != nil || !changed {
		return false, err
	}
	inner, err := json.Marshal(auths)
	if err != nil {
		return false, err
	}
	all.set("auths", inner)
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "\t")
	if err := e.Encode(all); err != nil {
		return false, err
	}
	return true, replace(target, out.Bytes())
}

// follow finds the file behind symbolic links, also where the last of them points at nothing yet.
func follow(path string) (string, error) {
	for range 40 {
		to, err := os.Readlink(path)
		if err != nil {
			return path, nil // no link: the file, or nothing
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		path = to
	}
	return "", fault.New(fault.Invalid, "%s: too many symbolic links", path)
}

// replace puts text in a file's place; whenever the power goes, the old or the new one is there. Permissions and owner stay; a new file is its owner's alone.
func replace(path string, text []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if i, statErr := os.Stat(path); statErr == nil {
		if err := f.Chmod(i.Mode().Perm()); err != nil {
			return errors.Join(err, f.Close())
		}
		keepOwner(f, i) // root may write another user's file; who may not is its owner
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func sameJSON(a, b []byte) bool {
	var x, y bytes.Buffer
	return json.Compact(&x, a) == nil && json.Compact(&y, b) == nil && bytes.Equal(x.Bytes(), y.Bytes())
}
