package forward

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"berth/container"
	"berth/fault"
)

// Info is what messages tell of their container.
type Info struct {
	Driver  string
	Opts    map[string]string // --log-opt
	LogPath string            // of the local files

	ContainerID         string
	ContainerName       string // with the slash, as templates see it
	ContainerEntrypoint string
	ContainerArgs       []string
	ContainerImageID    string
	ContainerImageName  string
	ContainerCreated    time.Time
	ContainerEnv        []string
	ContainerLabels     map[string]string
	DaemonName          string

	tag   string
	attrs map[string]string
}

// NewInfo takes it from a container's record.
func NewInfo(r *container.Record) Info {
	l := r.HostConfig.LogConfig
	return Info{
		Driver: l.Type, Opts: l.Config, LogPath: r.LogPath, ContainerID: r.ID, ContainerName: "/" + r.Name, ContainerEntrypoint: r.Path,
		ContainerArgs: r.Args, ContainerImageID: string(r.Image), ContainerImageName: r.ImageName, ContainerCreated: r.Created,
		ContainerEnv: r.Config.Env, ContainerLabels: r.Config.Labels, DaemonName: "berth",
	}
}

// The methods are what --log-opt tag may use, beside the fields.

// ID is the short one.
func (i *Info) ID() string { return container.ShortID(i.ContainerID) }

// FullID is all of it.
func (i *Info) FullID() string { return i.ContainerID }

// Name is the container's, without the slash.
func (i *Info) Name() string { return strings.TrimPrefix(i.ContainerName, "/") }

// ImageID is the short one.
func (i *Info) ImageID() string {
	_, hex, found := strings.Cut(i.ContainerImageID, ":")
	if !found {
		hex = i.ContainerImageID
	}
	return container.ShortID(hex)
}

// ImageFullID is all of it.
func (i *Info) ImageFullID() string { return i.ContainerImageID }

// ImageName is what the user called it.
func (i *Info) ImageName() string { return i.ContainerImageName }

// Command is the program with its arguments.
func (i *Info) Command() string {
	return strings.Join(append([]string{i.ContainerEntrypoint}, i.ContainerArgs...), " ")
}

// Hostname is this machine's.
func (i *Info) Hostname() (string, error) {
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("find the host's name: %w", err)
	}
	return name, nil
}

// defaultTag is what the daemon's destinations call a container.
const defaultTag = "{{.ID}}"

// Tag is what the container is called: --log-opt tag, a template.
func (i *Info) Tag() (string, error) {
	text := i.Opts["tag"]
	if text == "" {
		text = defaultTag
	}
	out, err := i.execute(text)
	if err != nil {
		return "", fault.New(fault.Invalid, "log tag %q: %w", text, err)
	}
	return out, nil
}

// Attributes are what --log-opt labels, labels-regex, env and env-regex select.
func (i *Info) Attributes() (map[string]string, error) {
	attrs := map[string]string{}
	env := map[string]string{}
	for _, e := range i.ContainerEnv {
		if name, value, ok := strings.Cut(e, "="); ok {
			env[name] = value
		}
	}
	for _, from := range []struct {
		option string
		values map[string]string
	}{{"labels", i.ContainerLabels}, {"env", env}} {
		for _, name := range strings.Split(i.Opts[from.option], ",") {
			if value, ok := from.values[name]; ok {
				attrs[name] = value
			}
		}
		pattern := i.Opts[from.option+"-regex"]
		if pattern == "" {
			continue
		}
		match, err := regexp.Compile(pattern)
		if err != nil {
			return nil, fault.New(fault.Invalid, "log opt %s-regex: %w", from.option, err)
		}
		for name, value := range from.values {
			if match.MatchString(name) {
				attrs[name] = value
			}
		}
	}
	return attrs, nil
}

// maxFields bounds what each record of a log carries beside its text.
const maxFields = 32 << 10

// Fields are the attributes, and the tag if there is one, as a JSON object for every record of the log; "" when there are none.
func (i *Info) Fields() (string, error) {
	attrs, err := i.Attributes()
	if err != nil {
		return "", err
	}
	if i.Opts["tag"] != "" {
		if attrs["tag"], err = i.Tag(); err != nil {
			return "", err
		}
	}
	if len(attrs) == 0 {
		return "", nil
	}
	data, err := json.Marshal(attrs)
	if err == nil && len(data) > maxFields {
		return "", invalid("the labels and variables that each line of the log is to carry have %d bytes, at most %d are possible: select fewer by --log-opt labels or env", len(data), maxFields)
	}
	return string(data), err
}
