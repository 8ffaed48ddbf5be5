package create

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"berth/cli/flag"
)

// both gives a result or its error as text, for tables.
func both(v any, err error) string {
	if err != nil {
		return "error: " + err.Error()
	}
	if s, ok := v.(string); ok {
		return s
	}
	b, _ := json.Marshal(v)
	return string(b)
}

func TestParsers(t *testing.T) {
	type parser func(string) string
	cpus := func(v string) string { n, err := parseCPUs(v); return both(n, err) }
	ulimit := func(v string) string { u, err := flag.Ulimit(v); return both(u, err) }
	volume := func(v string) string { b, a, err := parseVolume(v); return both(b+"|"+a, err) }
	device := func(v string) string { d, err := parseDevice(v); return both(d, err) }
	mount := func(v string) string { m, err := parseMount(v); return both(m, err) }
	publish := func(v string) string { s, m, err := ports([]string{v}, nil); _ = s; return both(m, err) }
	restart := func(v string) string { r, err := parseRestart(v); return both(r, err) }
	host := func(v string) string { h, err := flag.ExtraHost(v); return both(h, err) }
	gpus := func(v string) string { g, err := parseGPUs(v); return both(g, err) }
	for _, c := range []struct {
		name  string
		parse parser
		in    string
		want  string
	}{
		{"cpus", cpus, "0.5", "500000000"},
		{"cpus", cpus, "2", "2000000000"},
		{"cpus", cpus, "0.0000000001", "error: value is too precise"},
		{"cpus", cpus, "1e9", "error: failed to parse 1e9 as a rational number"},
		{"cpus", cpus, "", "error: failed to parse  as a rational number"},
		{"cpus", cpus, "99999999999999", "error: value is out of range"},
		{"ulimit", ulimit, "nofile=1:2", `{"Name":"nofile","Hard":2,"Soft":1}`},
		{"ulimit", ulimit, "core=-1", `{"Name":"core","Hard":-1,"Soft":-1}`},
		{"ulimit", ulimit, "nofile=-1:5", "error: ulimit soft limit must be less than or equal to hard limit: soft: -1 (unlimited), hard: 5"},
		{"ulimit", ulimit, "=1", "error: invalid ulimit type: "},
		{"ulimit", ulimit, "core cpu=1", "error: invalid ulimit type: core cpu"},
		{"volume", volume, "/a", "|/a"},
		{"volume", volume, "/a:/b:ro", "/a:/b:ro|"},
		{"volume", volume, "a::b", "error: invalid volume specification: 'a::b': empty section between colons"},
		{"volume", volume, "", "error: invalid empty volume spec"},
		{"device", device, "/dev/a:/dev/b:r", `{"PathOnHost":"/dev/a","PathInContainer":"/dev/b","CgroupPermissions":"r"}`},
		{"device", device, "/dev/a:rrw", "error: rrw is not an absolute path"},
		{"device", device, ":/b", "error: bad format for path: :/b"},
		{"mount", mount, "type=bind,src=/a,dst=/b,ro", `{"Type":"bind","Source":"/a","Target":"/b","ReadOnly":true}`},
		{"mount", mount, `type=volume,src=v,dst=/b,"volume-opt=o=a,b"`, `{"Type":"volume","Source":"v","Target":"/b","VolumeOptions":{"DriverConfig":{"Options":{"o":"a,b"}}}}`},
		{"mount", mount, "type=bind,src=/a,dst=/b,bind-nonrecursive", "error: bind-nonrecursive is no longer supported, use bind-recursive=disabled instead"},
		{"mount", mount, "", "error: value is empty"},
		{"mount", mount, "type=,dst=/x", "error: type is required"},
		{"publish", publish, "80", `{"80/tcp":[{"HostIp":"","HostPort":""}]}`},
		{"publish", publish, "[::1]:8080:80/udp", `{"80/udp":[{"HostIp":"::1","HostPort":"8080"}]}`},
		{"publish", publish, "[::1]::80", `{"80/tcp":[{"HostIp":"::1","HostPort":""}]}`},
		{"publish", publish, "8000-8001:80-81", `{"80/tcp":[{"HostIp":"","HostPort":"8000"}],"81/tcp":[{"HostIp":"","HostPort":"8001"}]}`},
		{"publish", publish, "8000-8001:80", `{"80/tcp":[{"HostIp":"","HostPort":"8000-8001"}]}`},
		{"publish", publish, "1:65536", "error: invalid containerPort: 65536"},
		{"publish", publish, "5-4", "error: invalid containerPort: 5-4"},
		{"publish", publish, "-", "error: invalid containerPort: -"},
		{"publish", publish, "", "error: no port specified: <empty>"},
		{"publish", publish, "localhost:80:80", "error: invalid IP address: localhost"},
		{"restart", restart, "on-failure:", `{"Name":"on-failure","MaximumRetryCount":0}`},
		{"host", host, "h:::1", "h:::1"},
		{"host", host, "h=[::1]", "h:::1"},
		{"host", host, "h:host-gateway", "h:host-gateway"},
		{"gpus", gpus, "all", `{"Driver":"","Count":-1,"DeviceIDs":null,"Capabilities":[["gpu"]],"Options":{}}`},
		{"gpus", gpus, "count=1,count=2", "error: gpu request key 'count' can be specified only once"},
	} {
		if got := c.parse(c.in); got != c.want {
			t.Errorf("%s %q:\n got  %s\n want %s", c.name, c.in, got, c.want)
		}
	}
}

func TestEnvironmentLines(t *testing.T) {
	lookup := func(k string) (string, bool) { return "seen", k == "KNOWN" }
	got, err := parseLines([]byte("\ufeffA=1\r\n\n#x\n  B =2"), lookup)
	if err == nil {
		t.Errorf("a blank in a name is taken: %q", got)
	}
	got, err = parseLines([]byte("\ufeffA=1 \n\n  #x\nKNOWN\nUNKNOWN\nC==x"), lookup)
	if want := []string{"A=1 ", "KNOWN=seen", "C==x"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := parseLines([]byte("A=\xff"), nil); err == nil {
		t.Error("bytes that are no text are taken")
	}
}

func FuzzParsers(f *testing.F) {
	for _, s := range []string{"80", "[::1]:8080:80/udp", "type=bind,src=/a,dst=/b", "nofile=1:2", "name=x,ip=1.2.3.4", "busybox:1@sha256:aa", "/dev/a:rw", "1.5", "ctrl-a,b", "c 1:3 rwm", "a=b\nC"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, v string) {
		parseCPUs(v)
		flag.Ulimit(v)
		parseVolume(v)
		parseDevice(v)
		parseMount(v)
		if !strings.Contains(v, "-") {
			ports([]string{v}, []string{v})
		}
		parsePublish(v)
		parseNetwork(v)
		parseRestart(v)
		parseGPUs(v)
		parseLines([]byte(v), nil)
		flag.ExtraHost(v)
		validDeviceRule(v)
		validSearch(v)
	})
}
