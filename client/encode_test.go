package client

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
)

func TestEncodedRequestsSayTheSame(t *testing.T) {
	no, pids, size := false, int64(0), [2]uint{3, 4}
	for _, v := range []any{
		container.CreateRequest{},
		container.ExecCreateRequest{Cmd: []string{"a", `"quoted" \ <é> ` + "\n"}, ConsoleSize: &size, Tty: true},
		container.CreateRequest{
			Config: &container.Config{Image: "x", Env: []string{}, Entrypoint: []string{""}, ExposedPorts: network.PortSet{network.MustParsePort("80/udp"): {}}, Labels: map[string]string{"a": ""},
				Healthcheck: &container.HealthConfig{Test: []string{"NONE"}, Interval: time.Second}, Volumes: map[string]struct{}{"/v": {}}},
			HostConfig: &container.HostConfig{
				Init: &no, MaskedPaths: []string{}, ConsoleSize: size, DNS: []netip.Addr{netip.MustParseAddr("::1")}, CapAdd: []string{"ALL"},
				PortBindings: network.PortMap{network.MustParsePort("80/tcp"): {{HostPort: "1"}, {HostIP: netip.MustParseAddr("127.0.0.1")}}},
				Resources:    container.Resources{Memory: 5, PidsLimit: &pids, NanoCPUs: 7, BlkioWeightDevice: []*blkiodev.WeightDevice{{Path: "/d", Weight: 3}}, Ulimits: []*container.Ulimit{{Name: "n", Soft: -1}}},
				Mounts:       []mount.Mount{{Type: "tmpfs", Target: "/t", TmpfsOptions: &mount.TmpfsOptions{Mode: 0o1777}}},
				LogConfig:    container.LogConfig{Type: "none", Config: map[string]string{}},
			},
			NetworkingConfig: &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{"n": {MacAddress: network.HardwareAddr{2, 3, 4, 5, 6, 7}, IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr("10.0.0.1")}}, "m": nil}},
		},
	} {
		ours, err := encode(v)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		got, want := reflect.New(reflect.TypeOf(v)), reflect.New(reflect.TypeOf(v))
		if err := json.Unmarshal(ours, got.Interface()); err != nil {
			t.Fatalf("%s: %v", ours, err)
		}
		if err := json.Unmarshal(theirs, want.Interface()); err != nil {
			t.Fatal(err)
		}
		again, _ := json.Marshal(got.Interface())
		wanted, _ := json.Marshal(want.Interface())
		if a, b := full(again), full(wanted); a != b {
			t.Errorf("%s\nis read as %s\nwant       %s", ours, a, b)
		}
		if len(ours) > len(theirs) {
			t.Errorf("%s is no shorter than %s", ours, theirs)
		}
	}
}

// full drops empty maps, which mean the same as none.
func full(b []byte) string {
	var v any
	json.Unmarshal(b, &v)
	var clean func(any) any
	clean = func(v any) any {
		if m, ok := v.(map[string]any); ok {
			for k, e := range m {
				if e = clean(e); e == nil {
					delete(m, k)
				} else if inner, ok := e.(map[string]any); ok && len(inner) == 0 && k != "/v" && k != "80/udp" {
					delete(m, k)
				}
			}
		}
		if l, ok := v.([]any); ok {
			for i := range l {
				l[i] = clean(l[i])
			}
		}
		return v
	}
	out, _ := json.Marshal(clean(v))
	return string(out)
}

func TestUnknownKindsAreLeftToTheLibrary(t *testing.T) {
	for want, v := range map[string]any{`{"A":1.5}`: struct{ A float64 }{1.5}, `{"A":"AQI="}`: struct{ A []byte }{[]byte{1, 2}}, `{"A":"1"}`: struct {
		A int `json:",string"`
	}{1}, `{"raw":1}`: json.RawMessage(`{"raw":1}`), `null`: nil} {
		if got, err := encode(v); err != nil || string(got) != want {
			t.Errorf("got %s, %v; want %s", got, err, want)
		}
	}
}
