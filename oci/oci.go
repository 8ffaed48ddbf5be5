// Package oci turns a bundle into processes: the container format.
//
// It knows the OCI runtime-spec and the kernel, and nothing of images, registries, networks or the
// daemon. It does not supervise: whoever calls Create is the parent of the container's first process,
// waits for it and keeps its terminal. Invariant: nothing that lies inside a container's root
// decides what is mounted, opened or executed outside of it, and no file of ours can be written from inside.
package oci

import (
	"os"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Bundle is all that a container is made from. It is plain data that travels as JSON.
type Bundle struct {
	ID           string        `json:"id"`
	Spec         *specs.Spec   `json:"spec"`
	Dir          string        `json:"dir,omitempty"`          // the bundle's directory as hooks are told, when there is one
	Rootfs       []specs.Mount `json:"rootfs,omitempty"`       // how the root is mounted, inside the container's own mount namespace; empty: Spec.Root.Path is a ready directory
	User         string        `json:"user,omitempty"`         // as in an image: "", "name", "uid:gid", "name:group"; resolved inside the root
	UserFromSpec bool          `json:"userFromSpec,omitempty"` // take Spec.Process.User as it is and ignore User
	GroupAdd     []string      `json:"groupAdd,omitempty"`     // supplementary groups by name or number
	MakeCwd      bool          `json:"makeCwd,omitempty"`      // create Spec.Process.Cwd when it is missing
	Filter       *Filter       `json:"filter,omitempty"`       // instead of Spec.Linux.Seccomp, compiled already
	Init         bool          `json:"init,omitempty"`         // put our own tiny init in front as process 1
	Foreign      *Foreign      `json:"foreign,omitempty"`      // another runtime that is to make it, by package oci/foreign
}

// Exit is how a process ended.
type Exit struct {
	Code      int       `json:"code"`             // as a shell has it: 128+n after signal n
	Signal    int       `json:"signal,omitempty"` // the signal that ended it, else 0
	OOMKilled bool      `json:"oomKilled,omitempty"`
	At        time.Time `json:"at"`
	Error     string    `json:"error,omitempty"` // why it could not be started or watched
}

// Stdio is what a process gets as its first three files. With Console set the others are ignored:
// a terminal is made inside the container and its master handed back by Process.Console.
// A nil file is /dev/null. The files stay the caller's.
type Stdio struct {
	Stdin, Stdout, Stderr *os.File
	Console               bool
}

// ExecSpec is one more process for a running container.
type ExecSpec struct {
	Process      specs.Process `json:"process"`
	User         string        `json:"user,omitempty"` // as in Bundle
	UserFromSpec bool          `json:"userFromSpec,omitempty"`
	GroupAdd     []string      `json:"groupAdd,omitempty"`
	// Tools are mounted, at directories that exist, for this process and its children alone.
	Tools []specs.Mount `json:"tools,omitempty"`
	// ToolsRoot makes the first of Tools the process's root. It is a directory in there, at which the container's own root, with all that is
	// mounted below, is put; /proc, /sys and /dev are the container's, too.
	ToolsRoot string `json:"toolsRoot,omitempty"`
}

// StartError is a failure to execute the container's program, with the exit
// code that a shell would give: 126 not executable, 127 not found.
type StartError struct {
	Code int
	Err  error
}

func (e *StartError) Error() string { return e.Err.Error() }
func (e *StartError) Unwrap() error { return e.Err }
