package daemon

import (
	"encoding/json"
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

func TestHardwareAddressOfOldClients(t *testing.T) {
	const mac, other = "02:42:ac:11:00:42", "02:42:ac:11:00:43"
	for name, c := range map[string]struct {
		v                apiVersion
		mode             api.NetworkMode
		endpoints        string // JSON of EndpointsConfig
		wide             string
		want, on, refuse string
	}{
		"no endpoint":                        {43, "", `null`, mac, mac, "bridge", ""},
		"of one called otherwise, as it was": {25, "0123456789ab", `{"own":{"IPAMConfig":{"IPv4Address":"10.0.0.2"}}}`, mac, mac, "own", ""},
		"of one called otherwise":            {44, "0123456789ab", `{"own":{}}`, mac, "", "", "HostConfig.NetworkMode must match the identity of a network in NetworkSettings.Networks"},
		"of the default one":                 {44, "default", `{"default":null}`, mac, mac, "bridge", ""},
		"an endpoint's, which nobody read":   {43, "own", `{"own":{"MacAddress":"` + other + `"}}`, "", "", "own", ""},
		"an endpoint's":                      {44, "own", `{"own":{"MacAddress":"` + other + `"}}`, "", other, "own", ""},
		"two, before":                        {43, "own", `{"own":{"MacAddress":"` + other + `"}}`, mac, mac, "own", ""},
		"two that differ":                    {44, "own", `{"own":{"MacAddress":"` + other + `"}}`, mac, "", "", "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be left empty"},
		"two that are one":                   {51, "own", `{"own":{"MacAddress":"` + mac + `"}}`, mac, mac, "own", ""},
		"one that is none":                   {51, "own", `{}`, "x", "", "", "invalid MAC address: x"},
		"no network of its own, before":      {43, "host", `{}`, mac, "", "", "conflicting options: mac-address and the network mode"},
		"no network of its own":              {44, "host", `{"host":{}}`, mac, "", "host", ""},
		"gone by now":                        {52, "own", `{"own":{}}`, mac, "", "own", ""},
	} {
		body := &api.CreateRequest{HostConfig: &api.HostConfig{NetworkMode: c.mode}, NetworkingConfig: &network.NetworkingConfig{}}
		if err := json.Unmarshal([]byte(c.endpoints), &body.NetworkingConfig.EndpointsConfig); err != nil {
			t.Fatal(err)
		}
		warnings, err := oldNetworking(c.v, []byte(`{"MacAddress":"`+c.wide+`"}`), body)
		if c.refuse != "" {
			if !errors.Is(err, fault.Invalid) || err.Error() != c.refuse {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		all := body.NetworkingConfig.EndpointsConfig
		if err != nil || len(all) != 1 || all[c.on] == nil || all[c.on].MacAddress.String() != c.want || (len(warnings) > 0) != (c.wide != "" && c.v >= 44 && c.v < 52) {
			t.Errorf("%s: %+v, %q, %v", name, all, warnings, err)
		}
	}
}

func TestWayPriorityIsNewer(t *testing.T) {
	for v, want := range map[apiVersion]int{47: 0, 48: 5} {
		body := &api.CreateRequest{HostConfig: &api.HostConfig{}, NetworkingConfig: &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{"own": {GwPriority: 5}, "nil": nil}}}
		if _, err := oldNetworking(v, []byte(`{}`), body); err != nil || body.NetworkingConfig.EndpointsConfig["own"].GwPriority != want {
			t.Errorf("%s: %+v, %v", v, body.NetworkingConfig.EndpointsConfig["own"], err)
		}
	}
}

func TestNetworksOfOldClientsHaveIPv4(t *testing.T) {
	for v, kept := range map[apiVersion]bool{47: false, 48: true} {
		no := false
		body := &network.CreateRequest{EnableIPv4: &no}
		if oldNetwork(v, body); (body.EnableIPv4 != nil) != kept {
			t.Errorf("%s: %v", v, body.EnableIPv4)
		}
	}
}
