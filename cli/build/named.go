package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"berth/build/protocol"
	"berth/fault"

	"github.com/spf13/pflag"
)

// contexts are the build contexts beside the main one.
type contexts struct{ named []string }

func (o *contexts) flags(fs *pflag.FlagSet) {
	fs.StringArrayVar(&o.named, "build-context", nil, "Additional build contexts (e.g., name=path)")
}

// none refuses them where they can't be given.
func (o *contexts) none() error {
	if len(o.named) > 0 {
		return fault.New(fault.Unsupported, "--build-context: the classic builder has no such thing: unset DOCKER_BUILDKIT, or build with berth's own daemon")
	}
	return nil
}

// apply says them in a's request; directories are asked for.
func (o *contexts) apply(ctx context.Context, a *asked) error {
	for _, text := range o.named {
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" || value == "" {
			return fmt.Errorf("invalid context value: %s, expected key=value", text)
		}
		name = strings.TrimSuffix(strings.ToLower(name), ":latest")
		if a.request.Named == nil {
			a.request.Named = map[string]string{}
		}
		a.request.Named[name] = value
		path, isLayout := strings.CutPrefix(value, "oci-layout://")
		switch {
		case isLayout:
			path = layoutPath(path)
		case strings.HasPrefix(value, "docker-image://"), strings.HasPrefix(value, "target:"), isAddress(value):
			continue
		default:
			path = value
			a.request.Named[name] = string(protocol.Local)
		}
		if err := o.add(ctx, a, name, path); err != nil {
			return fmt.Errorf("--build-context %s: %w", name, err)
		}
	}
	return nil
}

// layoutPath is the directory of PATH[:TAG][@DIGEST].
func layoutPath(ref string) string {
	path, _, _ := strings.Cut(ref, "@")
	if k := strings.LastIndex(path, ":"); k > strings.LastIndex(path, "/") {
		path = path[:k]
	}
	return path
}

// add lets the daemon ask for a directory, without what its ignore file names.
func (o *contexts) add(ctx context.Context, a *asked, name, path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("failed to find %q: it is no directory, nor an address", path)
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is not a directory", path)
	}
	c := &files{dir: path}
	if err := c.readIgnore(path + "/"); err != nil {
		return err
	}
	d := &directory{path: path, leave: c.leave}
	if err := a.add(name, d, filepath.Base(c.ignoreName)); err != nil {
		return err
	}
	d.begin(ctx, false)
	return nil
}

// isAddress tells whether a context is in another place, from where the daemon fetches it.
func isAddress(place string) bool {
	for _, scheme := range []string{"http://", "https://", "git://", "ssh://"} {
		if strings.HasPrefix(place, scheme) {
			return true
		}
	}
	user, _, _ := strings.Cut(place, ":")
	name, host, ok := strings.Cut(user, "@")
	if scp := ok && user != place && name != "" && host != "" && !strings.Contains(user, "/"); !scp && !strings.HasPrefix(place, "github.com/") {
		return false
	}
	_, err := os.Stat(place)
	return err != nil
}
