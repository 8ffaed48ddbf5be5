package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	record "berth/container"
	"berth/engine"
	"berth/fault"
	own "berth/image"
	"github.com/docker/go-units"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/system"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxRequest bounds a create request: the largest real ones have some hundred kilobytes of environment.
const maxRequest = 16 << 20

// createBody is the API's create request with our own settings beside HostConfig.
type createBody struct {
	container.CreateRequest
	Berth record.Settings

	warnings []string // of fields that the API no longer has
}

// readCreate reads the body of a create request. Clients of the first releases
// write a command as one string; it becomes a list of one.
func readCreate(r *http.Request) (createBody, error) {
	var body createBody
	data, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxRequest))
	if err != nil {
		return body, fault.New(fault.Invalid, "read the request: %w", err)
	}
	r.Body = io.NopCloser(bytes.NewReader(data))
	err = readJSON(r, &body, false)
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) && wrong.Value == "string" {
		if lifted, ok := liftCommands(data); ok {
			body = createBody{}
			r.Body = io.NopCloser(bytes.NewReader(lifted))
			err = readJSON(r, &body, false)
		}
	}
	if err != nil {
		return body, err
	}
	if err := oldDefaults(versionOf(r), &body.CreateRequest); err != nil {
		return body, err
	}
	if body.warnings, err = oldNetworking(versionOf(r), data, &body.CreateRequest); err != nil {
		return body, err
	}
	body.warnings = append(body.warnings, oldLimits(data)...)
	if body.Config == nil {
		return body, fault.New(fault.Invalid, "config cannot be empty in order to create a container")
	}
	return body, nil
}

// oldDefaults fills in what clients of earlier versions expect of what they leave out, and drops what they can't mean.
func oldDefaults(v apiVersion, body *container.CreateRequest) error {
	if body.HostConfig == nil {
		body.HostConfig = &container.HostConfig{}
	}
	h := body.HostConfig
	if v < 40 && h.IpcMode == "" {
		h.IpcMode = container.IPCModeShareable
	}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); v < 41 && h.CgroupnsMode == "" && errors.Is(err, os.ErrNotExist) {
		h.CgroupnsMode = container.CgroupnsModeHost // on cgroup v1 alone
	}
	if v < 43 {
		h.Annotations = nil
	}
	if v >= 44 {
		return nil
	}
	if body.Config != nil && body.Config.Healthcheck != nil {
		body.Config.Healthcheck.StartInterval = 0
	}
	if n := body.NetworkingConfig; n != nil && len(n.EndpointsConfig) > 1 {
		names := slices.Sorted(maps.Keys(n.EndpointsConfig))
		return fault.New(fault.Invalid, "Container cannot be created with multiple network endpoints: %s", strings.Join(names, ", "))
	}
	return nil
}

// liftCommands turns Cmd and Entrypoint from strings into lists.
func liftCommands(data []byte) ([]byte, bool) {
	var fields map[string]json.RawMessage
	if json.Unmarshal(data, &fields) != nil {
		return nil, false
	}
	for _, name := range []string{"Cmd", "Entrypoint"} {
		if v := bytes.TrimSpace(fields[name]); len(v) > 0 && v[0] == '"' {
			fields[name] = append(append([]byte{'['}, v...), ']')
		}
	}
	lifted, err := json.Marshal(fields)
	return lifted, err == nil
}

// oldInspect adds to a container's description what clients below API 1.52
// read: the default network's addresses at the top of NetworkSettings, and the hardware address that was asked for in Config.
// It returns nil when the client needs nothing old.
func oldInspect(v apiVersion, c *engine.Inspection) (any, error) {
	if v < 48 {
		c.ImageManifestDescriptor = nil
	}
	if v >= 52 || c.NetworkSettings == nil {
		return nil, nil
	}
	return struct {
		*engine.Inspection
		NetworkSettings oldNetworkSettings
		Config          oldConfig
	}{c, oldNetworks(c.NetworkSettings), oldConfig{c.Config, c.Berth.MAC}}, nil
}

type oldConfig struct {
	*container.Config
	MacAddress string `json:",omitempty"`
}

// oldNetworkSettings has the fields that the API dropped with 1.52, and some that had been constant for long.
type oldNetworkSettings struct {
	Bridge                 string
	SandboxID              string
	SandboxKey             string
	Ports                  network.PortMap
	HairpinMode            bool
	LinkLocalIPv6Address   string
	LinkLocalIPv6PrefixLen int
	SecondaryIPAddresses   []struct{}
	SecondaryIPv6Addresses []struct{}
	EndpointID             string
	Gateway                string
	GlobalIPv6Address      string
	GlobalIPv6PrefixLen    int
	IPAddress              string
	IPPrefixLen            int
	IPv6Gateway            string
	MacAddress             string
	Networks               map[string]*network.EndpointSettings
}

func oldNetworks(n *container.NetworkSettings) oldNetworkSettings {
	old := oldNetworkSettings{SandboxID: n.SandboxID, SandboxKey: n.SandboxKey, Ports: n.Ports, Networks: n.Networks}
	e := n.Networks["bridge"]
	if e == nil {
		return old
	}
	old.EndpointID = e.EndpointID
	if e.IPAddress.IsValid() {
		old.IPAddress, old.IPPrefixLen = e.IPAddress.String(), e.IPPrefixLen
	}
	if e.Gateway.IsValid() {
		old.Gateway = e.Gateway.String()
	}
	if e.GlobalIPv6Address.IsValid() {
		old.GlobalIPv6Address, old.GlobalIPv6PrefixLen = e.GlobalIPv6Address.String(), e.GlobalIPv6PrefixLen
	}
	if e.IPv6Gateway.IsValid() {
		old.IPv6Gateway = e.IPv6Gateway.String()
	}
	if len(e.MacAddress) > 0 {
		old.MacAddress = e.MacAddress.String()
	}
	return old
}

// origin is the container that an image was made of.
type origin = own.Origin

// oldImage is an image's description with what clients of earlier versions read: fields
// that are left out when they are empty since 1.52, a whole container's config before 1.50, and before 1.45 the container that it was made of.
func oldImage(v apiVersion, i *image.InspectResponse, from origin) any {
	type before52 struct {
		*image.InspectResponse
		Parent, Comment, Author, DockerVersion, Container string
	}
	type before50 struct {
		before52
		Config          any
		ContainerConfig any   `json:",omitempty"`
		VirtualSize     int64 `json:",omitempty"`
	}
	if v >= 52 {
		return i
	}
	if v < 48 {
		i.Descriptor = nil
	}
	if v < 44 && i.Created == "" {
		i.Created = time.Time{}.Format(time.RFC3339Nano)
	}
	old := before52{InspectResponse: i, Comment: i.Comment, Author: i.Author}
	if v >= 50 || i.Config == nil {
		return old
	}
	older := before50{before52: old, Config: struct {
		AttachStdin, AttachStdout, AttachStderr, OpenStdin, StdinOnce, Tty bool
		Hostname, Domainname, Image, User, WorkingDir                      string
		Env, Cmd, Entrypoint, OnBuild                                      []string
		Volumes                                                            map[string]struct{}
		Labels                                                             map[string]string
		ExposedPorts                                                       map[string]struct{}           `json:",omitempty"`
		Healthcheck                                                        *dockerspec.HealthcheckConfig `json:",omitempty"`
		StopSignal                                                         string                        `json:",omitempty"`
		Shell                                                              []string                      `json:",omitempty"`
	}{
		User: i.Config.User, WorkingDir: i.Config.WorkingDir, Env: i.Config.Env, Cmd: i.Config.Cmd, Entrypoint: i.Config.Entrypoint,
		OnBuild: i.Config.OnBuild, Volumes: i.Config.Volumes, Labels: i.Config.Labels, ExposedPorts: i.Config.ExposedPorts,
		Healthcheck: i.Config.Healthcheck, StopSignal: i.Config.StopSignal, Shell: i.Config.Shell,
	}}
	if v < 45 {
		older.Container = from.Container
		if older.ContainerConfig = from.Config; len(from.Config) == 0 {
			older.ContainerConfig = struct{}{}
		}
	}
	if v < 44 {
		older.VirtualSize = i.Size
	}
	return older
}

// oldSummary is a row of the image list with what clients of earlier versions read: containers are counted since 1.51,
// descriptors told since 1.48, the virtual size until 1.44, and until 1.43 an image without a name was called <none>.
func oldSummary(v apiVersion, list []image.Summary) any {
	for n := range list {
		s := &list[n]
		if v < 51 {
			s.Containers = -1
		}
		if v < 48 {
			s.Descriptor = nil
		}
		if v < 43 && len(s.RepoTags) == 0 && len(s.RepoDigests) == 0 {
			s.RepoTags, s.RepoDigests = []string{"<none>:<none>"}, []string{"<none>@<none>"}
		}
	}
	if v >= 44 {
		return list
	}
	type before44 struct {
		image.Summary
		VirtualSize int64
	}
	rows := make([]before44, len(list))
	for n, s := range list {
		rows[n] = before44{s, s.Size}
	}
	return rows
}

// progressTo writes the messages of a pull, a push or a load. Before API 1.52 a step also carried its progress as a drawing.
// A client that has gone cancels the request's context, so a message that can't be written is nobody's loss.
func progressTo(out *lines, v apiVersion) func(jsonstream.Message) {
	return func(m jsonstream.Message) {
		drawing := ""
		if v < 52 && m.Progress != nil {
			drawing = draw(m.Progress.Current, m.Progress.Total)
		}
		out.write(struct {
			jsonstream.Message
			Drawing string `json:"progress,omitempty"`
		}{m, drawing})
	}
}

// onePlatform refuses what archives can have since API 1.52: several platforms.
func onePlatform(v apiVersion, list []ocispec.Platform) error {
	if v < 52 && len(list) > 1 {
		return fault.New(fault.Invalid, "multiple platform parameters not supported")
	}
	return nil
}

// draw shows how much of total is done: "[=====>     ]  1.024MB/10MB".
func draw(current, total int64) string {
	const width = 50
	switch {
	case current <= 0 && total <= 0:
		return ""
	case total <= 0 || current > total:
		return fmt.Sprintf("%8v", units.HumanSize(float64(current)))
	}
	done := int(float64(current) / float64(total) * width)
	return fmt.Sprintf("[%s>%s] %8v/%v", strings.Repeat("=", done), strings.Repeat(" ", width-done), units.HumanSize(float64(current)), units.HumanSize(float64(total)))
}

// oldInfo is the engine's description with what clients below API 1.50 read. Without these two they warn
// that bridged packets pass the firewall by; ours sees them whatever the setting is.
func oldInfo(v apiVersion, i *system.Info) any {
	if v >= 50 {
		return i
	}
	return struct {
		*system.Info
		BridgeNfIptables, BridgeNfIp6tables bool
	}{i, true, true}
}
