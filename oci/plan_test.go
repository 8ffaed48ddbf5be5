package oci

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/kernel"
)

func TestParseOptions(t *testing.T) {
	for _, c := range []struct {
		options string
		want    mountOptions
	}{
		{"", mountOptions{}},
		{"ro,nosuid,size=64k,mode=755", mountOptions{set: kernel.ReadOnly | kernel.NoSUID, data: []string{"size=64k", "mode=755"}}},
		{"rbind,rprivate", mountOptions{bind: true, recursive: true, propagation: []spread{{kernel.PropPrivate, true}}}},
		{"bind,ro,slave", mountOptions{bind: true, set: kernel.ReadOnly, propagation: []spread{{kernel.PropSlave, false}}}},
		{"rro,rnosuid", mountOptions{rset: kernel.ReadOnly | kernel.NoSUID}},
		{"ro,rw", mountOptions{clear: kernel.ReadOnly}},
		{"noexec,exec,exec,noexec", mountOptions{set: kernel.NoExec}},
		{"noatime", mountOptions{set: kernel.NoATime, clear: kernel.AtimeModes}},
		{"noatime,relatime", mountOptions{clear: kernel.AtimeModes}},
		{"rstrictatime", mountOptions{rset: kernel.StrictATime, rclear: kernel.AtimeModes}},
		{"defaults,tmpcopyup,volatile", mountOptions{copyUp: true, data: []string{"volatile"}}},
		{"relatime,rw,r", mountOptions{clear: kernel.AtimeModes | kernel.ReadOnly, data: []string{"r"}}},
	} {
		if got := parseOptions(strings.Split(c.options, ",")); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %+v, want %+v", c.options, got, c.want)
		}
	}
	for _, known := range []string{"ro", "rro", "bind", "rprivate", "noatime"} {
		if !slices.Contains(MountOptions(), known) {
			t.Errorf("%s is not among the options", known)
		}
	}
}

func FuzzParseOptions(f *testing.F) {
	f.Add("ro,rbind,rprivate,size=1k")
	f.Add("rnoatime,rw")
	f.Fuzz(func(t *testing.T, options string) {
		o := parseOptions(strings.Split(options, ","))
		if o.set&o.clear&^uint64(kernel.AtimeModes) != 0 || o.rset&o.rclear&^uint64(kernel.AtimeModes) != 0 {
			t.Errorf("%q sets and clears the same: %+v", options, o)
		}
	})
}

func FuzzResolveUser(f *testing.F) {
	f.Add("alice:wheel", "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n", "root:x:0:\nwheel:x:10:alice\n")
	f.Add("99999999999", "::::::", ":::")
	f.Add("-1:-1", "a:b:-5:9:", "x:y:zz:a,b,c")
	f.Fuzz(func(t *testing.T, name, users, groups string) {
		u, err := resolveUser(name, nil, []string{"wheel"}, []byte(users), []byte(groups))
		if err != nil {
			return
		}
		// The kernel keeps the highest number for "no id".
		if u.uid == ^uint32(0) || u.gid == ^uint32(0) || slices.Contains(u.groups, ^uint32(0)) {
			t.Errorf("%q gives %+v", name, u)
		}
		if !slices.Contains(u.groups, u.gid) {
			t.Errorf("%q: the primary group is not in the list: %+v", name, u)
		}
	})
}

func FuzzFilter(f *testing.F) {
	f.Add([]byte("12345678"))
	f.Add([]byte("123"))
	f.Fuzz(func(t *testing.T, code []byte) {
		p, err := (&Filter{Code: code}).program()
		if err == nil && len(p.Instructions)*instructionSize != len(code) {
			t.Errorf("%d bytes became %d instructions", len(code), len(p.Instructions))
		}
	})
}

func TestPlanRights(t *testing.T) {
	p := &specs.Process{
		Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN", "CAP_SYS_ADMIN"}, Effective: []string{"CAP_CHOWN"}},
		Rlimits:      []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Soft: 0, Hard: 0}},
	}
	r, warnings, err := planRights(p, 1) // we have CAP_CHOWN alone
	if err != nil || r.bounding != 1 || r.effective != 1 || r.permitted != 0 {
		t.Errorf("got %+v, %v", r, err)
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], "CAP_SYS_ADMIN") {
		t.Errorf("warnings are %q", warnings)
	}
	for _, bad := range []*specs.Process{
		{Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_NONSENSE"}}},
		{Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_NONSENSE"}}},
		{Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Soft: 2, Hard: 1}}},
	} {
		if _, _, err := planRights(bad, ^kernel.CapSet(0)); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}

func TestWithHome(t *testing.T) {
	for _, c := range []struct{ env, want []string }{
		{nil, []string{"HOME=/h"}},
		{[]string{"HOME=/x", "A=b"}, []string{"HOME=/x", "A=b"}},
		{[]string{"HOME=", "A=b"}, []string{"A=b", "HOME=/h"}},
		{[]string{"HOMER=1"}, []string{"HOMER=1", "HOME=/h"}},
	} {
		if got := withHome(c.env, user{home: "/h"}); !slices.Equal(got, c.want) {
			t.Errorf("%q: got %q, want %q", c.env, got, c.want)
		}
	}
}

func TestCgroupPaths(t *testing.T) {
	for _, c := range []struct {
		systemd    bool
		path, want string
	}{
		{false, "", "/berth-oci/id"},
		{false, "machine/x", "/machine/x"},
		{false, "/a/../../b", "/b"},
		{true, "machine.slice:libpod:123", "/machine.slice/libpod-123.scope"},
		{true, ":cri:123", "/system.slice/cri-123.scope"},
		{true, "user.slice::x.slice", "/user.slice/x.slice"},
	} {
		if got := (&Runtime{Systemd: c.systemd}).cgroupPath(c.path, "id"); got != c.want {
			t.Errorf("%q: got %s, want %s", c.path, got, c.want)
		}
	}
}
