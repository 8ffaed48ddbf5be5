package shim

import (
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/fault"
	"berth/kernel"
	"berth/oci"
)

// Request is all that a shim needs to run one container.
type Request struct {
	Bundle    oci.Bundle   `json:"bundle"`
	NetNS     *os.File     `json:"-"`                   // the network namespace to join, nil for what the bundle says; stays the caller's
	Ready     *os.File     `json:"-"`                   // the program starts when a byte can be read here, and not when the end comes without; nil: at once. Stays the caller's
	Terminal  bool         `json:"terminal,omitempty"`  // stdio is a terminal: one raw stream instead of stdout and stderr
	OpenStdin bool         `json:"openStdin,omitempty"` // stdin stays open until the container ends; otherwise it is /dev/null
	StdinOnce bool         `json:"stdinOnce,omitempty"` // stdin closes when the first attachment that feeds it ends (not with a terminal)
	Size      ConsoleSize  `json:"size"`                // of the terminal, before the program starts
	Log       Log          `json:"log"`
	Attach    []Attachment `json:"attach,omitempty"` // connected before the program starts, so that they miss nothing
}

// awaitReady waits until the engine has made what the program needs at its start.
func (r *Request) awaitReady() error {
	if r.Ready == nil {
		return nil
	}
	if n, err := r.Ready.Read(make([]byte, 1)); n == 0 {
		return fault.New(fault.Unavailable, "start container %s: what it waits for did not come: %w", r.Bundle.ID, err)
	}
	return nil
}

// ConsoleSize is a terminal's size in characters; zero leaves it as it is.
type ConsoleSize struct {
	Height uint16 `json:"height,omitempty"`
	Width  uint16 `json:"width,omitempty"`
}

// box is the size as the runtime-spec has it; nil when it is to be left alone.
func (c ConsoleSize) box() *specs.Box {
	if c == (ConsoleSize{}) {
		return nil
	}
	return &specs.Box{Height: uint(c.Height), Width: uint(c.Width)}
}

// The log drivers that the shim knows.
const (
	LogJSONFile = "json-file"
	LogNone     = "none"
)

// Log is where output is kept.
type Log struct {
	Driver   string `json:"driver,omitempty"`   // LogJSONFile or LogNone; empty with a Path is LogJSONFile
	Path     string `json:"path,omitempty"`     // older files are Path.1, Path.2 …, or Path.1.gz …
	MaxSize  int64  `json:"maxSize,omitempty"`  // bytes that a file holds at most, unless one record is larger; 0 = no bound
	MaxFiles int    `json:"maxFiles,omitempty"` // how many files there are at most, the current one included; 0 = 1
	Packer   string `json:"packer,omitempty"`   // program that compresses older files (container.LogHelper); "" = they stay plain
	Attrs    string `json:"attrs,omitempty"`    // a JSON object that each record carries; "" = none
}

// Attachment is a client's connection to a process's stdio. Conn is a connected stream socket; passing the
// Attachment passes its ownership, also when the call fails: the callee closes it. The shim serves it from then on alone,
// so that it survives the caller.
//
// Output that the client doesn't take holds the process up; a broken client is dropped. The end
// of the client's input closes the process's stdin with StdinOnce; otherwise it ends the attachment.
type Attachment struct {
	Conn       *os.File `json:"-"`
	Stdin      bool     `json:"stdin,omitempty"`
	Stdout     bool     `json:"stdout,omitempty"`
	Stderr     bool     `json:"stderr,omitempty"`
	Frames     bool     `json:"frames,omitempty"`     // output in Docker's frames of an 8-byte header (stream, length); else raw
	DetachKeys []byte   `json:"detachKeys,omitempty"` // this sequence in the input ends the attachment; nil = input is passed on as it is
	Buffered   []byte   `json:"buffered,omitempty"`   // input that was read from Conn already
	Logs       bool     `json:"logs,omitempty"`       // replay the log first, and then go on without a gap
	NoStream   bool     `json:"noStream,omitempty"`   // end after the replay
	HangUp     bool     `json:"hangUp,omitempty"`     // the process ends when the client is gone and did not detach
}

// Gone tells whether the client has left altogether; one that only ended its input has not.
func (a Attachment) Gone() bool { return kernel.HungUp(a.Conn) }

// ExecRequest is one more process in the container. ID is the caller's, unique per container.
type ExecRequest struct {
	ID       string       `json:"id"`
	Spec     oci.ExecSpec `json:"spec"`
	Terminal bool         `json:"terminal,omitempty"`
	Size     ConsoleSize  `json:"size"`
	Attach   []Attachment `json:"attach,omitempty"` // its stdin is open when one of them feeds it, and closes with that one
}
