package buildkit

import (
	"errors"
	"testing"

	"berth/build"
	"berth/fault"

	"github.com/docker/go-units"
	"github.com/google/go-cmp/cmp"
	control "github.com/moby/buildkit/api/services/control"
)

func TestReadOptions(t *testing.T) {
	o, err := readOptions(map[string]string{
		"filename": "app/Dockerfile", "target": "end", "build-arg:V": "7", "label:who": "me", "context:more": "local:more", "platform": "linux/amd64,linux/arm64",
		"no-cache": "one,two", "image-resolve-mode": "pull", "force-network-mode": "none", "add-hosts": `there=10.1.2.3,"here=::1"`, "shm-size": "1048576",
		"ulimit": "nofile=1:2", "attest:provenance": "mode=min", "cpusetcpus": "0-1", "unknown": "passed over",
	})
	if err != nil {
		t.Fatal(err)
	}
	if o.Dockerfile != "app/Dockerfile" || o.Target != "end" || o.Args["V"] != "7" || o.Labels["who"] != "me" || o.Named["more"] != "local:more" || o.Network != "none" || !o.Pull {
		t.Errorf("%+v", o)
	}
	if o.NoCache || cmp.Diff(o.NoCacheFor, []string{"one", "two"}) != "" || len(o.Platforms) != 2 || o.Platforms[1].Architecture != "arm64" || o.Attest["provenance"] != "mode=min" {
		t.Errorf("%+v", o)
	}
	want := build.Settings{Hosts: []string{"there:10.1.2.3", "here:::1"}, ShmSize: 1 << 20, CPUSet: "0-1", Ulimits: []*units.Ulimit{{Name: "nofile", Soft: 1, Hard: 2}}}
	if diff := cmp.Diff(o.Settings, want); diff != "" {
		t.Error(diff)
	}
	if o, err = readOptions(map[string]string{"no-cache": ""}); err != nil || !o.NoCache || o.Dockerfile != "Dockerfile" {
		t.Errorf("%+v %v", o, err)
	}
	for name, value := range map[string]string{"platform": "a/b/c/d", "add-hosts": "there", "shm-size": "much", "ulimit": "nofile"} {
		if _, err := readOptions(map[string]string{name: value}); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s=%s: %v", name, value, err)
		}
	}
}

func TestFrontends(t *testing.T) {
	for name, c := range map[string]struct {
		source string
		ours   bool
	}{
		"dockerfile.v0": {"", true}, "gateway.v0": {"docker.io/docker/dockerfile:1", true}, "gateway.v0 ": {"", false}, "": {"", false},
	} {
		if err := checkFrontend(name, map[string]string{"source": c.source}); (err == nil) != c.ours {
			t.Errorf("%q: %v", name, err)
		}
	}
	for source, ours := range map[string]bool{"docker/dockerfile": true, "docker/dockerfile-upstream:master": true, "docker/dockerfile-other": false, "example.com/docker/dockerfile": false} {
		err := checkFrontend("gateway.v0", map[string]string{"source": source})
		if (err == nil) != ours || !ours && !errors.Is(err, fault.Unsupported) {
			t.Errorf("%q: %v", source, err)
		}
	}
}

func TestCacheFilter(t *testing.T) {
	one := &control.UsageRecord{ID: "abc", RecordType: "regular", Shared: true, Description: "made 2 RUN"}
	for text, want := range map[string]bool{
		"": true, "id==abc": true, "id!=abc": false, "id~=b": true, "type==regular,shared": true, "type==regular,private": false, "immutable": true, "inuse==true": false, "description~=RUN": true,
	} {
		var filters []string
		if text != "" {
			filters = []string{text}
		}
		keep, err := cacheFilter(filters)
		if err != nil || keep(one) != want {
			t.Errorf("%q: %v", text, err)
		}
	}
	if keep, err := cacheFilter([]string{"id==x", "id==abc"}); err != nil || !keep(one) {
		t.Errorf("one of several: %v", err)
	}
	if _, err := cacheFilter([]string{"colour==blue"}); !errors.Is(err, fault.Invalid) {
		t.Errorf("an unknown field: %v", err)
	}
}

// FuzzOptions has whatever strings clients send.
func FuzzOptions(f *testing.F) {
	f.Add("linux/amd64", "a=1", "nofile=1:2", "id~=b,shared")
	f.Fuzz(func(t *testing.T, platform, hosts, ulimit, filter string) {
		o, err := readOptions(map[string]string{"platform": platform, "add-hosts": hosts, "ulimit": ulimit, "no-cache": hosts})
		if err != nil && !errors.Is(err, fault.Invalid) {
			t.Errorf("%v", err)
		}
		if err == nil && len(o.Settings.Hosts) != len(list(hosts)) {
			t.Errorf("%d hosts of %q", len(o.Settings.Hosts), hosts)
		}
		if keep, err := cacheFilter([]string{filter}); err == nil {
			keep(&control.UsageRecord{})
		}
	})
}
