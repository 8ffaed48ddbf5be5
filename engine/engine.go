// Package engine introduces the nouns to each other: it creates, starts, pulls and restores.
//
// It is not one object with all verbs but several small services, each holding
// what it needs; it knows nothing of HTTP. Invariant: what is announced is on
// disk already, and opening an engine is the only way of recovery there is.
package engine

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
)

// Config is what an engine is opened with.
type Config struct {
	DataRoot      string       // images, layers, records, volumes
	ExecRoot      string       // run state, on a tmpfs
	CgroupParent  string       // "" is "/berth"
	StorageDriver string       // "" is overlay2
	Bridge        string       // "" is "berth0"; "none" for no bridge
	BIP           netip.Prefix // zero: chosen
	OCIPath       string       // the berth-oci binary
	Spares        int          // spare shims kept ready
	Pool          int          // spare network namespaces kept ready
	Version       string
	GitCommit     string
	BuildTime     string
	Debug         bool
	Log           *slog.Logger // nil: slog.Default
}

// Engine is the set of services over one data root.
type Engine struct {
	Containers *Containers
	Images     *Images
	Networks   *Networks
	System     *System
	Events     *Events
}

// Open brings the services up and puts right what a crash or a reboot left.
func Open(ctx context.Context, c Config) (*Engine, error) { return nil, errNotYet }

// Close lets go of everything but leaves containers running. The engine is unusable afterwards.
func (e *Engine) Close() error { return errNotYet }

var errNotYet = errors.New("not written yet")
