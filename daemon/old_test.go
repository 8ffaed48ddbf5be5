package daemon

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"berth/fault"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

func TestTerminalSizes(t *testing.T) {
	for query, want := range map[string]string{
		"h=1&w=65535":      "",
		"w=1":              `invalid resize height "": invalid syntax`,
		"h=1":              `invalid resize width "": invalid syntax`,
		"h=x&w=1":          `invalid resize height "x": invalid syntax`,
		"h=1&w=-2":         `invalid resize width "-2": value out of range`,
		"h=65536&w=1":      `invalid resize height "65536": value out of range`,
		"h=1&w=4294967296": `invalid resize width "4294967296": value out of range`,
	} {
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		height, width, err := size(q)
		if want == "" {
			if err != nil || height != 1 || width != 65535 {
				t.Errorf("%s: %d %d %v", query, height, width, err)
			}
		} else if !errors.Is(err, fault.Invalid) || err.Error() != want {
			t.Errorf("%s: %v", query, err)
		}
	}
}

func TestDefaultsOfOldClients(t *testing.T) {
	body := func() *api.CreateRequest {
		return &api.CreateRequest{
			Config:     &api.Config{Healthcheck: &api.HealthConfig{StartInterval: 5}},
			HostConfig: &api.HostConfig{Annotations: map[string]string{"a": "b"}},
		}
	}
	for v, want := range map[apiVersion]struct {
		ipc         api.IpcMode
		annotations int
		interval    bool
	}{39: {"shareable", 0, false}, 42: {"", 0, false}, 43: {"", 1, false}, 44: {"", 1, true}} {
		body := body()
		if err := oldDefaults(v, body); err != nil {
			t.Fatal(err)
		}
		if h := body.HostConfig; h.IpcMode != want.ipc || len(h.Annotations) != want.annotations || (body.Config.Healthcheck.StartInterval != 0) != want.interval {
			t.Errorf("%s: %+v %+v", v, h, body.Config.Healthcheck)
		}
	}
	asked := body()
	asked.HostConfig.IpcMode, asked.HostConfig.CgroupnsMode = "private", "private"
	if err := oldDefaults(24, asked); err != nil || asked.HostConfig.IpcMode != "private" || asked.HostConfig.CgroupnsMode != "private" {
		t.Errorf("%+v, %v", asked.HostConfig, err)
	}
	two := &api.CreateRequest{NetworkingConfig: &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{"b": nil, "a": nil}}}
	if err := oldDefaults(43, two); !errors.Is(err, fault.Invalid) || !strings.HasSuffix(err.Error(), "multiple network endpoints: a, b") {
		t.Errorf("%v", err)
	}
	if err := oldDefaults(44, two); err != nil {
		t.Error(err)
	}
}
