package engine

import (
	"errors"
	"os"
	"path/filepath"

	"berth/build"
	"berth/build/remote"
	"berth/container"
	"berth/engine/builds"
	"berth/engine/files"
	"berth/union"
)

// openBuilds wires what builds images.
func (e *Engine) openBuilds(c Config) error {
	cache, err := build.OpenCache(filepath.Join(c.DataRoot, "build", "cache"), e.Images.Store)
	if err != nil {
		return err
	}
	e.onClose(cache.Close)
	e.Disk.Cache, e.Disk.Forget = cache.Entries, cache.Remove
	collector, err := e.Disk.Collector(c.BuildCache, c.Log)
	if err != nil {
		return err
	}
	e.onClose(collector.Close)
	dir := filepath.Join(c.DataRoot, "build", "contexts")
	fetched, err := remote.Open(filepath.Join(c.DataRoot, "build", "remote"), c.Log)
	if err != nil {
		return err
	}
	caches := &builds.Caches{Volumes: e.Volumes, Dir: filepath.Join(c.DataRoot, "build", "caches")}
	if err := caches.Open(); err != nil {
		return err
	}
	sockets := filepath.Join(c.ExecRoot, "build")
	if err := errors.Join(os.RemoveAll(sockets), os.MkdirAll(sockets, 0o700)); err != nil {
		return err
	}
	e.Builds = &builds.Service{Caches: caches, Images: e.Images, Dir: dir, Ended: collector.Ended, Builder: &build.Builder{
		Dir: sockets, Images: e.Images.Store, Layers: e.Containers.layers, Cache: cache, Log: c.Log,
		NewID: container.NewID, Prepare: files.Prepare, Pack: union.Pack, Run: e.Containers.runStep, TakeCaches: caches.Take, Find: builds.Finder(fetched),
		IDs: func() build.IDs {
			ids := e.Containers.ids.Remap
			return build.IDs{Map: idMap(ids), Copied: !ids.IsZero() && !e.Containers.mapsLayers()}
		},
		Owner: func(top *os.File, name string) (uid, gid uint32, err error) {
			o, err := files.Owner(&union.Tree{Root: top}, name)
			if err != nil {
				return 0, 0, err
			}
			return o.UID, o.GID, nil
		},
	}}
	if err := e.Builds.Open(); err != nil {
		return err
	}
	e.Disk.Keepers = e.Builds.Keepers(fetched, filepath.Join(c.DataRoot, "build", "remote"))
	return nil
}
