package cgroup

import (
	"bytes"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Mode says which kinds of hierarchy carry controllers.
type Mode string

// The modes. Hybrid is v1 with a v2 hierarchy beside it.
const (
	None   Mode = "none"
	V1     Mode = "v1"
	Hybrid Mode = "hybrid"
	V2     Mode = "v2"
)

// Hierarchy is one mounted cgroup file system.
type Hierarchy struct {
	Version     int
	Controllers []string // v1: as mounted together, or "name=systemd"; v2: cgroup.controllers of Base
	Mount       string   // mount point
	Root        string   // the group that the mount shows at its top; "/" unless bound or in a cgroup namespace
	Own         string   // this process's group, seen from Mount; "/" is Mount itself
	Base        string   // directory below which groups are made: Mount, else this process's own group; "" when neither is writable
}

// Layout says where the cgroup hierarchies are. It is plain data and never changes.
type Layout struct {
	Mode        Mode
	Hierarchies []Hierarchy
}

// Detect returns the layout of the system as this process sees it. It is read once, from /proc/self/mountinfo and
// /proc/self/cgroup (cgroups(7), cgroup_namespaces(7)), when first asked for.
func Detect() Layout { return detect() }

var detect = sync.OnceValue(func() Layout {
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	own, _ := os.ReadFile("/proc/self/cgroup")
	return parseLayout(mounts, own, isGroup).located()
})

// isGroup tells whether dir is a group of this version, not something that another mount hides.
func isGroup(dir string, version int) bool {
	var fs unix.Statfs_t
	magic := int64(unix.CGROUP_SUPER_MAGIC)
	if version == 2 {
		magic = unix.CGROUP2_SUPER_MAGIC
	}
	return unix.Statfs(dir, &fs) == nil && int64(fs.Type) == magic
}

// parseLayout reads the two tables. A hierarchy may be mounted several times: the first mount point that visible accepts counts, and
// there the last mount, which covers the others.
// Base, and v2's controllers, are left open.
func parseLayout(mountinfo, own []byte, visible func(dir string, version int) bool) Layout {
	var l Layout
	for line := range strings.Lines(string(mountinfo)) {
		h, ok := parseMount(line)
		if !ok || !visible(h.Mount, h.Version) {
			continue
		}
		if known := slices.IndexFunc(l.Hierarchies, h.same); known < 0 {
			l.Hierarchies = append(l.Hierarchies, h)
		} else if l.Hierarchies[known].Mount == h.Mount {
			l.Hierarchies[known] = h
		}
	}
	v1, v2 := false, false
	for i := range l.Hierarchies {
		h := &l.Hierarchies[i]
		h.Own = ownGroup(string(own), *h)
		v2 = v2 || h.Version == 2
		v1 = v1 || h.Version == 1 && !strings.HasPrefix(h.Controllers[0], "name=")
	}
	switch {
	case v1 && v2:
		l.Mode = Hybrid
	case v1:
		l.Mode = V1
	case v2:
		l.Mode = V2
	default:
		l.Mode = None
	}
	return l
}

// located fills in what only the file system says.
func (l Layout) located() Layout {
	for i := range l.Hierarchies {
		l.Hierarchies[i].locate()
	}
	return l
}

// same tells whether both are mounts of one hierarchy.
func (h Hierarchy) same(k Hierarchy) bool {
	return k.Version == h.Version && slices.Equal(k.Controllers, h.Controllers)
}

// parseMount reads one line of mountinfo (proc_pid_mountinfo(5)).
func parseMount(line string) (Hierarchy, bool) {
	before, after, ok := strings.Cut(line, " - ")
	f, g := strings.Fields(before), strings.Fields(after)
	if !ok || len(f) < 6 || len(g) < 3 {
		return Hierarchy{}, false
	}
	h := Hierarchy{Root: unescape(f[3]), Mount: unescape(f[4])}
	switch g[0] {
	case "cgroup2":
		h.Version = 2
		return h, true
	case "cgroup":
		h.Version = 1
		for o := range strings.SplitSeq(g[2], ",") {
			switch o {
			case "rw", "ro", "none", "noprefix", "clone_children", "xattr", "cpuset_v2_mode", "favordynmods", "nofavordynmods":
			default:
				if !strings.HasPrefix(o, "release_agent=") {
					h.Controllers = append(h.Controllers, o)
				}
			}
		}
		return h, len(h.Controllers) > 0
	}
	return Hierarchy{}, false
}

// unescape turns mountinfo's \040 and the like into the bytes they stand for.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b bytes.Buffer
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && isOctal(s[i+1:i+4]) {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func isOctal(s string) bool {
	return strings.Trim(s, "01234567") == "" && s[0] <= '3'
}

// ownGroup finds h's line in /proc/self/cgroup and gives its path below the mount; "" when it lies outside.
func ownGroup(table string, h Hierarchy) string {
	for line := range strings.Lines(table) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 {
			continue
		}
		names := strings.Split(f[1], ",")
		if h.Version == 2 && f[1] != "" || h.Version == 1 && !slices.Contains(names, h.Controllers[0]) {
			continue
		}
		own := path.Clean("/" + f[2])
		if h.Root == "/" {
			return own
		}
		if rest, ok := strings.CutPrefix(own, h.Root); ok && (rest == "" || rest[0] == '/') {
			return path.Clean("/" + rest)
		}
		return ""
	}
	return ""
}

// locate finds the directory below which this process may make groups.
func (h *Hierarchy) locate() {
	candidates := []string{h.Mount}
	if h.Own != "" && h.Own != "/" {
		candidates = append(candidates, h.Mount+h.Own)
	}
	for _, c := range candidates {
		if unix.Access(c, unix.W_OK) == nil {
			h.Base = c
			break
		}
	}
	if h.Version == 2 {
		names, _ := os.ReadFile(path.Join(h.Mount, h.Own, "cgroup.controllers"))
		if h.Base != "" {
			names, _ = os.ReadFile(h.Base + "/cgroup.controllers")
		}
		h.Controllers = strings.Fields(string(names))
	}
}
