// Package storage chooses the storage driver of an engine and opens it.
//
// It is not a driver: those are package union's. Invariant: what another driver keeps below the data root is neither read nor changed.
package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"berth/fault"
	"berth/union"
)

// Config says what is wanted.
type Config struct {
	Root    string   // each driver has a directory of its own below it
	Driver  string   // "" has one chosen
	Options []string // DRIVER.KEY=VALUE or KEY=VALUE
	Log     *slog.Logger
}

// priority is the order in which drivers are tried where nothing was kept yet: that of the field's standard engine.
// What isn't in it is used only by name.
func priority() []string { return []string{"overlay2", "fuse-overlayfs", "btrfs", "zfs", "vfs"} }

// Open opens the driver that is wanted, else the one that has images or containers here, else the first one that
// works. The caller closes it. Errors are those of union.Open, fault.Conflict where several drivers have something here and none is wanted, and
// fault.Invalid for an option that is no one's.
func Open(c Config) (union.Driver, error) {
	name := c.Driver
	if name == "overlay" {
		name = "overlay2"
	}
	prior := c.prior()
	switch {
	case name != "":
		c.tell(prior, name)
		return c.open(name)
	case len(prior) > 1:
		return nil, fault.New(fault.Conflict, "%s contains several valid graphdrivers: %s; cleanup or explicitly choose storage driver (-s <DRIVER>)", c.Root, strings.Join(prior, ", "))
	case len(prior) == 1: // another one would make all images disappear
		d, err := c.open(prior[0])
		if err != nil {
			return nil, fmt.Errorf("prior storage driver %s failed: %w", prior[0], err)
		}
		return d, nil
	}
	return c.first()
}

// first tries one driver after the other.
func (c Config) first() (union.Driver, error) {
	var refused []error
	for _, name := range priority() {
		_, err := os.Lstat(c.dir(name))
		fresh := errors.Is(err, fs.ErrNotExist)
		d, err := c.open(name)
		if fault.Of(err) != fault.Unsupported {
			return d, err
		}
		refused = append(refused, err)
		c.Log.Debug("a storage driver does not work here", "driver", name, "error", err)
		if fresh {
			if err := os.RemoveAll(c.dir(name)); err != nil {
				return nil, err
			}
		}
	}
	return nil, fault.New(fault.Unsupported, "no storage driver works here: %w", errors.Join(refused...))
}

func (c Config) open(name string) (union.Driver, error) {
	options, err := Options(name, c.Options)
	if err != nil {
		return nil, err
	}
	return union.Open(name, c.dir(name), options...)
}

func (c Config) dir(name string) string { return union.Home(c.Root, name) }

// prior lists the drivers that keep layers or containers here.
func (c Config) prior() (names []string) {
	for _, name := range union.Drivers() {
		for _, kind := range []string{"layers", "roots"} {
			if list, err := os.ReadDir(filepath.Join(c.dir(name), kind)); err == nil && len(list) > 0 {
				names = append(names, name)
				break
			}
		}
	}
	return names
}

// tell mentions what is left alone.
func (c Config) tell(prior []string, chosen string) {
	for _, name := range prior {
		if name != chosen {
			c.Log.Warn("images and containers of another storage driver are left alone: start with --storage-driver "+name+" to use them",
				"driver", name, "directory", c.dir(name))
		}
	}
}

// prefixes are the drivers that options begin with.
func prefixes() map[string]string {
	m := map[string]string{"overlay": "overlay2", "dm": "devicemapper"}
	for _, name := range union.Drivers() {
		m[name] = name
	}
	return m
}

// Options gives those of --storage-opt as the driver called name takes them: without its prefix. One of another driver is fault.Invalid.
func Options(name string, list []string) (own []string, err error) {
	for _, o := range list {
		key, value, ok := strings.Cut(o, "=")
		if !ok {
			return nil, fault.New(fault.Invalid, "Unable to parse key/value option: %q: write DRIVER.KEY=VALUE", o)
		}
		key = strings.ToLower(key)
		if before, after, ok := strings.Cut(key, "."); ok {
			driver := prefixes()[before]
			if driver == "" {
				return nil, fault.New(fault.Invalid, "storage option %s: no storage driver is called %s", key, before)
			}
			if driver != name {
				return nil, fault.New(fault.Invalid, "storage option %s is of the driver %s, but %s is used: leave it out, or choose --storage-driver %s", key, driver, name, driver)
			}
			key = after
		}
		own = append(own, key+"="+value)
	}
	return slices.Clip(own), nil
}
