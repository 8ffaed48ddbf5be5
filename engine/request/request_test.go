package request

import (
	"errors"
	"net/netip"
	"path"
	"strings"
	"testing"

	"berth/container"
	"berth/engine/bundle"
	"berth/fault"
	"berth/network"

	"github.com/docker/go-units"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	wire "github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestMerge(t *testing.T) {
	img := dockerspec.DockerOCIImageConfig{ImageConfig: ocispec.ImageConfig{
		User: "www", Env: []string{"A=image", "B=image"}, Entrypoint: []string{"/entry"}, Cmd: []string{"serve"}, WorkingDir: "/srv",
		Labels: map[string]string{"l": "image", "m": "image"}, ExposedPorts: map[string]struct{}{"80/tcp": {}, "90-91/udp": {}},
		Volumes: map[string]struct{}{"/v": {}}, StopSignal: "INT",
	}, DockerOCIImageConfigExt: dockerspec.DockerOCIImageConfigExt{Healthcheck: &dockerspec.HealthcheckConfig{Test: []string{"CMD", "x"}, Retries: 3}}}
	user := &api.Config{Env: []string{"A=user", "B"}, Labels: map[string]string{"l": "user"}, Healthcheck: &api.HealthConfig{Retries: 5}}
	got, err := Merge(user, img)
	if err != nil {
		t.Fatal(err)
	}
	want := &api.Config{
		User: "www", Env: []string{"A=user", "B"}, Entrypoint: []string{"/entry"}, Cmd: []string{"serve"}, WorkingDir: "/srv",
		Labels:  map[string]string{"l": "user", "m": "image"},
		Volumes: map[string]struct{}{"/v": {}}, StopSignal: "INT", Healthcheck: &api.HealthConfig{Test: []string{"CMD", "x"}, Retries: 5},
		ExposedPorts: wire.PortSet{wire.MustParsePort("80/tcp"): {}, wire.MustParsePort("90/udp"): {}, wire.MustParsePort("91/udp"): {}},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(wire.Port{})); diff != "" {
		t.Error(diff)
	}
	if user.User != "" || len(user.Env) != 2 || user.Labels["m"] != "" {
		t.Error("the user's config was changed")
	}
	for name, c := range map[string]struct {
		entrypoint, cmd, wantEntrypoint, wantCmd []string
	}{
		"command":           {nil, []string{"x"}, []string{"/entry"}, []string{"x"}},
		"entry point":       {[]string{"e"}, nil, []string{"e"}, nil},
		"both":              {[]string{"e"}, []string{"x"}, []string{"e"}, []string{"x"}},
		"none by a blank":   {[]string{""}, []string{"x"}, nil, []string{"x"}},
		"none by emptiness": {[]string{}, []string{"x"}, []string{}, []string{"x"}},
	} {
		got, err := Merge(&api.Config{Entrypoint: c.entrypoint, Cmd: c.cmd}, img)
		if err != nil || !cmp.Equal(got.Entrypoint, c.wantEntrypoint) || !cmp.Equal(got.Cmd, c.wantCmd) {
			t.Errorf("%s: %q %q, %v", name, got.Entrypoint, got.Cmd, err)
		}
	}
	if _, err := Merge(&api.Config{}, dockerspec.DockerOCIImageConfig{}); !errors.Is(err, fault.Invalid) || err.Error() != "no command specified" {
		t.Errorf("nothing to run: %v", err)
	}
}

func TestWorkingDirectoryIsClean(t *testing.T) {
	for dir, want := range map[string]string{"/tmp/": "/tmp", "/a/../b//c": "/b/c", "": "/img"} {
		c, err := Merge(&api.Config{WorkingDir: dir, Cmd: []string{"x"}}, dockerspec.DockerOCIImageConfig{ImageConfig: ocispec.ImageConfig{WorkingDir: "/img/"}})
		if err != nil || c.WorkingDir != want {
			t.Errorf("%q: %+v, %v", dir, c, err)
		}
	}
}

func TestRefusedHostConfigs(t *testing.T) {
	for want, h := range map[string]api.HostConfig{
		"Minimum memory limit allowed is 6MB":                                    {Resources: api.Resources{Memory: 1 << 20}},
		"You should always set the Memory limit when using Memoryswap":           {Resources: api.Resources{MemorySwap: 1 << 30}},
		"Minimum memoryswap limit should be larger than memory limit":            {Resources: api.Resources{Memory: 1 << 30, MemorySwap: 1 << 20}},
		"range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available": {Resources: api.Resources{NanoCPUs: 3e9}},
		"Nano CPUs and CPU Period cannot both be set":                            {Resources: api.Resources{NanoCPUs: 1e9, CPUPeriod: 100000}},
		"CPU cfs period can not be less than 1ms":                                {Resources: api.Resources{CPUPeriod: 1}},
		"CPU cfs quota can not be less than 1ms":                                 {Resources: api.Resources{CPUQuota: 1}},
		"SHM size can not be less than 0":                                        {ShmSize: -1},
		"range for oom score adj is [-1000, 1000]":                               {OomScoreAdj: 2000},
		"unknown capability":                                                     {CapAdd: []string{"FLY"}},
		"invalid --security-opt":                                                 {SecurityOpt: []string{"x"}},
		"the empty string is not permitted as an annotation key":                 {Annotations: map[string]string{"": "x"}},
		"invalid CPU shares (-1): value must be a positive integer":              {Resources: api.Resources{CPUShares: -1}},
		"invalid device cgroup rule format":                                      {Resources: api.Resources{DeviceCgroupRules: []string{"x"}}},
		"invalid ulimit name":                                                    {Resources: api.Resources{Ulimits: []*units.Ulimit{{Name: "x"}}}},
		"soft limit must be less than or equal":                                  {Resources: api.Resources{Ulimits: []*units.Ulimit{{Name: "core", Soft: 2, Hard: 1}}}},
		"unknown or invalid runtime name: x":                                     {Runtime: "x"},
		"can't create 'AutoRemove' container with restart policy":                {AutoRemove: true, RestartPolicy: api.RestartPolicy{Name: "always"}},
		"maximum retry count can only be used with 'on-failure'":                 {RestartPolicy: api.RestartPolicy{Name: "always", MaximumRetryCount: 3}},
		"no log driver named 'x' is registered":                                  {LogConfig: api.LogConfig{Type: "x"}},
		"unknown log opt 'x' for json-file log driver":                           {LogConfig: api.LogConfig{Config: map[string]string{"x": "y"}}},
		"invalid value for max-size":                                             {LogConfig: api.LogConfig{Config: map[string]string{"max-size": "big"}}},
		"Unknown option color":                                                   {StorageOpt: map[string]string{"color": "red"}},
		"--storage-opt size=much":                                                {StorageOpt: map[string]string{"size": "much"}},
		"container type network can't be used with links":                        {NetworkMode: "container:x", Links: []string{"a"}},
		"port publishing and the container type network mode":                    {NetworkMode: "container:x", PublishAllPorts: true},
		"invalid PID mode":                                                       {PidMode: "x"},
		"invalid IPC mode":                                                       {IpcMode: "x"},
		"bad format for add-host":                                                {ExtraHosts: []string{"x"}},
		"invalid IP address in add-host":                                         {ExtraHosts: []string{"x:y"}},
		"can't be published":                                                     {PortBindings: wire.PortMap{wire.MustParsePort("1/dccp"): nil}},
		"invalid port specification":                                             {PortBindings: wire.PortMap{wire.MustParsePort("1/tcp"): {{HostPort: "9-8"}}}},
	} {
		if _, _, err := Complete(&h, &api.Config{}, Machine{CPUs: 2, Network: "bridge"}); err == nil || !strings.Contains(err.Error(), want) || fault.Of(err) == "" {
			t.Errorf("%s: %v", want, err)
		}
	}
	for want, c := range map[string]api.Config{
		"the working directory 'x' is invalid": {WorkingDir: "x"},
		"invalid environment variable: =x":     {Env: []string{"=x"}},
		"Invalid signal: x":                    {StopSignal: "x"},
		"invalid hostname":                     {Hostname: "a/b"},
	} {
		if _, _, err := Complete(nil, &c, Machine{CPUs: 2, Network: "bridge"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestHostDefaults(t *testing.T) {
	given := &api.HostConfig{Resources: api.Resources{Memory: 64 << 20}, PortBindings: wire.PortMap{wire.MustParsePort("80"): nil}, NetworkMode: "host"}
	h, warnings, err := Complete(given, &api.Config{}, Machine{CPUs: 2, Network: "bridge"})
	if err != nil {
		t.Fatal(err)
	}
	if h.MemorySwap != 128<<20 || h.ShmSize != bundle.DefaultShmSize || h.Runtime != "berth" || h.LogConfig.Type != "json-file" || h.RestartPolicy.Name != "no" || len(h.MaskedPaths) == 0 {
		t.Errorf("%+v", h)
	}
	if len(warnings) != 1 || given.MemorySwap != 0 {
		t.Errorf("%q, %+v", warnings, given)
	}
	if h, _, err = Complete(nil, &api.Config{}, Machine{CPUs: 2, Network: "bridge"}); err != nil || h.NetworkMode != "bridge" {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestMounts(t *testing.T) {
	other := []container.Mount{{Type: mount.TypeVolume, Name: "theirs", Destination: "/theirs", Anonymous: true}}
	got, err := Mounts(
		&api.Config{Volumes: map[string]struct{}{"/anon": {}, "/named/": {}}},
		&api.HostConfig{
			Binds:       []string{"/host:/bind:ro,rslave,z", "data:/named:nocopy", "/alone"},
			VolumesFrom: []string{"x:ro"},
			Tmpfs:       map[string]string{"/tmp": ""},
			Mounts: []mount.Mount{
				{Type: mount.TypeBind, Source: "/a/../b", Target: "/m", ReadOnly: true, BindOptions: &mount.BindOptions{NonRecursive: true, Propagation: "shared"}},
				{Type: mount.TypeVolume, Target: "/fresh", VolumeOptions: &mount.VolumeOptions{Labels: map[string]string{"a": "b"}}},
				{Type: mount.TypeImage, Source: "img", Target: "/i", ImageOptions: &mount.ImageOptions{Subpath: "etc"}},
				{Type: mount.TypeVolume, Source: "far", Target: "/far", VolumeOptions: &mount.VolumeOptions{Subpath: "x/../y", DriverConfig: &mount.Driver{Name: "net", Options: map[string]string{"o": "p"}}}},
				{Type: mount.TypeTmpfs, Target: "/t", TmpfsOptions: &mount.TmpfsOptions{SizeBytes: 5, Mode: 0o700, Options: [][]string{{"exec"}, {"uid", "7"}}}},
			},
		}, func(string) ([]container.Mount, error) { return other, nil })
	if err != nil {
		t.Fatal(err)
	}
	want := []container.Mount{
		{Type: mount.TypeVolume, Destination: "/alone", Anonymous: true, Recursive: true, Mode: "z"},
		{Type: mount.TypeVolume, Destination: "/anon", Anonymous: true, Recursive: true},
		{Type: mount.TypeBind, Source: "/host", Destination: "/bind", Mode: "ro,rslave,z", ReadOnly: true, Propagation: "rslave", Recursive: true},
		{Type: mount.TypeVolume, Name: "far", Destination: "/far", Recursive: true, Explicit: true, Subpath: "x/../y", Driver: "net", DriverOptions: map[string]string{"o": "p"}},
		{Type: mount.TypeVolume, Destination: "/fresh", Anonymous: true, Recursive: true, Explicit: true, Labels: map[string]string{"a": "b"}, Mode: "z"},
		{Type: mount.TypeImage, Source: "img", Destination: "/i", ReadOnly: true, Recursive: true, Explicit: true, Subpath: "etc", Propagation: "rprivate"},
		{Type: mount.TypeBind, Source: "/b", Destination: "/m", ReadOnly: true, Propagation: "shared", Explicit: true},
		{Type: mount.TypeVolume, Name: "data", Destination: "/named", Mode: "nocopy", NoCopy: true, Recursive: true},
		{Type: mount.TypeTmpfs, Destination: "/t", Options: []string{"size=5", "mode=700", "exec", "uid=7"}, Recursive: true, Explicit: true},
		{Type: mount.TypeVolume, Name: "theirs", Destination: "/theirs", ReadOnly: true, NoCopy: true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if !other[0].Anonymous || other[0].ReadOnly {
		t.Error("the other container's mounts were changed")
	}
	for bind, want := range map[string]string{
		"":                       "invalid volume specification",
		":/x":                    "invalid volume specification",
		"/a:":                    "invalid volume specification",
		"/a:/b:ro:x":             "invalid volume specification",
		"/a:/":                   "destination can't be '/'",
		"/a:b":                   "mount path must be absolute",
		"/a:/b:rw,ro":            "invalid mode: rw,ro",
		"/a:/b:fly":              "invalid mode: fly",
		"/x:ro":                  "invalid volume specification: '/x:ro'",
		"v:/c:rshared":           `invalid volume specification: 'v:/c:rshared': invalid mount config for type "volume": field BindOptions must not be specified`,
		"/v:/c:nocopy":           `invalid volume specification: '/v:/c:nocopy': invalid mount config for type "bind": field VolumeOptions must not be specified`,
		"v:/c:idmap":             "a volume's owners need no mapping",
		"/a:/b:z,Z":              "invalid mode: z,Z",
		"/a:/b:cached,delegated": "invalid mode",
		"/a:/b:ro,ro":            "invalid mode",
		"/a:/b:ro,":              "invalid mode",
		`C:\x:/b`:                "invalid mode: /b",
		"/a:/b:shared,rprivate":  "invalid mode",
	} {
		if _, err := Mounts(&api.Config{}, &api.HostConfig{Binds: []string{bind}}, nil); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", bind, err)
		}
	}
	for _, from := range []string{"", ":ro", "x:nocopy", "x:rshared", "x:idmap", "x:ro,rw"} {
		if _, err := Mounts(&api.Config{}, &api.HostConfig{VolumesFrom: []string{from}}, nil); !errors.Is(err, fault.Invalid) {
			t.Errorf("volumes-from %q: %v", from, err)
		}
	}
	if _, err := Mounts(&api.Config{}, &api.HostConfig{VolumesFrom: []string{"other:bar"}}, nil); !errors.Is(err, fault.Invalid) || err.Error() != "invalid mode: bar" {
		t.Errorf("%v", err)
	}
	if _, err := Mounts(&api.Config{}, &api.HostConfig{Binds: []string{"/a:/x", "/b:/x/"}}, nil); err == nil || err.Error() != "Duplicate mount point: /x" {
		t.Errorf("twice: %v", err)
	}
	if _, err := Mounts(&api.Config{}, &api.HostConfig{VolumesFrom: []string{"x:bar"}}, func(string) ([]container.Mount, error) { return other, nil }); !errors.Is(err, fault.Invalid) || err.Error() != "invalid mode: bar" {
		t.Errorf("volumes-from: %v", err)
	}
	for want, m := range map[string]mount.Mount{
		`invalid mount config for type "bind": field Source must not be empty`:        {Type: mount.TypeBind, Target: "/x"},
		`invalid mount config for type "bind": field Target must not be empty`:        {Type: mount.TypeBind, Source: "/x"},
		`invalid mount config for type "x": mount type unknown`:                       {Type: "x", Target: "/x"},
		`invalid mount config for type "npipe": mount type unknown`:                   {Type: mount.TypeNamedPipe, Source: "x", Target: "/x"},
		`invalid mount config for type "cluster": mount type unknown`:                 {Type: mount.TypeCluster, Source: "x", Target: "/x"},
		`invalid mount config for type "bind": field VolumeOptions must not be speci`: {Type: mount.TypeBind, Source: "/x", Target: "/x", VolumeOptions: &mount.VolumeOptions{}},
		`invalid mount config for type "image": field Source must not be empty`:       {Type: mount.TypeImage, Target: "/x"},
		`invalid mount config for type "image": subpath must be a relative path with`: {Type: mount.TypeImage, Source: "i", Target: "/x", ImageOptions: &mount.ImageOptions{Subpath: "../x"}},
		`invalid mount config for type "volume": must not set Subpath when using ano`: {Type: mount.TypeVolume, Target: "/x", VolumeOptions: &mount.VolumeOptions{Subpath: "x"}},
		`invalid mount config for type "tmpfs": invalid option: size`:                 {Type: mount.TypeTmpfs, Target: "/x", TmpfsOptions: &mount.TmpfsOptions{Options: [][]string{{"size", "1"}}}},
		`invalid mount config for type "tmpfs": invalid option array length`:          {Type: mount.TypeTmpfs, Target: "/x", TmpfsOptions: &mount.TmpfsOptions{Options: [][]string{{"uid", "1", "2"}}}},
		`invalid mount config for type "bind": invalid specification: destination ca`: {Type: mount.TypeBind, Source: "/x", Target: "/.."},
		`invalid mount config for type "bind": ReadOnlyForceRecursive needs ReadOnly`: {Type: mount.TypeBind, Source: "/x", Target: "/x", BindOptions: &mount.BindOptions{ReadOnlyForceRecursive: true}},
		`invalid mount config for type "volume": subpath must be a relative path wi`:  {Type: mount.TypeVolume, Source: "v", Target: "/x", VolumeOptions: &mount.VolumeOptions{Subpath: "/etc"}},
		`invalid mount config for type "volume": subpath must be a relative path w`:   {Type: mount.TypeVolume, Source: "v", Target: "/x", VolumeOptions: &mount.VolumeOptions{Subpath: "a/../../b"}},
		`invalid mount config for type "tmpfs": field Source must not be specified`:   {Type: mount.TypeTmpfs, Source: "x", Target: "/x"},
		`invalid mount config for type "bind": invalid mount path: 'x' mount path mu`: {Type: mount.TypeBind, Source: "x", Target: "/x"},
	} {
		if _, err := readMount(m); !errors.Is(err, fault.Invalid) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func FuzzBind(f *testing.F) {
	for _, s := range []string{"/a:/b:ro", "v:/x", "/x", "::", "/a:/b:rshared,z"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := parseBind(s, "")
		if err == nil && (!path.IsAbs(m.Destination) || m.Destination == "/" || path.Clean(m.Destination) != m.Destination || m.Source != "" && !path.IsAbs(m.Source)) {
			t.Errorf("%q: %+v", s, m)
		}
	})
}

func TestSignals(t *testing.T) {
	for s, want := range map[string]int{"TERM": 15, "SIGKILL": 9, "sigint": 2, "1": 1, "64": 64, "RTMIN": 34, "SIGRTMIN+3": 37, "RTMAX-1": 63, "RTMAX": 64, "SYS": 31, "POLL": 29} {
		if got, err := Signal(s); err != nil || got != want {
			t.Errorf("%s: %d, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "0", "65", "-1", "SIG", "NONE", "RTMIN+31", "RTMIN+-1", "RTMAX-x", "RTMAX-99"} {
		if _, err := Signal(s); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestExtraHosts(t *testing.T) {
	gateways := []netip.Addr{netip.MustParseAddr("172.17.0.1"), netip.MustParseAddr("fd00::1")}
	for s, want := range map[string]string{"a:10.0.0.1": "10.0.0.1", "a=10.0.0.1": "10.0.0.1", "a:host-gateway": "172.17.0.1 fd00::1", "a:[::1]": "::1", "a:::1": "::1"} {
		lines, err := ExtraHost(s, gateways)
		var got []string
		for _, l := range lines {
			got = append(got, l.Address.String())
		}
		if err != nil || strings.Join(got, " ") != want || lines[0].Names[0] != "a" {
			t.Errorf("%s: %+v, %v", s, lines, err)
		}
	}
}

func TestPorts(t *testing.T) {
	http, dns, other := wire.MustParsePort("80/tcp"), wire.MustParsePort("53/udp"), wire.MustParsePort("9/tcp")
	c := &api.Config{ExposedPorts: wire.PortSet{http: {}, dns: {}, other: {}}}
	local := netip.MustParseAddr("127.0.0.1")
	h := &api.HostConfig{PublishAllPorts: true, PortBindings: wire.PortMap{http: {{HostIP: local, HostPort: "8080"}, {HostPort: "9000-9005"}}, dns: {{}}}}
	got, err := Ports(c, h)
	want := []network.PortRequest{
		{Port: 9, Proto: "tcp"}, {Port: 53, Proto: "udp"},
		{HostIP: local, HostPort: 8080, Port: 80, Proto: "tcp"}, {HostPort: 9000, HostPortEnd: 9005, Port: 80, Proto: "tcp"},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

func TestForeignSettingsAreWarnedAbout(t *testing.T) {
	given := &api.HostConfig{Isolation: "hyperv", Resources: api.Resources{CPUCount: 1, CPUPercent: 2, IOMaximumBandwidth: 3, IOMaximumIOps: 4}}
	h, warnings, err := Complete(given, &api.Config{}, Machine{CPUs: 2, Network: "bridge"})
	if err != nil || len(warnings) != 4 || h.Isolation != "" || h.CPUCount != 0 || h.IOMaximumIOps != 0 {
		t.Errorf("%q, %v, %+v", warnings, err, h)
	}
	if _, _, err := Complete(&api.HostConfig{Isolation: "bogus"}, &api.Config{}, Machine{CPUs: 2, Network: "bridge"}); err == nil {
		t.Error("an isolation that nobody knows is taken")
	}
}
