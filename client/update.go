package client

import (
	"context"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
)

// Changes are what this engine's update changes beyond limits and restart policy. They stand under the key "Berth" of the
// request; other engines don't read them.
type Changes struct {
	EnvAdd        []string                `json:",omitempty"` // NAME=VALUE
	EnvRemove     []string                `json:",omitempty"` // names
	LabelAdd      map[string]string       `json:",omitempty"`
	LabelRemove   []string                `json:",omitempty"`
	PublishAdd    network.PortMap         `json:",omitempty"`
	PublishRemove []string                `json:",omitempty"` // the container's ports, such as "80" or "53/udp"
	MountAdd      []mount.Mount           `json:",omitempty"`
	MountRemove   []string                `json:",omitempty"` // the places in the container
	Health        *container.HealthConfig `json:",omitempty"` // fields without a value stay
}

// Any tells whether anything of ours changes.
func (c Changes) Any() bool {
	return len(c.EnvAdd)+len(c.EnvRemove)+len(c.LabelAdd)+len(c.LabelRemove)+len(c.PublishAdd)+len(c.PublishRemove)+
		len(c.MountAdd)+len(c.MountRemove) > 0 || c.Health != nil
}

// UpdateRequest is the API's update request with our own changes beside it.
type UpdateRequest struct {
	container.UpdateConfig
	Berth Changes `json:",omitzero"`
}

// UpdateResponse is what update answers. Way is "changed live", "recreated", "recorded" or "unchanged"; other engines don't say.
type UpdateResponse struct {
	Warnings []string
	Berth    struct{ Way string }
}

// Update changes a container.
func (s Containers) Update(ctx context.Context, id string, r UpdateRequest) (UpdateResponse, error) {
	var out UpdateResponse
	err := s.c.Call(ctx, Request{Method: "POST", Path: path("containers", id, "update"), Body: r}, &out)
	return out, err
}
