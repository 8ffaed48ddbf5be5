package userns

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/container"
	"berth/fault"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]Mode{
		"": {}, "host": {Host: true}, "auto": {Auto: true}, "auto:size=1": {Auto: true, Size: 1}, "auto:size=65536,": {Auto: true, Size: 65536},
	} {
		if got, err := Parse(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"private", "auto:", "auto=1", "auto:size", "auto:size=", "auto:size=-1", "auto:size=4294967296", "auto:x=1", "host:size=1", "Auto"} {
		if _, err := Parse(text); fault.Of(err) != fault.Invalid || !strings.Contains(err.Error(), "invalid userns mode: "+text) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// files makes a directory with tables.
func files(t *testing.T, tables map[string]string) Files {
	t.Helper()
	dir := t.TempDir()
	for name, text := range tables {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f, err := ReadFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func mapOf(lines ...specs.LinuxIDMapping) []specs.LinuxIDMapping { return lines }

func TestRemap(t *testing.T) {
	f := files(t, map[string]string{
		"passwd": "root:x:0:0::/root:/bin/sh\nana:x:1000:1000::/:/bin/sh\nbo:x:1001:1001::/:/bin/sh\ncy:x:1002:1002::/:/bin/sh\n",
		"group":  "root:x:0:\nana:x:1000:\nteam:x:500:\n",
		"subuid": "# comment\nana:300000:1000\n1000:100000:65536\ndockremap:900000:65536\ncy:1:1\n",
		"subgid": "ana:200000:65536\n500:700000:100\ndockremap:900000:65536\n",
	})
	anas := mapOf(specs.LinuxIDMapping{ContainerID: 0, HostID: 100000, Size: 65536}, specs.LinuxIDMapping{ContainerID: 65536, HostID: 300000, Size: 1000})
	own := mapOf(specs.LinuxIDMapping{ContainerID: 0, HostID: 200000, Size: 65536})
	teams := mapOf(specs.LinuxIDMapping{ContainerID: 0, HostID: 700000, Size: 100})
	remap := mapOf(specs.LinuxIDMapping{ContainerID: 0, HostID: 900000, Size: 65536})
	for spec, want := range map[string]container.IDs{
		"": {}, "ana": {UIDs: anas, GIDs: own}, "1000": {UIDs: anas, GIDs: own}, "ana:team": {UIDs: anas, GIDs: teams}, "1000:500": {UIDs: anas, GIDs: teams},
		"default": {UIDs: remap, GIDs: remap}, "dockremap:dockremap": {UIDs: remap, GIDs: remap},
	} {
		got, err := Remap(spec, f)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%q: %v\n%s", spec, err, diff)
		}
	}
	for spec, want := range map[string]string{
		"ana:": "invalid user/group specification in --userns-remap", "a:b:c": "invalid user/group specification", ":x": "invalid user/group specification",
		"root": "root can't stand in for itself", "0": "root can't stand in for itself", "bo": "no subuid ranges found for user \"bo\"",
		"cy": "no subgid ranges found for user \"cy\"", "4711": "uid 4711 has no entry in", "zed": "user \"zed\" has no entry in",
	} {
		if _, err := Remap(spec, f); fault.Of(err) != fault.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", spec, err)
		}
	}
}

func TestReserve(t *testing.T) {
	f := files(t, map[string]string{"subuid": "ana:100000:65536\nbo:165537:10", "subgid": "ana:100000:65536\n"})
	f, err := Reserve(f, RemapUser)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"subuid": "ana:100000:65536\nbo:165537:10\ndockremap:165547:65536\n", "subgid": "ana:100000:65536\ndockremap:165547:65536\n"} {
		if got, err := os.ReadFile(filepath.Join(f.Dir, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	ids, err := Remap("default", f)
	if uid, gid := ids.Root(); err != nil || uid != 165547 || gid != 165547 {
		t.Errorf("%v, %v", ids, err)
	}
	if again, err := Reserve(f, RemapUser); err != nil || len(again.SubUIDs) != 3 {
		t.Errorf("a second time: %v, %v", again.SubUIDs, err)
	}
}

func TestPool(t *testing.T) {
	for _, c := range []struct {
		tables map[string]string
		want   []Range
	}{
		{nil, []Range{{poolFirst, maxSize}}},
		{map[string]string{"subuid": "ana:1879048192:65536\n", "subgid": "bo:1879179264:1\nx:-1:5\ny:4294967295:9\n"}, []Range{{poolFirst + 65536, 65536}, {poolFirst + 131073, maxSize - 131073}}},
		{map[string]string{"subuid": "containers:500000:1000\n", "subgid": "containers:500500:1000\n"}, []Range{{500500, 500}}},
		{map[string]string{"subuid": "containers:500000:1000\n"}, []Range{{poolFirst, maxSize}}},
	} {
		if diff := cmp.Diff(c.want, Pool(files(t, c.tables))); diff != "" {
			t.Errorf("%v: %s", c.tables, diff)
		}
	}
}

// Whatever is made and removed in whatever order, no two containers have an id in common.
func TestAllocateGivesDisjointRanges(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	pool := []Range{{100, 1000}, {5000, 3000}}
	var held []container.IDs
	full := 0
	for range 2000 {
		if len(held) > 0 && random.IntN(3) == 0 {
			k := random.IntN(len(held))
			held = append(held[:k], held[k+1:]...)
			continue
		}
		ids, err := Allocate(pool, uint32(random.IntN(400)+1), held)
		if fault.Of(err) == fault.Unavailable {
			full++
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		got := Range{ids.UIDs[0].HostID, ids.UIDs[0].Size}
		if in := free([]Range{got}, pool); len(in) > 0 {
			t.Fatalf("%v is not in the pool", got)
		}
		for _, h := range held {
			if common, hit := overlap(got, Range{h.UIDs[0].HostID, h.UIDs[0].Size}); hit {
				t.Fatalf("%v is given twice", common)
			}
		}
		held = append(held, ids)
	}
	if full == 0 {
		t.Error("the pool was never full")
	}
}

func TestShared(t *testing.T) {
	a := container.IDs{UIDs: mapOf(specs.LinuxIDMapping{HostID: 1, Size: 1}), GIDs: mapOf(specs.LinuxIDMapping{HostID: 1, Size: 1})}
	b := container.IDs{UIDs: mapOf(specs.LinuxIDMapping{HostID: 2, Size: 1}), GIDs: mapOf(specs.LinuxIDMapping{HostID: 2, Size: 1})}
	if got, err := Shared([]string{"x", "y"}, []container.IDs{a, a}); err != nil || !got.Equal(a) {
		t.Error(got, err)
	}
	if _, err := Shared([]string{"x", "y"}, []container.IDs{a, b}); fault.Of(err) != fault.Invalid {
		t.Error(err)
	}
	if got, err := Shared(nil, nil); err != nil || !got.IsZero() {
		t.Error(got, err)
	}
}
