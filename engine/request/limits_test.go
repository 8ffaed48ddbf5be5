package request

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"berth/container"
	"berth/fault"
	"berth/oci"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/moby/moby/api/types/blkiodev"
	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	wire "github.com/moby/moby/api/types/network"
)

const mega = 1 << 20

func throttled(path string) []*blkiodev.ThrottleDevice {
	return []*blkiodev.ThrottleDevice{{Path: path, Rate: mega}}
}

// TestLimitsThatTheKernelLacks checks each warning, and that what it names is taken out.
func TestLimitsThatTheKernelLacks(t *testing.T) {
	bare := Machine{CPUs: 2, Limits: &oci.Limits{Version: "1"}}
	for want, r := range map[string]api.Resources{
		"memory limit capabilities or the cgroup is not mounted. Limitation discarded.":                  {Memory: 64 * mega},
		"memory soft limit capabilities or the cgroup is not mounted. Limitation discarded.":             {MemoryReservation: 64 * mega},
		"memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.":      {MemorySwappiness: new(int64(5))},
		"OomKillDisable. OomKillDisable discarded.":                                                      {OomKillDisable: new(true)},
		"PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.":                    {PidsLimit: new(int64(5))},
		"CPU shares or the cgroup is not mounted. Shares discarded.":                                     {CPUShares: 5},
		"CPU CFS scheduler. CPU period/quota discarded.":                                                 {CPUQuota: 5000},
		"CPU real-time scheduling or the cgroup is not mounted. Real-time period and runtime discarded.": {CPURealtimeRuntime: 5000},
		"cpuset or the cgroup is not mounted. Cpuset discarded.":                                         {CpusetCpus: "0"},
		"Block I/O weight or the cgroup is not mounted. Weight discarded.":                               {BlkioWeight: 50},
		"Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.":                 {BlkioWeightDevice: []*blkiodev.WeightDevice{{Path: "/d", Weight: 50}}},
		"BPS Block I/O read limit or the cgroup is not mounted. Block I/O BPS read limit discarded.":     {BlkioDeviceReadBps: throttled("/d")},
		"BPS Block I/O write limit or the cgroup is not mounted. Block I/O BPS write limit discarded.":   {BlkioDeviceWriteBps: throttled("/d")},
		"IOPS Block I/O read limit or the cgroup is not mounted. Block I/O IOPS read limit discarded.":   {BlkioDeviceReadIOps: throttled("/d")},
		"IOPS Block I/O write limit or the cgroup is not mounted. Block I/O IOPS write limit discarded.": {BlkioDeviceWriteIOps: throttled("/d")},
	} {
		warnings, err := Limits(&r, bare, false)
		if err != nil || len(warnings) != 1 || warnings[0] != "Your kernel does not support "+want {
			t.Errorf("%s: %q, %v", want, warnings, err)
		}
		if r.MemorySwap == -1 { // what goes with no limit of memory
			r.MemorySwap = 0
		}
		if !reflect.DeepEqual(r, api.Resources{}) {
			t.Errorf("%s: %+v is left", want, r)
		}
	}
	r := api.Resources{Memory: 64 * mega, MemorySwap: 128 * mega}
	warnings, err := Limits(&r, Machine{CPUs: 2, Limits: &oci.Limits{MemoryLimit: true}}, false)
	if err != nil || !slices.Equal(warnings, []string{"Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap."}) || r.MemorySwap != -1 {
		t.Errorf("%q, %v, %+v", warnings, err, r)
	}
	if _, err := Limits(&api.Resources{NanoCPUs: 1e9}, bare, false); err == nil || !strings.Contains(err.Error(), "NanoCPUs can not be set") {
		t.Error(err)
	}
	r = api.Resources{CPUCount: 1, CPUPercent: 1, IOMaximumIOps: 1}
	if warnings, err := Limits(&r, Machine{CPUs: 2}, false); err != nil || len(warnings) != 3 || !reflect.DeepEqual(r, api.Resources{}) {
		t.Errorf("limits of another system: %q, %v, %+v", warnings, err, r)
	}
}

func TestRefusedLimits(t *testing.T) {
	m := Machine{CPUs: 2, Limits: &oci.Limits{CPUSet: true, Cpus: "0-1,4", Mems: "0", CPUCfsPeriod: true, CPUCfsQuota: true, CPURealtime: true, MemoryLimit: true, SwapLimit: true, Swappiness: true}}
	for want, r := range map[string]api.Resources{
		"Requested CPUs are not available - requested 0-2, available: 0-1,4":   {CpusetCpus: "0-2"},
		"Requested memory nodes are not available - requested 1, available: 0": {CpusetMems: "1"},
		"Invalid value 3-1 for cpuset cpus":                                    {CpusetCpus: "3-1"},
		"Invalid value , for cpuset mems":                                      {CpusetMems: ","},
		"Invalid value 0-99999 for cpuset cpus":                                {CpusetCpus: "0-99999"},
		"invalid memory swap: -2":                                              {MemorySwap: -2},
		"Invalid value: 101, valid memory swappiness range is 0-100":           {MemorySwappiness: new(int64(101))},
		"invalid memory reservation: -1":                                       {MemoryReservation: -1},
		"invalid CPU shares (-1): value must be a positive integer":            {CPUShares: -1},
		"cpu real-time runtime cannot be higher than cpu real-time period":     {CPURealtimePeriod: 100, CPURealtimeRuntime: 200},
		"Range of blkio weight is from 10 to 1000":                             {BlkioWeight: 1001},
		"a block I/O limit names no device":                                    {BlkioDeviceReadBps: []*blkiodev.ThrottleDevice{nil}},
	} {
		if _, err := Limits(&r, m, true); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	r := api.Resources{CpusetCpus: "4,0-1", CpusetMems: "0", MemorySwap: 64 * mega, MemorySwappiness: new(int64(-1))}
	if warnings, err := Limits(&r, m, true); len(warnings) > 0 || err != nil || r.MemorySwappiness != nil {
		t.Errorf("%q, %v, %+v", warnings, err, r)
	}
	for class, c := range map[uint32]struct {
		limits *oci.Limits
		want   string
	}{
		0: {&oci.Limits{Version: "2"}, ""}, 1: {nil, ""}, 2: {&oci.Limits{NetClass: true}, ""},
		3: {&oci.Limits{Version: "2"}, "cgroup v2 has no network classes"}, 4: {&oci.Limits{Version: "1"}, "no net_cls cgroup controller, or it is not mounted"},
	} {
		err := NetClass(class, Machine{Limits: c.limits})
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || !errors.Is(err, fault.Unsupported)) {
			t.Errorf("class %d: %v", class, err)
		}
	}
}

func FuzzSets(f *testing.F) {
	for _, s := range []string{"", "0", "0-3,7", "3-1", "1,", "0-8192"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		set, err := parseSet(s)
		if err == nil && len(set) > maxSet || err != nil && !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: %d, %v", s, len(set), err)
		}
	})
}

func TestUpdateLimits(t *testing.T) {
	old := api.Resources{Memory: 64 * mega, MemorySwap: 128 * mega, CPUShares: 5, PidsLimit: new(int64(9)), BlkioDeviceReadBps: throttled("/a"), BlkioDeviceWriteBps: throttled("/b")}
	for name, c := range map[string]struct{ change, want api.Resources }{
		"nothing":           {api.Resources{}, old},
		"one":               {api.Resources{CPUShares: 7}, with(old, func(r *api.Resources) { r.CPUShares = 7 })},
		"no limit of pids":  {api.Resources{PidsLimit: new(int64(-1))}, with(old, func(r *api.Resources) { r.PidsLimit = new(int64(0)) })},
		"another list":      {api.Resources{BlkioDeviceReadBps: throttled("/c")}, with(old, func(r *api.Resources) { r.BlkioDeviceReadBps = throttled("/c") })},
		"memory below swap": {api.Resources{Memory: 128 * mega}, with(old, func(r *api.Resources) { r.Memory = 128 * mega })},
		"swap without end":  {api.Resources{MemorySwap: -1}, with(old, func(r *api.Resources) { r.MemorySwap = -1 })},
	} {
		got, err := UpdateLimits(&old, &c.change)
		if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
	}
	if got, err := UpdateLimits(&api.Resources{}, &api.Resources{Memory: 64 * mega}); err != nil || got.MemorySwap != 128*mega {
		t.Errorf("the first limit: %+v, %v", got, err)
	}
	if got, err := UpdateLimits(&api.Resources{Memory: 64 * mega, MemorySwap: -1}, &api.Resources{Memory: 80 * mega}); err != nil || got.MemorySwap != -1 {
		t.Errorf("beside swap without end: %+v, %v", got, err)
	}
	for want, c := range map[string]struct{ old, change api.Resources }{
		"Memory limit should be smaller than already set memoryswap limit": {old, api.Resources{Memory: 200 * mega}},
		"Minimum memoryswap limit should be larger than memory limit":      {old, api.Resources{MemorySwap: 32 * mega}},
		"You should always set the Memory limit when using Memoryswap":     {api.Resources{}, api.Resources{MemorySwap: 32 * mega}},
		"can not be less than memory reservation limit":                    {old, api.Resources{MemoryReservation: 65 * mega}},
		"Nano CPUs cannot be updated as CPU Quota has already been set":    {api.Resources{CPUQuota: 5000}, api.Resources{NanoCPUs: 1e9}},
	} {
		if _, err := UpdateLimits(&c.old, &c.change); err == nil || fault.Of(err) == "" || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func with(r api.Resources, change func(*api.Resources)) api.Resources {
	change(&r)
	return r
}

// resting is a record with something of everything that can be changed.
func resting() *container.Record {
	return &container.Record{
		ID: "cafe",
		Config: &api.Config{
			Env: []string{"A=1", "B", "C=3"}, Labels: map[string]string{"l": "1"}, Volumes: map[string]struct{}{"/anonymous": {}},
			Healthcheck: &api.HealthConfig{Test: []string{"CMD", "x"}, Retries: 3}, ExposedPorts: wire.PortSet{wire.MustParsePort("80"): {}, wire.MustParsePort("90"): {}},
		},
		HostConfig: &api.HostConfig{
			NetworkMode: "bridge", PortBindings: wire.PortMap{wire.MustParsePort("80"): {{HostPort: "8080"}, {HostPort: "8081"}}},
			Binds: []string{"/host:/bind"}, Mounts: []mount.Mount{{Type: mount.TypeVolume, Source: "v", Target: "/volume"}}, Tmpfs: map[string]string{"/tmpfs": ""},
			VolumesFrom: []string{"other"},
		},
		Mounts: []container.Mount{
			{Type: mount.TypeVolume, Name: "id", Destination: "/anonymous", Anonymous: true}, {Type: mount.TypeBind, Source: "/host", Destination: "/bind"},
			{Type: mount.TypeVolume, Name: "theirs", Destination: "/inherited"}, {Type: mount.TypeVolume, Name: "v", Destination: "/volume"},
		},
	}
}

func TestChanged(t *testing.T) {
	old, same := resting(), resting()
	next, warnings, err := Changed(old, Update{
		Resources: api.Resources{CPUShares: 9}, RestartPolicy: api.RestartPolicy{Name: "always"},
		Changes: Changes{
			EnvAdd: []string{"A=2", "D=4"}, EnvRemove: []string{"B", "nosuch"}, LabelAdd: map[string]string{"m": "2"}, LabelRemove: []string{"l"},
			PublishAdd: wire.PortMap{wire.MustParsePort("53/udp"): nil, wire.MustParsePort("80"): {{HostPort: "8082"}}}, PublishRemove: []string{"8080:80"},
			MountAdd: []mount.Mount{{Type: mount.TypeTmpfs, Target: "/fresh/"}}, MountRemove: []string{"/bind/", "/volume", "/tmpfs", "/anonymous"},
			Health: &api.HealthConfig{Interval: 5e9},
		},
	}, Machine{CPUs: 2, Network: "bridge"})
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	if diff := cmp.Diff(same, old, cmpopts.EquateComparable(wire.Port{}), cmpopts.EquateComparable(wire.PortBinding{}.HostIP)); diff != "" {
		t.Errorf("the old record was changed:\n%s", diff)
	}
	c, h := next.Config, next.HostConfig
	if !slices.Equal(c.Env, []string{"A=2", "C=3", "D=4"}) || !reflect.DeepEqual(c.Labels, map[string]string{"m": "2"}) || h.CPUShares != 9 || h.RestartPolicy.Name != "always" {
		t.Errorf("%q %v %d %v", c.Env, c.Labels, h.CPUShares, h.RestartPolicy)
	}
	if c.Healthcheck.Retries != 3 || c.Healthcheck.Interval != 5e9 || len(c.Healthcheck.Test) != 2 {
		t.Errorf("%+v", c.Healthcheck)
	}
	if p := h.PortBindings[wire.MustParsePort("80")]; len(p) != 2 || p[0].HostPort != "8081" || p[1].HostPort != "8082" || len(h.PortBindings[wire.MustParsePort("53/udp")]) != 1 || len(c.ExposedPorts) != 3 {
		t.Errorf("%+v %v", h.PortBindings, c.ExposedPorts)
	}
	if len(h.Binds)+len(h.Tmpfs)+len(c.Volumes) != 0 || len(h.Mounts) != 1 || len(next.Mounts) != 2 || next.Mounts[0].Destination != "/fresh" || next.Mounts[1].Name != "theirs" {
		t.Errorf("%+v %+v %+v", h.Binds, h.Mounts, next.Mounts)
	}
	all := resting()
	all.HostConfig.PublishAllPorts = true
	if next, _, err := Changed(all, Update{Changes: Changes{PublishRemove: []string{"90", "80/tcp"}}}, Machine{CPUs: 2}); err != nil || len(next.HostConfig.PortBindings)+len(next.Config.ExposedPorts) != 0 {
		t.Errorf("%+v, %v", next, err)
	}
}

func TestRefusedChanges(t *testing.T) {
	for want, c := range map[string]Changes{
		"write NAME=VALUE":                            {EnvAdd: []string{"A"}},
		"name it without its value":                   {EnvRemove: []string{"A=1"}},
		"port 99 is not published":                    {PublishRemove: []string{"99"}},
		"port 1:80 is not published":                  {PublishRemove: []string{"1:80"}},
		`invalid published port "x:80"`:               {PublishRemove: []string{"x:80"}},
		`invalid published port "http"`:               {PublishRemove: []string{"http"}},
		"port 80/tcp is published on 8080 already":    {PublishAdd: wire.PortMap{wire.MustParsePort("80"): {{HostPort: "8080"}}}},
		`protocol "dccp" can't be published`:          {PublishAdd: wire.PortMap{wire.MustParsePort("80/dccp"): nil}},
		"Duplicate mount point: /bind":                {MountAdd: []mount.Mount{{Type: mount.TypeTmpfs, Target: "/bind"}}},
		"Duplicate mount point: /tmpfs":               {MountAdd: []mount.Mount{{Type: mount.TypeTmpfs, Target: "/tmpfs"}}},
		"invalid mount config for type \"bind\"":      {MountAdd: []mount.Mount{{Type: mount.TypeBind, Target: "/x"}}},
		"nothing is mounted at /nothing":              {MountRemove: []string{"/nothing"}},
		"name its absolute path":                      {MountRemove: []string{"bind"}},
		"comes with the volumes of another container": {MountRemove: []string{"/inherited"}},
	} {
		if next, _, err := Changed(resting(), Update{Changes: c}, Machine{CPUs: 2}); err == nil || fault.Of(err) == "" || !strings.Contains(err.Error(), want) || next != nil {
			t.Errorf("%s: %v", want, err)
		}
	}
	joined := resting()
	joined.HostConfig.NetworkMode, joined.HostConfig.PortBindings = "container:x", nil
	if _, _, err := Changed(joined, Update{Changes: Changes{PublishAdd: wire.PortMap{wire.MustParsePort("1"): nil}}}, Machine{CPUs: 2}); err == nil || !strings.Contains(err.Error(), "container type network mode") {
		t.Error(err)
	}
	hosts := resting()
	hosts.HostConfig.NetworkMode = "host"
	if _, warnings, err := Changed(hosts, Update{Changes: Changes{PublishAdd: wire.PortMap{wire.MustParsePort("1"): nil}}}, Machine{CPUs: 2}); err != nil || len(warnings) != 1 {
		t.Error(warnings, err)
	}
}
