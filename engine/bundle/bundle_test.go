package bundle

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"berth/container"
	"berth/fault"
	"berth/oci"
	"berth/union"

	"github.com/docker/go-units"
	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/blkiodev"
	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

var update = flag.Bool("update", false, "write the golden files anew")

// noFilter stands for the default seccomp filter, which is another package's business and long.
type noFilter struct{}

func (noFilter) ForCapabilities(caps []string) (*oci.Filter, error) {
	return &oci.Filter{Code: []byte("default for " + strings.Join(caps, ","))}, nil
}

// plain is a container with nothing special, as Create records it.
func plain(change func(*Facts)) *Facts {
	h := &api.HostConfig{
		NetworkMode: "bridge", IpcMode: "private", CgroupnsMode: "private", ShmSize: DefaultShmSize, Runtime: "berth",
		MaskedPaths: DefaultMaskedPaths(), ReadonlyPaths: DefaultReadonlyPaths(),
	}
	f := &Facts{
		Record: &container.Record{
			ID: "cafe", Path: "sh", Args: []string{"-c", "true"},
			Config: &api.Config{Hostname: "cafe", Env: []string{"A=1", "PATH=/bin"}}, HostConfig: h,
		},
		Root:  union.Root{Merged: "/roots/cafe", Mount: union.Mount{Type: "overlay", Source: "overlay", Options: []string{"lowerdir+=/l", "upperdir=/u", "workdir=/w"}}},
		Files: "/files", CgroupParent: "/berth", Seccomp: noFilter{}, Join: map[specs.LinuxNamespaceType]string{},
	}
	if change != nil {
		change(f)
	}
	return f
}

func bundleOf(t *testing.T, change func(*Facts)) *oci.Bundle {
	t.Helper()
	b, err := New(plain(change))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestGoldenBundles(t *testing.T) {
	for name, change := range map[string]func(*Facts){
		"plain": nil,
		"privileged": func(f *Facts) {
			f.Record.HostConfig.Privileged, f.Record.HostConfig.MaskedPaths, f.Record.HostConfig.ReadonlyPaths = true, nil, nil
			f.Record.HostConfig.CgroupnsMode = "host"
			f.HostDevices = []specs.LinuxDevice{{Path: "/dev/sda", Type: "b", Major: 8}}
		},
		"everything": func(f *Facts) {
			c, h := f.Record.Config, f.Record.HostConfig
			c.Tty, c.User, c.WorkingDir, c.Domainname = true, "guest", "/srv", "example.org"
			h.ConsoleSize, h.OomScoreAdj, h.GroupAdd, h.Init, h.Umask = [2]uint{24, 80}, -5, []string{"audio"}, new(true), new(uint32(0o27))
			h.ReadonlyRootfs, h.ShmSize = true, 1<<20
			h.Memory, h.MemorySwap, h.NanoCPUs, h.PidsLimit, h.CPUShares, h.CpusetCpus = 64<<20, -1, 1_500_000_000, new(int64(20)), 512, "0-1"
			h.BlkioWeight, h.BlkioDeviceReadBps = 300, []*blkiodev.ThrottleDevice{{Path: "/dev/sda", Rate: 1000}}
			f.BlockDevices = map[string]specs.LinuxBlockIODevice{"/dev/sda": {Major: 8}}
			h.CapAdd, h.CapDrop, h.SecurityOpt = []string{"net_admin"}, []string{"CAP_MKNOD"}, []string{"no-new-privileges", "seccomp=unconfined", "label=disable"}
			h.Ulimits = []*units.Ulimit{{Name: "nofile", Soft: 10, Hard: 20}}
			h.Sysctls, h.Annotations = map[string]string{"net.core.somaxconn": "7"}, map[string]string{"k": "v"}
			h.DeviceCgroupRules = []string{"c 42:* rm"}
			f.Devices = []Device{{specs.LinuxDevice{Path: "/dev/x", Type: "c", Major: 4, Minor: 5}, "rw"}}
			h.Tmpfs = map[string]string{"/run": "", "/work": "exec,size=1m"}
			f.Mounts = []Mount{
				{Mount: container.Mount{Type: mount.TypeBind, Destination: "/srv/deep", Recursive: true, Propagation: "rslave"}, Path: "/host/deep"},
				{Mount: container.Mount{Type: mount.TypeVolume, Destination: "/srv", ReadOnly: true, Recursive: true}, Path: "/volumes/x/_data"},
				{Mount: container.Mount{Type: mount.TypeTmpfs, Destination: "/t", Options: []string{"mode=700"}}, Path: ""},
				{Mount: container.Mount{Type: mount.TypeBind, Destination: "/etc/hosts", Propagation: "rprivate"}, Path: "/host/hosts"},
			}
		},
		"of-the-host": func(f *Facts) {
			h := f.Record.HostConfig
			h.NetworkMode, h.PidMode, h.IpcMode, h.UTSMode, h.CgroupParent = "host", "host", "host", "host", "/mine"
		},
		"of-another": func(f *Facts) {
			f.Record.HostConfig.NetworkMode, f.Record.HostConfig.PidMode = "container:x", "container:x"
			f.Join[specs.PIDNamespace] = "/proc/7/ns/pid"
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := json.MarshalIndent(bundleOf(t, change), "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", name+".json")
			if *update {
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, append(got, '\n'), 0o644)); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.TrimSpace(string(want)), string(got)); diff != "" {
				t.Errorf("go test ./engine/bundle -update writes it anew:\n%s", diff)
			}
		})
	}
}

func TestEnvironment(t *testing.T) {
	for _, c := range []struct {
		user []string
		tty  bool
		want []string
	}{
		{nil, false, []string{"PATH=" + DefaultPath, "HOSTNAME=h"}},
		{[]string{"A=1", "PATH=/x", "A=2"}, true, []string{"PATH=/x", "HOSTNAME=h", "TERM=xterm", "A=2"}},
		{[]string{"TERM=vt100", "HOSTNAME", "NONE"}, true, []string{"PATH=" + DefaultPath, "TERM=vt100"}},
		{[]string{"A=x=y", "B="}, false, []string{"PATH=" + DefaultPath, "HOSTNAME=h", "A=x=y", "B="}},
	} {
		if diff := cmp.Diff(c.want, Environment(c.user, "h", c.tty)); diff != "" {
			t.Errorf("%q:\n%s", c.user, diff)
		}
	}
}

func TestCapabilities(t *testing.T) {
	def := defaultCapabilities()
	for name, c := range map[string]struct {
		add, drop  []string
		privileged bool
		want       []string
	}{
		"default":            {want: def},
		"privileged":         {drop: []string{"CHOWN"}, privileged: true, want: allCapabilities()},
		"drop all":           {drop: []string{"all"}, want: []string{}},
		"drop all, add one":  {add: []string{"net_raw"}, drop: []string{"ALL"}, want: []string{"CAP_NET_RAW"}},
		"add all, drop one":  {add: []string{"ALL"}, drop: []string{"CAP_CHOWN"}, want: allCapabilities()[1:]},
		"add one twice":      {add: []string{"SYS_TIME", "CAP_SYS_TIME"}, want: append(slices.Clone(def), "CAP_SYS_TIME")},
		"add and drop one":   {add: []string{"SYS_TIME"}, drop: []string{"SYS_TIME"}, want: append(slices.Clone(def), "CAP_SYS_TIME")},
		"drop what is there": {drop: def[1:], want: def[:1]},
	} {
		got, err := Capabilities(c.add, c.drop, c.privileged)
		if err != nil || len(got) != len(c.want) || len(got) > 0 && !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if _, err := Capabilities([]string{"FLY"}, nil, false); !errors.Is(err, fault.Invalid) {
		t.Errorf("an unknown one: %v", err)
	}
	if n := len(allCapabilities()); n != 41 {
		t.Errorf("%d capabilities; Linux 5.9 and later have 41", n)
	}
}

func TestSecurityOptions(t *testing.T) {
	for opt, want := range map[string]SecurityOptions{
		"no-new-privileges":       {NoNewPrivileges: new(true)},
		"no-new-privileges=true":  {NoNewPrivileges: new(true)},
		"no-new-privileges:false": {NoNewPrivileges: new(false)},
		"seccomp=unconfined":      {Seccomp: "unconfined"},
		"seccomp:unconfined":      {Seccomp: "unconfined"},
		"seccomp=builtin":         {Seccomp: "builtin"},
		`seccomp={"a":"b"}`:       {Seccomp: `{"a":"b"}`},
		"label=type:x":            {Labels: []string{"type:x"}},
		"apparmor=unconfined":     {AppArmor: "unconfined"},
		"systempaths=unconfined":  {SystemPaths: true},
		"writable-cgroups=true":   {WritableCgroups: true},
		"writable-cgroups":        {WritableCgroups: true},
	} {
		got, err := ParseSecurity([]string{opt})
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", opt, err, diff)
		}
	}
	for opts, want := range map[string]bool{"": true, "no-new-privileges": true, "no-new-privileges=false": false} {
		s, err := ParseSecurity(strings.Fields(opts))
		if got := s.NoNewPrivs(Defaults{NoNewPrivileges: true}); err != nil || got != want {
			t.Errorf("%q over the daemon's: %v, %v", opts, got, err)
		}
	}
	for _, opt := range []string{"x", "x=y", "no-new-privileges=perhaps", "systempaths=confined"} {
		if _, err := ParseSecurity([]string{opt}); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", opt, err)
		}
	}
}

func TestSeccompFilters(t *testing.T) {
	cache := &FilterCache{}
	real := func(opts ...string) (*oci.Filter, error) {
		b, err := New(plain(func(f *Facts) { f.Seccomp, f.Record.HostConfig.SecurityOpt = cache, opts }))
		if err != nil {
			return nil, err
		}
		return b.Filter, nil
	}
	first, err := real()
	if err != nil || first == nil || len(first.Code) == 0 {
		t.Fatalf("%+v, %v", first, err)
	}
	if again, err := real(); err != nil || again != first {
		t.Errorf("worked out twice: %v", err)
	}
	if own, err := real(`seccomp={"defaultAction":"SCMP_ACT_ALLOW"}`); err != nil || len(own.Code) == 0 || len(own.Code) >= len(first.Code) {
		t.Errorf("%+v, %v", own, err)
	}
	for _, bad := range []string{"seccomp=/a/file.json", "seccomp={}{"} {
		if _, err := real(bad); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestDeviceRules(t *testing.T) {
	for text, want := range map[string]specs.LinuxDeviceCgroup{
		"c 42:* rmw": {Allow: true, Type: "c", Major: new(int64(42)), Access: "rmw"},
		"b *:7 r":    {Allow: true, Type: "b", Minor: new(int64(7)), Access: "r"},
		"a *:* rwm":  {Allow: true, Type: "a", Access: "rwm"},
		"c 5:5 r":    {Allow: true, Type: "c", Major: new(int64(5)), Minor: new(int64(5)), Access: "r"},
	} {
		got, err := ParseDeviceRule(text)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", text, err, diff)
		}
	}
	for _, bad := range []string{"", "c", "d 1:1 r", "c 1 r", "c 1:x r", "c 1:1 z", "ab 1:1 r", "c -1:1 r", "c 1:1 rwmr"} {
		if _, err := ParseDeviceRule(bad); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
