package request

import (
	"errors"
	"strings"
	"testing"

	"berth/fault"

	"github.com/docker/go-units"
	api "github.com/moby/moby/api/types/container"
)

func TestDefaults(t *testing.T) {
	d := Defaults{
		Runtime: "other", Runtimes: Runtimes{"other": {Path: "/bin/other"}}, CgroupnsMode: "host", IpcMode: "shareable", ShmSize: 1 << 20,
		Ulimits: map[string]*units.Ulimit{"nofile": {Name: "nofile", Soft: 5, Hard: 6}, "core": {Name: "core"}}, LogDriver: "local", LogOpts: map[string]string{"max-size": "1m"},
	}
	if err := d.Check(); err != nil {
		t.Fatal(err)
	}
	m := Machine{CPUs: 2, Network: "bridge", Defaults: d}
	h, _, err := Complete(&api.HostConfig{Resources: api.Resources{Ulimits: []*units.Ulimit{{Name: "core", Soft: 1, Hard: 1}}}}, &api.Config{}, m)
	if err != nil {
		t.Fatal(err)
	}
	if h.Runtime != "other" || h.CgroupnsMode != "host" || h.IpcMode != "shareable" || h.ShmSize != 1<<20 || h.LogConfig.Type != "local" || h.LogConfig.Config["max-size"] != "1m" {
		t.Errorf("%+v", h)
	}
	if len(h.Ulimits) != 2 || h.Ulimits[0].Soft != 1 || h.Ulimits[1].Name != "nofile" || h.Ulimits[1].Hard != 6 {
		t.Errorf("ulimits: %v", h.Ulimits)
	}
	h, _, err = Complete(&api.HostConfig{LogConfig: api.LogConfig{Type: "json-file"}, Runtime: "runc", IpcMode: "private"}, &api.Config{}, m)
	if err != nil || len(h.LogConfig.Config) != 0 || h.Runtime != "runc" || h.IpcMode != "private" {
		t.Errorf("what a user says: %+v, %v", h, err)
	}
	if d.StopSeconds() != DefaultStopTimeout {
		t.Errorf("stops in %d s", d.StopSeconds())
	}
}

func TestRefusedDefaults(t *testing.T) {
	for want, d := range map[string]Defaults{
		"unknown or invalid runtime name: x":        {Runtime: "x"},
		"runtime name 'berth' is reserved":          {Runtimes: Runtimes{"berth": {Path: "/x"}}},
		"runtime x: it has no path":                 {Runtimes: Runtimes{"x": {}}},
		"the path a/b is not absolute":              {Runtimes: Runtimes{"x": {Path: "a/b"}}},
		`IPC mode "host": the default can be`:       {IpcMode: "host"},
		"default cgroup namespace mode (x) is inva": {CgroupnsMode: "x"},
		"SHM size can not be less than 0":           {ShmSize: -1},
		"no log driver named 'x'":                   {LogDriver: "x"},
	} {
		if err := d.Check(); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestRuntimes(t *testing.T) {
	r := Runtimes{"runc": {Path: "/usr/sbin/runc"}, "crun": {Path: "crun"}}
	for name, own := range map[string]bool{"": true, "berth": true, "io.containerd.runc.v2": true, "runc": false, "crun": false} {
		if _, got, err := r.Find(name); err != nil || got != own {
			t.Errorf("%s: own %v, %v", name, got, err)
		}
	}
	if _, own, err := (Runtimes{}).Find("runc"); err != nil || !own {
		t.Errorf("runc without a program of that name: %v, %v", own, err)
	}
	if got := r.Describe("/us"); len(got) != 3 || got["berth"].Path != "/us" || got["crun"].Path != "crun" {
		t.Errorf("%+v", got)
	}
}
