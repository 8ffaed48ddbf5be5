package client

import "github.com/moby/moby/api/types/container"

// Settings are what this engine's containers have beyond the API's own two configurations. They stand under the key
// "Berth" of a create request and of what inspect answers; other engines don't read them.
type Settings struct {
	MAC             string   `json:",omitempty"` // hardware address
	DependsOn       []string `json:",omitempty"` // "NAME", "NAME:started" or "NAME:healthy"
	HealthOnFailure string   `json:",omitempty"` // "none", "kill", "restart" or "stop"
	NetClass        uint32   `json:",omitempty"` // class of the container's packets (cgroup v1's net_cls.classid)
	IDs             string   `json:",omitempty"` // what inspect tells of the container's user namespace, as /proc/PID/uid_map has it
	// Debug is set for a container that debug made, never asked for.
	Debug *Debug `json:",omitempty"`
}

// Debug says whose files a container for tools shows, and where the tools come from.
type Debug struct {
	Tools string // image
	Of    string `json:",omitempty"` // container
}

// CreateRequest is the API's create request with our own settings beside it.
type CreateRequest struct {
	container.CreateRequest
	Berth Settings `json:",omitzero"`
}

// Inspection is what inspect answers for a container.
type Inspection struct {
	container.InspectResponse
	Berth Settings `json:",omitzero"`
}
