package client

import (
	"context"

	"github.com/moby/moby/api/types/container"
)

// DebugRequest asks for a process with tools at its side; without Cmd and Script it is the tools' shell.
type DebugRequest struct {
	container.ExecCreateRequest
	Image  string // that the tools are from; "" lets the daemon choose
	Script string // for the tools' shell, in the place of Cmd
}

// DebugResponse is what the daemon prepared: an exec to be started, or else a container, which removes itself.
type DebugResponse struct {
	Exec, Container string
	Image           string // that the tools are from
	Tools           string // where they are
	Files           string // where the container's are
}

// Debug prepares a process with tools in a container, or in a new one with the files of a stopped container or an image.
func (s Containers) Debug(ctx context.Context, ref string, req DebugRequest) (DebugResponse, error) {
	var out DebugResponse
	err := s.c.Call(ctx, Request{Method: "POST", Path: path("containers", ref, "debug"), Body: req}, &out)
	return out, err
}
