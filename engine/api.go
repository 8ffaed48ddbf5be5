package engine

import (
	"fmt"
	"os"
	"time"

	record "berth/container"
	"berth/engine/journal"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Filters is the field's filter syntax, parsed: key to wanted values.
type Filters = journal.Filters

// CreateRequest is what a container is made from. The engine owns the pointers from then on.
type CreateRequest struct {
	Config     *container.Config
	HostConfig *container.HostConfig // nil: defaults
	Networking *network.NetworkingConfig
	Platform   *ocispec.Platform
	Settings   record.Settings
}

// Inspection is a container in the API's words, beside our own settings.
type Inspection struct {
	container.InspectResponse
	Berth record.Settings `json:",omitzero"`
}

// StopOptions say how to end a container.
type StopOptions struct {
	Signal  string       // "": the container's own StopSignal
	Timeout *int         // seconds; nil: the container's own or 10; negative: wait for ever
	Note    func(string) // hears what the user should know; may be nil
}

func (o StopOptions) note(format string, args ...any) {
	if o.Note != nil {
		o.Note(fmt.Sprintf(format, args...))
	}
}

// RemoveOptions say how much to remove.
type RemoveOptions struct {
	Force   bool // kill it first when it runs
	Volumes bool // its anonymous volumes too
}

// AttachRequest hands a client's connection over. Whatever the outcome, the engine owns Conn and closes it.
type AttachRequest struct {
	Conn                  *os.File // connected socket, taken over but not answered
	Greeting              []byte   // the answer: written once no output can be missed any more
	Buffered              []byte   // what the server read from it already
	Stdin, Stdout, Stderr bool
	Logs                  bool   // what was written before, first
	Stream                bool   // what comes; without it only the log
	Frames                bool   // eight-byte headers; false for a terminal's raw stream
	DetachKeys            string // "ctrl-p,ctrl-q" by default
	HangUp                bool   // of an exec: it ends when its client is gone, also with the engine
}

// LogsRequest selects lines of a container's log.
type LogsRequest struct {
	Stdout, Stderr bool
	Follow         bool
	Since, Until   time.Time // zero: no bound
	Tail           int       // negative: all
}

// ListRequest selects containers.
type ListRequest struct {
	All     bool
	Limit   int  // the newest ones; 0 or less: no limit
	Size    bool // compute sizes; this reads the disk
	Filters Filters
}

// ExecStartRequest starts a prepared exec. Attach is nil when detached.
type ExecStartRequest struct {
	Tty         bool
	ConsoleSize *[2]uint // height, width
	Attach      *AttachRequest
}

// EventsRequest selects events.
type EventsRequest = journal.Request
