package cgroup

import (
	"slices"
	"strings"
	"testing"
)

func seen(string, int) bool { return true }

func TestParseLayout(t *testing.T) {
	tests := []struct {
		name, mounts, own string
		mode              Mode
		want              []string // mount, root, own, controllers
	}{
		{"v1, one controller each, memory elsewhere", `
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,release_agent=/lib/agent,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate`,
			"9:name=systemd:/user.slice\n4:memory:/process/4fa\n1:cpu:/\n0::/init.scope\n", Hybrid, []string{
				"/sys/fs/cgroup/cpu / / cpu", "/sys/fs/cgroup/memory / /process/4fa memory",
				"/sys/fs/cgroup/systemd / /user.slice name=systemd", "/sys/fs/cgroup/unified / /init.scope "}},
		{"controllers together, names that differ, mounted twice", `
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 31 0:29 / /mnt/a\040b rw - cgroup cgroup rw,cpu,cpuacct`,
			"4:cpu,cpuacct:/x\n", V1, []string{"/sys/fs/cgroup/cpu,cpuacct / /x cpu,cpuacct"}},
		{"v2 in a cgroup namespace", "30 23 0:26 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate,memory_recursiveprot", "0::/\n", V2,
			[]string{"/sys/fs/cgroup / / "}},
		{"v2 seen from a nested engine without a namespace of its own", "30 23 0:26 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw", "0::/docker/abc/engine\n", V2,
			[]string{"/sys/fs/cgroup /docker/abc /engine "}},
		{"a mount of something beside us", "30 23 0:26 /docker/ab /sys/fs/cgroup rw - cgroup2 cgroup rw", "0::/docker/abc\n", V2,
			[]string{"/sys/fs/cgroup /docker/ab  "}},
		{"only systemd's own", "40 31 0:37 / /c rw - cgroup cgroup rw,name=systemd\n30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup rw", "1:name=systemd:/\n0::/\n", V2,
			[]string{"/c / / name=systemd", "/sys/fs/cgroup / / "}},
		{"mounted over by a cgroup namespace's", `
32 31 0:29 /../.. /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu`,
			"4:cpu:/x\n", V1, []string{"/sys/fs/cgroup/cpu / /x cpu"}},
		{"nothing", "23 1 8:1 / / rw - ext4 /dev/vda rw\nrubbish\n - \n", "", None, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l := parseLayout([]byte(strings.TrimPrefix(test.mounts, "\n")), []byte(test.own), seen)
			var got []string
			for _, h := range l.Hierarchies {
				got = append(got, strings.Join([]string{h.Mount, h.Root, h.Own, strings.Join(h.Controllers, ",")}, " "))
			}
			if l.Mode != test.mode || !slices.Equal(got, test.want) {
				t.Errorf("%s %q, want %s %q", l.Mode, got, test.mode, test.want)
			}
		})
	}
}

func TestHiddenMountsDontCount(t *testing.T) {
	mounts := "32 31 0:29 / /old rw - cgroup cgroup rw,cpu\n33 31 0:29 / /new\\134\\040x rw - cgroup cgroup rw,cpu\n"
	l := parseLayout([]byte(mounts), nil, func(dir string, _ int) bool { return dir != "/old" })
	if len(l.Hierarchies) != 1 || l.Hierarchies[0].Mount != `/new\ x` {
		t.Errorf("%+v", l)
	}
}

func FuzzLayout(f *testing.F) {
	f.Add("32 31 0:29 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu", "1:cpu:/\n0::/x")
	f.Fuzz(func(t *testing.T, mounts, own string) {
		for _, h := range parseLayout([]byte(mounts), []byte(own), seen).Hierarchies {
			if h.Own != "" && h.Own[0] != '/' || strings.Contains(h.Own, "/../") {
				t.Errorf("own group %q is not below the mount", h.Own)
			}
		}
	})
}

func TestPathsStayBelow(t *testing.T) {
	for _, bad := range []string{"", "/", "x", "/a/../b", "/a/", "/..", "//a", "/a/./b"} {
		if checkPath(bad) == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	if err := checkPath("/berth/0f"); err != nil {
		t.Error(err)
	}
}
