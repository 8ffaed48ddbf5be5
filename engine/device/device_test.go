package device

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/container"
	"berth/fault"

	"github.com/google/go-cmp/cmp"
	api "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func descriptions(t *testing.T, files map[string]string) CDI {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return CDI{Dirs: []string{dir}}
}

const vendor = `cdiVersion: "0.6.0"
kind: vendor.com/class
devices:
- name: one
  containerEdits:
    env: [FOO=bar]
    deviceNodes: [{path: /dev/made, hostPath: /dev/null}]
    mounts: [{hostPath: /etc, containerPath: /vendor, options: [ro, rbind]}]
containerEdits:
  env: [ALL=yes]
`

func TestInject(t *testing.T) {
	c := descriptions(t, map[string]string{"vendor.yaml": vendor})
	if names, err := c.Names(); err != nil || len(names) != 1 || names[0] != "vendor.com/class=one" {
		t.Fatalf("%q, %v", names, err)
	}
	names, err := c.Select([]api.DeviceRequest{{Driver: "cdi", DeviceIDs: []string{"vendor.com/class=one"}}})
	if err != nil {
		t.Fatal(err)
	}
	spec := &specs.Spec{Process: &specs.Process{}, Linux: &specs.Linux{Resources: &specs.LinuxResources{}}}
	if err := c.Inject(spec, names); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"ALL=yes", "FOO=bar"}, spec.Process.Env); diff != "" {
		t.Error(diff)
	}
	d := spec.Linux.Devices
	if len(d) != 1 || d[0].Path != "/dev/made" || d[0].Type != "c" || d[0].Major != 1 || d[0].Minor != 3 || len(spec.Linux.Resources.Devices) != 1 {
		t.Errorf("%+v, %+v", d, spec.Linux.Resources.Devices)
	}
	if m := spec.Mounts; len(m) != 1 || m[0].Destination != "/vendor" || m[0].Source != "/etc" {
		t.Errorf("%+v", m)
	}
	if err := c.Inject(spec, []string{"vendor.com/class=two"}); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "CDI device injection failed: unresolvable CDI devices vendor.com/class=two") {
		t.Errorf("a device that nobody describes: %v", err)
	}
	broken := descriptions(t, map[string]string{"x.yaml": "cdiVersion: [", "vendor.yaml": vendor})
	if err := broken.Inject(spec, []string{"x.com/y=z"}); err == nil || !strings.Contains(err.Error(), "x.yaml") {
		t.Errorf("a broken description is not told of: %v", err)
	}
}

func TestGPUs(t *testing.T) {
	gpus := `{"cdiVersion": "0.6.0", "kind": "nvidia.com/gpu", "devices": [`
	for _, name := range []string{"10", "2", "all", "GPU-abc"} {
		gpus += `{"name": "` + name + `", "containerEdits": {"env": ["GPU=` + name + `"]}},`
	}
	c := descriptions(t, map[string]string{"n.json": strings.TrimSuffix(gpus, ",") + "]}"})
	gpu := [][]string{{"gpu"}}
	for name, x := range map[string]struct {
		request api.DeviceRequest
		want    []string
		err     string
	}{
		"all":         {api.DeviceRequest{Count: -1, Capabilities: gpu}, []string{"nvidia.com/gpu=all"}, ""},
		"one":         {api.DeviceRequest{Count: 1, Capabilities: gpu}, []string{"nvidia.com/gpu=2"}, ""},
		"two":         {api.DeviceRequest{Count: 2, Capabilities: gpu, Driver: "nvidia"}, []string{"nvidia.com/gpu=2", "nvidia.com/gpu=10"}, ""},
		"three":       {api.DeviceRequest{Count: 3, Capabilities: gpu}, nil, "3 wanted, there are 2"},
		"named":       {api.DeviceRequest{DeviceIDs: []string{"GPU-abc"}, Capabilities: gpu}, []string{"nvidia.com/gpu=GPU-abc"}, ""},
		"not gpu":     {api.DeviceRequest{Count: 1, Capabilities: [][]string{{"tpu"}}}, nil, `could not select device driver "" with capabilities: [[tpu]]`},
		"none's":      {api.DeviceRequest{Count: 1, Driver: "amd", Capabilities: gpu}, nil, `could not select device driver "amd" with capabilities: [[gpu]]`},
		"CDI by name": {api.DeviceRequest{Driver: "cdi", DeviceIDs: []string{"a/b=c"}}, []string{"a/b=c"}, ""},
	} {
		got, err := c.Select([]api.DeviceRequest{x.request})
		if diff := cmp.Diff(x.want, got); diff != "" || (x.err == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), x.err) {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
	}
	if _, err := (CDI{}).Select([]api.DeviceRequest{{Count: -1, Capabilities: gpu}}); err == nil || err.Error() != `could not select device driver "" with capabilities: [[gpu]]` {
		t.Errorf("no descriptions: %v", err)
	}
}

func TestFind(t *testing.T) {
	find := func(m api.DeviceMapping) ([]string, error) {
		found, err := Find(&container.Record{HostConfig: &api.HostConfig{Resources: api.Resources{Devices: []api.DeviceMapping{m}}}})
		var all []string
		for _, d := range found {
			all = append(all, d.Path+" "+d.Type+" "+d.Access)
		}
		return all, err
	}
	if got, err := find(api.DeviceMapping{PathOnHost: "/dev/null", PathInContainer: "/dev/x", CgroupPermissions: "r"}); err != nil || len(got) != 1 || got[0] != "/dev/x c r" {
		t.Errorf("%q, %v", got, err)
	}
	for m, want := range map[api.DeviceMapping]string{
		{PathOnHost: "/dev/nothing"}:                      `error gathering device information while adding custom device "/dev/nothing": no such file or directory`,
		{PathOnHost: "/etc/passwd"}:                       "not a device node",
		{PathOnHost: "/dev/null", CgroupPermissions: "x"}: "invalid device mode: x",
	} {
		if _, err := find(m); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", m, err)
		}
	}
	// A directory gives all devices below it.
	dir := t.TempDir()
	if err := errors.Join(os.Mkdir(dir+"/sub", 0o755), os.WriteFile(dir+"/plain", nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	if got, err := find(api.DeviceMapping{PathOnHost: dir}); err != nil || len(got) != 0 {
		t.Errorf("%q, %v", got, err)
	}
}
