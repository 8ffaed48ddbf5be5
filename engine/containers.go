package engine

import (
	"berth/engine/networks"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"

	"berth/container"
	"berth/container/forward"
	"berth/engine/bundle"
	"berth/engine/images"
	"berth/engine/journal"
	"berth/engine/request"
	"berth/engine/resolver"
	"berth/engine/userns"
	"berth/engine/volumes"
	"berth/network"
	"berth/oci"
	"berth/oci/shim"
	"berth/union"

	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
)

// Containers creates, runs and removes containers. Its methods stand in parts by concern, so that none knows
// more than it needs; the verbs that change a container's state are its own.
type Containers struct {
	*shared
	maker
	starter
	streams
	execs
	views
	insides
}

// The parts: making a container, making it ready to start, its streams, further processes, and descriptions.
type (
	maker   struct{ *shared }
	starter struct {
		*shared
		beside []bundle.Mount // beside those of the record
	}
	streams struct{ *shared }
	views   struct{ *shared }
	execs   struct {
		*shared
		mu   sync.Mutex
		byID map[string]*execution
	}
)

// shared is what all parts work on.
type shared struct {
	cgroupParent string
	store        *container.Store
	index        *container.Index[*instance]
	images       *images.Service
	layers       union.Driver
	nets         *networks.Service
	names        *resolver.Service
	shims        *shim.Launcher
	volumes      *volumes.Service
	events       *journal.Journal
	jobs         *queue
	seccomp      *bundle.FilterCache
	defaults     request.Defaults
	ids          *userns.Ranges
	mapsLayers   func() bool // whether layers can show owners through a user namespace
	limits       *oci.Limits // what this machine can hold
	gone         gone
	forwards     *forward.Set
	packer       string // program that compresses logs; "": none
	log          *slog.Logger

	starts   chan struct{}   // has room for the starts by policy that are made at a time
	life     context.Context // ends when the engine is closed
	watchers sync.WaitGroup
}

// startsAtATime bounds the starts by policy: after a reboot all containers want theirs at once.
const startsAtATime = 8

func newContainers(s *shared) *Containers {
	s.starts = make(chan struct{}, startsAtATime)
	c := &Containers{
		shared: s, maker: maker{s}, starter: starter{shared: s}, streams: streams{s}, views: views{s},
		execs: execs{shared: s, byID: map[string]*execution{}},
	}
	c.insides = insides{shared: s, pause: c.setPaused, remove: c.Remove}
	return c
}

// saveState puts the run state on disk and then shows r to everyone.
func (c *shared) saveState(i *instance, r *container.Record) error {
	if err := c.store.SaveState(r); err != nil {
		return fmt.Errorf("save the state of container %s: %w", container.ShortID(r.ID), err)
	}
	i.snap.Store(r)
	return nil
}

// logPath is where a container's output is kept; that of json-file has a name that other tools expect.
func (c *shared) logPath(id, driver string) string {
	if driver != request.LogJSONFile {
		return filepath.Join(c.store.Dir(id), "container.log")
	}
	return filepath.Join(c.store.Dir(id), id+"-json.log")
}

// announce tells of a container's event, with its labels as attributes.
func (c *shared) announce(r *container.Record, action events.Action, more ...string) {
	attributes := make(map[string]string, len(r.Config.Labels)+2+len(more)/2)
	for k, v := range r.Config.Labels {
		attributes[k] = v
	}
	attributes["image"], attributes["name"] = r.Config.Image, r.Name
	for k := 0; k+1 < len(more); k += 2 {
		attributes[more[k]] = more[k+1]
	}
	c.events.Publish(events.ContainerEventType, action, r.ID, attributes)
}

// attachmentOf reads what a record holds of networks; nil when that is nothing.
func attachmentOf(r *container.Record) *network.Attachment {
	if len(r.State.Attachment) == 0 {
		return nil
	}
	a := &network.Attachment{}
	if json.Unmarshal(r.State.Attachment, a) != nil {
		return nil
	}
	return a
}

// members are all containers, as networks see them.
func (c *shared) members() []networks.Member {
	all := c.index.All()
	list := make([]networks.Member, 0, len(all))
	for _, i := range all {
		r := i.record()
		list = append(list, networks.Member{Record: r, Attachment: attachmentOf(r)})
	}
	return list
}

// setAttachment puts a, or none, into a record that nobody else sees yet.
func setAttachment(r *container.Record, a *network.Attachment) (err error) {
	r.State.Attachment = nil
	if a != nil {
		r.State.Attachment, err = json.Marshal(a)
	}
	return err
}

// usedBy lists the containers of an image, by whether they run.
func (c *shared) usedBy(image string) (running, stopped []string) {
	for _, i := range c.index.All() {
		r := i.record()
		switch {
		case string(r.Image) != image && !slices.ContainsFunc(r.Mounts, func(m container.Mount) bool { return string(m.Image) == image }):
		case r.State.Status.Alive():
			running = append(running, r.ID)
		default:
			stopped = append(stopped, r.ID)
		}
	}
	return running, stopped
}

// manifestOf is the manifest that a container was made of, "" when that is not known.
func (c *shared) manifestOf(id string) digest.Digest {
	if i, err := c.index.Get(id); err == nil && i.record().Manifest != nil {
		return i.record().Manifest.Digest
	}
	return ""
}

// left tells that a client detached by its keys, from a container or one of its execs.
func (c *shared) left(id, exec string) {
	i, err := c.index.Get(id)
	switch {
	case err != nil: // it is gone
	case exec == "":
		c.announce(i.record(), events.ActionDetach)
	default:
		c.announce(i.record(), events.ActionExecDetach, "execID", exec)
	}
}

// records are those of all containers.
func (c *shared) records() []*container.Record {
	all := c.index.All()
	list := make([]*container.Record, len(all))
	for k, i := range all {
		list[k] = i.record()
	}
	return list
}
