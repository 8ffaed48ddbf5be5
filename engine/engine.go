// Package engine introduces the nouns to each other: it creates, starts, changes, watches and restores.
//
// It is not one object with all verbs but several small services, each holding
// what it needs; it knows nothing of HTTP. Invariant: what is announced is on
// disk already, and opening an engine is the only way of recovery there is.
package engine

import (
	"berth/engine/networks"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"berth/blob"
	"berth/container"
	"berth/container/forward"
	"berth/engine/builds"
	"berth/engine/bundle"
	"berth/engine/disk"
	"berth/engine/images"
	"berth/engine/journal"
	"berth/engine/layers"
	"berth/engine/request"
	"berth/engine/resolver"
	"berth/engine/storage"
	"berth/engine/userns"
	"berth/engine/volumes"
	"berth/fault"
	"berth/image"
	"berth/network"
	"berth/network/names"
	"berth/oci"
	"berth/oci/shim"
	"berth/registry"
	"berth/union"
	"berth/volume"
	"berth/volume/hold"

	"github.com/opencontainers/go-digest"
)

// Config is what an engine is opened with.
type Config struct {
	DataRoot     string         // images, layers, records, volumes
	ExecRoot     string         // run state, on a tmpfs
	CgroupParent string         // "" is "/berth"
	Storage      storage.Config // which driver keeps layers; Root and Log are the engine's to say
	ImageLimits  image.Limits   // zero: no bounds
	Network      network.Config // Dir and Warn are the engine's to say
	Names        resolver.Defaults
	OCIPath      string // the berth-oci binary
	DNSPath      string // the berth-dns binary; "": beside berth-oci
	Packer       string // program that container.LogHelper is the work of, for "log-helper" as its first argument; "": logs stay uncompressed
	Spares       int    // spare shims kept ready
	Version      string
	GitCommit    string
	BuildTime    string
	Debug        bool
	Defaults     request.Defaults // of containers that say nothing else
	UsernsRemap  string           // whose ids containers have by default: "default", "user[:group]", "uid[:gid]"; "": the host's
	BuildCache   disk.Collection  // when it is made smaller
	Log          *slog.Logger     // nil: slog.Default
}

// Engine is the set of services over one data root.
type Engine struct {
	Containers *Containers
	Insight    *Insight
	Images     *images.Service
	Layers     *layers.Explorer
	Networks   *networks.Service
	Names      *resolver.Service
	Volumes    *volumes.Service
	System     *System
	Disk       *disk.Service
	Builds     *builds.Service
	Events     *journal.Journal

	end   context.CancelFunc
	close []func() error // in the order of opening
}

// Open brings the services up and puts right what a crash or a reboot left. fault.Conflict: another engine has
// the data root open.
func Open(ctx context.Context, c Config) (*Engine, error) {
	if c.CgroupParent == "" {
		c.CgroupParent = "/berth"
	}
	if err := c.Defaults.Check(); err != nil {
		return nil, fmt.Errorf("open engine: %w", err)
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	for _, dir := range []string{c.DataRoot, c.ExecRoot} {
		if !filepath.IsAbs(dir) {
			return nil, invalid("open engine: the root %q is not an absolute path", dir)
		}
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return nil, fmt.Errorf("open engine: %w", err)
		}
	}
	e := &Engine{}
	if err := e.bringUp(ctx, c); err != nil {
		return nil, errors.Join(fmt.Errorf("open engine: %w", err), e.Close())
	}
	return e, nil
}

func (e *Engine) bringUp(ctx context.Context, c Config) error {
	if err := e.openBytes(c); err != nil {
		return err
	}
	if err := e.openContainers(ctx, c); err != nil {
		return err
	}
	id, err := engineID(c.DataRoot)
	if err != nil {
		return err
	}
	e.Volumes = e.Containers.volumes
	e.Layers = &layers.Explorer{Images: e.Images.Store, Layers: e.Containers.layers}
	e.Networks, e.Names = e.Containers.nets, e.Containers.names
	e.System = &System{config: c, id: id, layers: e.Containers.layers, containers: e.Containers, images: e.Images, events: e.Events}
	if err := e.Containers.restore(ctx); err != nil {
		return err
	}
	e.account()
	if err := e.openBuilds(c); err != nil {
		return err
	}
	e.Insight = &Insight{e.Containers}
	e.Insight.sweep(ctx, "")
	e.repairImages(c.Log)
	return nil
}

// repairImages unpacks again, while the engine works, what a power cut or a change of the storage driver took from images.
func (e *Engine) repairImages(log *slog.Logger) {
	broken := e.Images.Store.Broken()
	if len(broken) == 0 {
		return
	}
	log.Warn("images are incomplete and are being repaired", "count", len(broken), "first", broken[0])
	e.Containers.watchers.Go(func() {
		if err := e.Images.Store.Repair(e.Containers.life); err != nil && e.Containers.life.Err() == nil {
			log.Warn("some images stay incomplete: pull or load them again", "error", err)
		}
	})
}

func (e *Engine) onClose(f func() error) { e.close = append(e.close, f) }

// openBytes opens what images are kept in.
func (e *Engine) openBytes(c Config) error {
	events, err := journal.Open(filepath.Join(c.DataRoot, "events"), func(err error) { c.Log.Warn(err.Error()) })
	if err != nil {
		return err
	}
	e.Events = events
	e.onClose(events.Close)
	c.Storage.Root, c.Storage.Log = c.DataRoot, c.Log
	layers, err := storage.Open(c.Storage)
	if err != nil {
		return err
	}
	e.onClose(layers.Close)
	blobs, err := blob.Open(filepath.Join(c.DataRoot, "blobs"))
	if err != nil {
		return err
	}
	e.Disk = &disk.Service{Root: c.DataRoot, Blobs: blobs}
	store, err := image.Open(filepath.Join(c.DataRoot, "images"), blobs, layers)
	if err != nil {
		return err
	}
	store.Limits = c.ImageLimits
	client := registry.NewClient(registry.Options{UserAgent: "berth/" + c.Version})
	e.onClose(func() error { client.Close(); return nil })
	jobs := &queue{}
	e.onClose(func() error { jobs.drain(); return nil })
	e.Images = &images.Service{Store: store, Registry: client, Events: e.Events, Settle: jobs.drain, Driver: layers.Name(), LayerDirs: func(chain digest.Digest) []string { return union.Dirs(layers, chain) }}
	ids, err := userns.Open(c.UsernsRemap, "/etc")
	if err != nil {
		return err
	}
	e.Containers = newContainers(&shared{
		ids: ids,
		mapsLayers: sync.OnceValue(func() bool {
			err := oci.CanMapLayers(c.DataRoot, "probe", layers.Name())
			if err != nil {
				c.Log.Warn("containers in user namespaces get copies of their layers", "error", err)
			}
			return err == nil
		}),
		cgroupParent: c.CgroupParent, index: container.NewIndex[*instance](), images: e.Images, layers: layers, events: e.Events,
		jobs: jobs, seccomp: &bundle.FilterCache{}, defaults: c.Defaults, limits: new(oci.SupportedLimits()), log: c.Log, packer: c.Packer,
	})
	e.Images.UsedBy, e.Images.ManifestOf = e.Containers.usedBy, e.Containers.manifestOf
	return nil
}

// openContainers opens what containers run with.
func (e *Engine) openContainers(ctx context.Context, c Config) (err error) {
	s := e.Containers
	s.life, e.end = context.WithCancel(context.WithoutCancel(ctx))
	s.forwards = forward.NewSet(s.life, s.log)
	e.onClose(s.close)
	if d := c.Defaults; d.CPURealtime > 0 {
		warnings, err := oci.Realtime(c.CgroupParent, d.CPURealtimePeriod, d.CPURealtime)
		if err != nil {
			return fmt.Errorf("give the containers real time scheduling: %w", err)
		}
		for _, w := range warnings {
			c.Log.Warn(w)
		}
	}
	if s.store, err = container.OpenStore(filepath.Join(c.DataRoot, "containers")); err != nil {
		return err
	}
	kept, err := volume.Open(filepath.Join(c.DataRoot, "volumes"))
	if err != nil {
		return err
	}
	s.volumes = &volumes.Service{Store: kept, Events: s.events, Log: s.log, Containers: s.records, Drivers: &volumes.Plugins{},
		Pause: s.freezeAll, Refer: s.shared.referVolume, Measure: contentSize, Run: filepath.Join(c.ExecRoot, "volumes"), Keeper: &hold.Keeper{Program: c.OCIPath},
		Background: s.watchers.Go}
	e.onClose(s.volumes.Keeper.Close)
	s.shims, err = shim.NewLauncher(c.OCIPath, filepath.Join(c.ExecRoot, "containers"), c.Spares)
	if err != nil {
		return err
	}
	s.shims.Left = s.left
	e.onClose(s.shims.Close)
	c.Network.Dir, c.Network.Warn = filepath.Join(c.DataRoot, "network"), func(text string) { c.Log.Warn(text) }
	host, err := network.Open(ctx, c.Network)
	if err != nil {
		return err
	}
	e.onClose(host.Close)
	s.nets = &networks.Service{Host: host, Events: s.events, Created: time.Now().UTC(), Members: s.members}
	called := names.New(names.Config{Program: cmp.Or(c.DNSPath, filepath.Join(filepath.Dir(c.OCIPath), "berth-dns")), Dir: c.ExecRoot, Warn: c.Network.Warn})
	e.onClose(called.Close)
	s.names = &resolver.Service{Networks: s.nets, Names: called, Find: s.shared.find, Defaults: c.Names}
	return nil
}

// Close lets go of everything but leaves containers running. The engine is unusable afterwards.
func (e *Engine) Close() error {
	if e.end != nil {
		e.end()
		e.Containers.watchers.Wait()
		e.Containers.forwards.Wait()
		e.Containers.jobs.drain()
	}
	var err error
	for k := len(e.close) - 1; k >= 0; k-- {
		err = errors.Join(err, e.close[k]())
	}
	e.close = nil
	return err
}

// Cleanup is Close that also takes the networks' links and the firewall's tables back. Containers that still run
// lose their networks.
func (e *Engine) Cleanup() error {
	return errors.Join(e.Names.Names.Quit(), e.Networks.Host.Cleanup(), e.Close())
}

// close lets go of the running containers.
func (c *Containers) close() error {
	var err error
	for _, i := range c.index.All() {
		i.dropPending()
		i.mu.Lock()
		if i.run != nil {
			err = errors.Join(err, i.run.shim.Close())
		}
		i.mu.Unlock()
	}
	return err
}

func invalid(format string, args ...any) error { return fault.New(fault.Invalid, format, args...) }
