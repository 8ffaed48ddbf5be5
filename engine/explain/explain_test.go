package explain

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/storage"

	"github.com/google/go-cmp/cmp"
)

func TestParseStatus(t *testing.T) {
	d := parseStatus(`Name:	odd: name
PPid:	18
Uid:	100000	100001	100002	100003
Gid:	5	5	5	5
Groups:	10 1000 
NSpid:	63	7	1
CapInh:	0000000000000000
CapPrm:	0000000000000000
CapEff:	0000000000002400
CapBnd:	000001ffffffffff
CapAmb:	0000000000000000
NoNewPrivs:	1
Seccomp:	2
Seccomp_filters:	3
`)
	if d.Supervisor != 18 || d.Inside != 1 || !d.NoNewPrivs || d.Seccomp != "filter" || d.Filters != 3 || len(d.Capabilities.Bounding) != 41 {
		t.Errorf("%+v", d)
	}
	if diff := cmp.Diff([]string{"CAP_NET_BIND_SERVICE", "CAP_NET_RAW"}, d.Capabilities.Effective); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([][]int{{100000, 100001, 100002, 100003}, {5, 5, 5, 5}, {10, 1000}}, [][]int{d.UID, d.GID, d.Groups}); diff != "" {
		t.Error(diff)
	}
	if d := parseStatus("Seccomp:\t9\n"); d.Seccomp != "off" {
		t.Errorf("%+v", d)
	}
}

func TestParseLimitsAndMaps(t *testing.T) {
	all := parseLimits(`Limit                     Soft Limit           Hard Limit           Units     
Max cpu time              unlimited            unlimited            seconds   
Max open files            1024                 20000                files     
Max nice priority         0                    0                    
`)
	want := []Limit{{"cpu time", "unlimited", "unlimited", "seconds"}, {"open files", "1024", "20000", "files"}, {"nice priority", "0", "0", ""}}
	if diff := cmp.Diff(want, all); diff != "" {
		t.Error(diff)
	}
	if parseLimits("") != nil || parseLimits("Max") != nil {
		t.Error("limits of nothing")
	}
	if diff := cmp.Diff([]IDRange{{0, 100000, 65536}, {65536, 7, 1}}, parseMap("         0     100000      65536\n     65536 7 1\nnonsense\n")); diff != "" {
		t.Error(diff)
	}
}

func TestMounts(t *testing.T) {
	host := parseMounts(`25 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
26 25 8:2 / /srv rw - ext4 /dev/sda2 rw
27 25 8:1 /var/x /bound rw - ext4 /dev/sda1 rw
`)
	inside := parseMounts(`100 99 0:50 / / rw,relatime - overlay overlay rw,lowerdir+=/l/b\134:c,lowerdir+=/l/a\134\054x,upperdir=/u,workdir=/w,index=off
101 100 8:2 /data /mnt/a\040b ro,nosuid master:3 - ext4 /dev/sda2 rw
102 100 0:51 / /proc rw - proc proc rw
103 100 8:1 /var/x/y /z rw shared:4 master:5 unbindable - ext4 /dev/sda1 rw
short line
`)
	if len(inside) != 4 {
		t.Fatalf("%+v", inside)
	}
	if m := inside[1]; m.target != "/mnt/a b" || m.root != "/data" || m.propagation != "slave" || m.kind != "ext4" {
		t.Errorf("%+v", m)
	}
	if m := inside[3]; m.propagation != "shared,slave,unbindable" {
		t.Errorf("%+v", m)
	}
	for i, want := range []string{"", "/srv/data", "", "/bound/y"} {
		if got := onHost(host, inside[i]); got != want {
			t.Errorf("%s: got %q, want %q", inside[i].target, got, want)
		}
	}
	layers := layersOf(&Mount{Type: "overlay", Options: splitPlain(inside[0].super, ',')})
	want := []Layer{{"/u", "written"}, {"/l/b:c", "read-only"}, {"/l/a,x", "read-only"}, {"/w", "work"}}
	if diff := cmp.Diff(want, layers); diff != "" {
		t.Error(diff)
	}
	layers = layersOf(&Mount{Type: "overlay", Options: []string{`lowerdir=/a\:b:/c`, "upperdir=/u"}})
	if diff := cmp.Diff([]Layer{{"/u", "written"}, {"/a:b", "read-only"}, {"/c", "read-only"}}, layers); diff != "" {
		t.Error(diff)
	}
}

func TestGroupDir(t *testing.T) {
	table := parseMounts(`31 1 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
34 31 0:31 /docker/x /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
35 31 0:32 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
`)
	for _, c := range []struct {
		g          Group
		path, want string
	}{
		{Group{Version: 1, Controllers: []string{"cpu", "cpuacct"}}, "/berth/a", "/sys/fs/cgroup/cpu,cpuacct/berth/a"},
		{Group{Version: 1, Controllers: []string{"name=systemd"}}, "/berth/a", "/sys/fs/cgroup/systemd/berth/a"},
		{Group{Version: 1, Controllers: []string{"memory"}}, "/docker/x/a", "/sys/fs/cgroup/memory/a"},
		{Group{Version: 1, Controllers: []string{"memory"}}, "/docker/xy", ""},
		{Group{Version: 1, Controllers: []string{"pids"}}, "/a", ""},
		{Group{Version: 2}, "/a:b", "/sys/fs/cgroup/unified/a:b"},
	} {
		if got := groupDir(table, c.g, c.path); got != c.want {
			t.Errorf("%+v %s: got %q, want %q", c.g, c.path, got, c.want)
		}
	}
}

// TestOurselves looks at this very process, which needs no rights.
func TestOurselves(t *testing.T) {
	p := process{"/proc", os.Getpid()}
	d, err := p.describe()
	if err != nil {
		t.Fatal(err)
	}
	if d.Supervisor != os.Getppid() || d.UID[1] != os.Geteuid() || len(d.Limits) != 16 || !strings.Contains(d.Command, filepath.Base(os.Args[0])) {
		t.Errorf("%+v", d)
	}
	spaces, err := p.namespaces()
	if err != nil || len(spaces) < 7 {
		t.Fatalf("%+v, %v", spaces, err)
	}
	for _, n := range spaces {
		if n.Own || n.Inode == 0 {
			t.Errorf("%+v", n)
		}
	}
	groups, err := p.groups()
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range groups {
		if g.Dir == "" {
			continue
		}
		if _, err := os.Stat(g.Dir); err != nil {
			t.Error(err)
		}
	}
	if _, _, err := p.mounts(); err != nil {
		t.Error(err)
	}
	if _, err := (process{"/proc", 1 << 30}).describe(); !os.IsNotExist(err) {
		t.Errorf("a process that is none: %v", err)
	}
}

func TestAtRest(t *testing.T) {
	r, err := Container(&api.InspectResponse{ID: "x", Name: "/n", LogPath: "/c/x/x-json.log", State: &api.State{Status: "exited"},
		GraphDriver: &storage.DriverData{Data: map[string]string{"LowerDir": "/a:/b", "UpperDir": "/u", "WorkDir": "/w"}},
		Mounts:      []api.MountPoint{{Type: "volume", Name: "v", Source: "/v", Destination: "/d", RW: true}}})
	if err != nil || r.Process != nil || r.Note == "" || r.Status != "exited" {
		t.Fatalf("%+v, %v", r, err)
	}
	if diff := cmp.Diff([]Layer{{"/u", "written"}, {"/a", "read-only"}, {"/b", "read-only"}, {"/w", "work"}}, r.Layers); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]Mount{{Target: "/d", Type: "volume", Source: "v", Host: "/v", Options: []string{"rw"}}}, r.Mounts); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]File{{"log", "/c/x/x-json.log"}, {"record", "/c/x"}}, r.Files); diff != "" {
		t.Error(diff)
	}
}

// FuzzParse feeds what a container's processes have a hand in: the names of mounts, programs and groups.
func FuzzParse(f *testing.F) {
	f.Add("101 100 8:2 /data /mnt/a\\040b ro,nosuid master:3 - ext4 /dev/sda2 rw")
	f.Add("Max open files 1 2 files")
	f.Add("CapEff:\t00ff\nNSpid:\t1 2")
	f.Fuzz(func(t *testing.T, text string) {
		for _, m := range parseMounts(text) {
			layersOf(&Mount{Type: "overlay", Options: splitPlain(m.super, ',')})
			onHost(parseMounts(text), m)
		}
		parseStatus(text)
		parseLimits(text)
		parseMap(text)
	})
}
