package toolbox

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"berth/fault"
	"berth/oci"
	"berth/union"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// program makes the header of an ELF file; with a loader it is dynamic.
func program(t *testing.T, loader bool) []byte {
	t.Helper()
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1, Shentsize: 64}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	p := elf.Prog64{Type: uint32(elf.PT_LOAD)}
	if loader {
		p.Type = uint32(elf.PT_INTERP)
	}
	var b bytes.Buffer
	for _, part := range []any{h, p} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func TestFind(t *testing.T) {
	static, dynamic := program(t, false), program(t, true)
	for _, c := range []struct {
		name        string
		files       map[string][]byte
		links       map[string]string
		shell, want string // want is part of the reason
	}{
		{"a static shell", map[string][]byte{"bin/sh": static}, nil, "bin/sh", ""},
		{"relative links", map[string][]byte{"usr/bin/busybox": static}, map[string]string{"bin": "usr/bin", "usr/bin/sh": "busybox"}, "bin/sh", ""},
		{"a dynamic bash beside a static sh", map[string][]byte{"bin/bash": dynamic, "bin/sh": static}, nil, "bin/sh", ""},
		{"dynamic only", map[string][]byte{"bin/sh": dynamic}, nil, "", "statically linked"},
		{"an absolute link", map[string][]byte{"bin/busybox": static}, map[string]string{"bin/sh": "/bin/busybox"}, "", "absolute symbolic link"},
		{"a link that leads out", nil, map[string]string{"bin": "../../../bin"}, "", "no shell"},
		{"a script", map[string][]byte{"bin/sh": []byte("#!/x")}, nil, "", "no program"},
		{"nothing", nil, nil, "", "no shell"},
		{"dynamic, with room for the container", map[string][]byte{"bin/sh": dynamic, "mnt/.keep": nil}, nil, "bin/sh", ""},
		{"an absolute link, with room for the container", map[string][]byte{"bin/busybox": static, "srv/.keep": nil}, map[string]string{"bin/sh": "/bin/busybox"}, "bin/sh", ""},
	} {
		dir := t.TempDir()
		for name, data := range c.files {
			if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		for name, to := range c.links {
			if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		top, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		k, err := Find(top)
		top.Close()
		if k.Shell != c.shell {
			t.Errorf("%s: got %q, %v", c.name, k.Shell, err)
		}
		if rooted := strings.Contains(c.name, "with room"); rooted != (k.Rooted != "") || rooted != (k.Why != "") {
			t.Errorf("%s: got %+v", c.name, k)
		}
		if c.want != "" && (!errors.Is(err, fault.NotFound) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got the reason %v, want %q", c.name, err, c.want)
		}
	}
}

func TestEnvironment(t *testing.T) {
	k := Kit{Shell: "bin/sh", Dirs: []string{"sbin", "bin"}}
	if got := k.Environment([]string{"A=1", "PATH=/usr/bin"}, Side); !slices.Equal(got, []string{"A=1", "PATH=/proc/fs/sbin:/proc/fs/bin:/usr/bin"}) {
		t.Error(got)
	}
	if got := k.Environment(nil, Fresh); !slices.Equal(got, []string{"PATH=/.tools/sbin:/.tools/bin"}) {
		t.Error(got)
	}
	if got := k.Command(nil, Side); !slices.Equal(got, []string{"/proc/fs/bin/sh"}) {
		t.Error(got)
	}
	if got := k.Command([]string{"ls"}, Side); !slices.Equal(got, []string{"ls"}) {
		t.Error(got)
	}
}

func TestMount(t *testing.T) {
	stacked := union.Mount{Type: "overlay", Source: "overlay", Options: []string{"lowerdir+=/a", "lowerdir+=/b"}}
	if got := Mount(stacked, Fresh); got.Type != "overlay" || !slices.Equal(got.Options, []string{"lowerdir+=/a", "lowerdir+=/b", "ro", "nosuid", "nodev"}) {
		t.Errorf("%+v", got)
	}
	if got := Mount(union.Mount{Type: "bind", Source: "/a"}, Fresh); got.Source != "/a" || !slices.Equal(got.Options, []string{"bind", "private", "ro", "nosuid", "nodev"}) {
		t.Errorf("%+v", got)
	}
	if len(stacked.Options) != 2 {
		t.Error("the argument was changed")
	}
}

func TestLend(t *testing.T) {
	e := oci.ExecSpec{}
	e.Process.Cwd, e.Process.Env = "/app", []string{"PATH=/bin"}
	aside, rooted := e, e
	Kit{Dirs: []string{"bin"}}.Lend(&aside, specs.Mount{Destination: Side})
	if aside.ToolsRoot != "" || aside.Process.Cwd != "/app" || aside.Process.Env[0] != "PATH=/proc/fs/bin:/bin" || len(aside.Tools) != 1 {
		t.Errorf("%+v", aside)
	}
	Kit{Dirs: []string{"usr/bin"}, Rooted: "mnt"}.Lend(&rooted, specs.Mount{Destination: Side})
	if rooted.ToolsRoot != "mnt" || rooted.Process.Cwd != "/mnt/app" || rooted.Process.Env[0] != "PATH=/usr/bin:/bin" {
		t.Errorf("%+v", rooted)
	}
}
