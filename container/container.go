// Package container is what the engine remembers of a container: its record, the
// table of its states, its name, the index over all of them, its log, and what is wanted of it: restarts, health,
// what it depends on.
//
// It is not the processes (package oci), and it never touches the kernel. Invariant:
// a record is whole on disk before anyone sees it, and every change of state goes
// through Next.
package container

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Schema is the version of the record's layout on disk.
const Schema = 1

// Record is one container as its user configured it, with the run state beside it.
// A record that others can see is never changed: Clone it, change the copy, publish that.
type Record struct {
	Schema  int
	ID      string // 64 hexadecimal digits
	Name    string // without the leading slash of the API
	Created time.Time
	Path    string   // the program
	Args    []string // and its arguments, entry point and command merged

	// Config and HostConfig are what the user asked for, merged with the image's defaults.
	Config     *container.Config
	HostConfig *container.HostConfig
	Settings   Settings

	Image digest.Digest // ID of the image; "" when it has none
	// Manifest is that of the image's platform, which the root is made of; nil in records of older versions.
	Manifest  *ocispec.Descriptor `json:",omitempty"`
	ImageName string              // as the user wrote it
	Platform  string              // operating system of the image
	Chain     digest.Digest       // the layers below the writable one
	Driver    string              // storage driver
	Mounts    []Mount             // volumes and binds, decided at creation
	// Networks are those that it is on when it runs, by name, and how. nil: the one that its mode names. It is replaced, never changed.
	Networks map[string]*network.EndpointSettings `json:",omitzero"`
	IDs      IDs                                  `json:",omitzero"` // on the host, decided at creation
	LogPath  string

	State State `json:"-"` // kept in a file of its own, which no user configured
}

// Settings are ours: what the API's two configurations have no place for. They travel in the API under the key
// "Berth", beside HostConfig; client.Settings is the same seen from the other side, and a test holds the two together.
type Settings struct {
	MAC string `json:",omitempty"` // hardware address that the user chose on the first network
	// DependsOn names containers that are started before this one when the engine starts: "db" or "db:started", or
	// "db:healthy".
	DependsOn []string `json:",omitempty"`
	// HealthOnFailure is what is done when the container becomes unhealthy: "none" (or ""), "kill", "restart" or "stop".
	HealthOnFailure string `json:",omitempty"`
	// NetClass marks the container's packets for tc(8) and the packet filter: v1's net_cls.classid. 0: no mark.
	NetClass uint32 `json:",omitempty"`
	// IDs are those of the container in the host's words, as /proc/PID/uid_map has them. Told, not taken.
	IDs string `json:",omitempty"`
	// Debug is set for a container that lends tools to another's files, or to an image's.
	Debug *Debug `json:",omitempty"`
}

// Debug makes a container one for tools: it is made by the engine, not asked for by a create request.
type Debug struct {
	Tools string // image whose layers stand at its side
	Of    string `json:",omitempty"` // container whose written files lie below its own
}

// Mount is a volume, bind or tmpfs that the user asked for.
type Mount struct {
	Type          mount.Type
	Name          string `json:",omitempty"` // of a volume
	Source        string `json:",omitempty"` // path on the host; "" for tmpfs
	Destination   string
	Mode          string            `json:",omitempty"` // as written behind the second colon of -v
	ReadOnly      bool              `json:",omitempty"`
	Propagation   mount.Propagation `json:",omitempty"`
	Anonymous     bool              `json:",omitempty"` // a volume that goes with the container
	NoCopy        bool              `json:",omitempty"`
	ReadOnlyTop   bool              `json:",omitempty"` // with ReadOnly: what is mounted below stays writable
	Recursive     bool              `json:",omitempty"` // bind what is mounted below, too
	Explicit      bool              `json:",omitempty"` // asked for by --mount: a missing source is an error, not made
	Options       []string          `json:",omitempty"` // of a tmpfs
	Subpath       string            `json:",omitempty"`
	Labels        map[string]string `json:",omitempty"` // that a volume gets when this mount makes it
	Driver        string            `json:",omitempty"` // of the volume when this mount makes it; "": the local one
	DriverOptions map[string]string `json:",omitempty"` // that driver's
	IDMap         bool              `json:",omitempty"` // of a bind: its source's owner is the container's root
	Image         digest.Digest     `json:",omitempty"` // whose tree is shown; Source is how the user named it
	Root          string            `json:",omitempty"` // holds that image's layers
}

// State is how a container stands. It is written by rename, without a sync: a reboot voids it.
type State struct {
	Status       Status
	Pid          int `json:",omitempty"`
	ExitCode     int
	OOMKilled    bool   `json:",omitempty"`
	Error        string `json:",omitempty"` // why the last start failed
	StartedAt    time.Time
	FinishedAt   time.Time
	RestartCount int           `json:",omitempty"`
	RestartAt    time.Time     `json:",omitzero"`  // when the policy starts it again, while it is restarting
	RestartDelay time.Duration `json:",omitempty"` // the policy's last one; the next is longer
	ManualStop   bool          `json:",omitempty"` // stopped by a user, which restart policies respect
	// Health is what the probes found; nil without a health check. It is replaced, never changed.
	Health     *container.Health `json:",omitempty"`
	Committing bool              `json:",omitempty"` // frozen for a commit; should that die, the next engine lets it run on
	// RemoveVolumes is what the removal that began was asked for.
	RemoveVolumes bool `json:",omitempty"`
	// Attachment is what it holds of networks; it belongs to package network.
	Attachment json.RawMessage `json:",omitempty"`
}

// Clone returns a copy whose fields can be replaced without touching r. Config,
// HostConfig and the slices are shared: replace them, don't write through them.
func (r *Record) Clone() *Record {
	c := *r
	c.Mounts = slices.Clone(r.Mounts)
	return &c
}

// CommandLine prints path and arguments; those with spaces in quotes.
func (r *Record) CommandLine() string {
	words := make([]string, 0, 1+len(r.Args))
	words = append(words, r.Path)
	for _, a := range r.Args {
		if strings.Contains(a, " ") {
			a = "'" + a + "'"
		}
		words = append(words, a)
	}
	return strings.Join(words, " ")
}

// NewID returns a random container ID.
func NewID() string {
	var b [32]byte
	rand.Read(b[:]) // never fails: crypto/rand aborts the program instead
	return hex.EncodeToString(b[:])
}

// ShortID is the 12 digits that a user sees, and the default host name.
func ShortID(id string) string { return id[:min(12, len(id))] }
