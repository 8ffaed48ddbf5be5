package zfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"berth/fault"
)

// The programs are fake here: what is tested is which of them are run with what, and how their words are understood. The
// contract suite of package union runs over the real ones where there are any.

// script is zfs and zpool: it notes how it was called and does what a file of that name says.
const script = `#!/bin/sh
call="${0##*/} $*"
echo "$call" >>"$FAKE/calls"
answer="$FAKE/$(echo "$call" | sed 's,/,%,g')"
[ ! -e "$answer" ] || . "$answer"
`

type fake struct {
	t   *testing.T
	dir string
}

func newFake(t *testing.T) *fake {
	f := &fake{t, t.TempDir()}
	for _, program := range []string{"zfs", "zpool"} {
		if err := os.WriteFile(filepath.Join(f.dir, program), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", f.dir+":"+os.Getenv("PATH"))
	t.Setenv("FAKE", f.dir)
	return f
}

// prints makes a call print a text.
func (f *fake) prints(call, text string) {
	f.t.Helper()
	f.answer(call, "cat <<'E'\n"+text+"E\n")
}

// fails makes a call fail with what it says.
func (f *fake) fails(call, words string) {
	f.t.Helper()
	f.answer(call, "echo \""+words+"\" >&2; exit 1\n")
}

func (f *fake) answer(call, do string) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, strings.ReplaceAll(call, "/", "%")), []byte(do), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// calls compares what was run since the last time.
func (f *fake) calls(want ...string) {
	f.t.Helper()
	log := filepath.Join(f.dir, "calls")
	text, err := os.ReadFile(log)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		f.t.Fatal(err)
	}
	os.Remove(log)
	got := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	if text == nil {
		got = nil
	}
	if !slices.Equal(got, want) {
		f.t.Errorf("ran\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// group opens trees in tank/g/berth-1.
func group(t *testing.T) (*fake, *Trees) {
	t.Helper()
	f, dir := newFake(t), t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "group"), []byte("tank/g/berth-1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tr, err := open(dir, "tank/g")
	if err != nil {
		t.Fatal(err)
	}
	f.calls("zfs list -H -o name -t filesystem tank/g/berth-1",
		"zfs list -H -o name,defer_destroy -t snapshot -r tank/g/berth-1")
	return f, tr
}

func TestFirstOpenDrawsAGroup(t *testing.T) {
	f, dir := newFake(t), filepath.Join(t.TempDir(), "zfs")
	// The name isn't known before: every list fails until the group is made.
	if err := os.WriteFile(filepath.Join(f.dir, "zfs"), []byte(strings.Replace(script, "answer=", `case "$call" in *filesystem*) echo "cannot open: dataset does not exist" >&2; exit 1;; esac
answer=`, 1)), 0o755); err != nil {
		t.Fatal(err)
	}
	tr, err := open(dir, "tank")
	if err != nil {
		t.Fatal(err)
	}
	note, err := os.ReadFile(filepath.Join(dir, "group"))
	if err != nil || string(note) != tr.group+"\n" || !strings.HasPrefix(tr.group, "tank/berth-") || len(tr.group) != len("tank/berth-")+12 {
		t.Errorf("group %q, noted %q, %v", tr.group, note, err)
	}
	f.calls("zfs list -H -o name -t filesystem "+tr.group,
		"zfs create -o mountpoint=none -o canmount=off -o readonly=off -o exec=on -o setuid=on -o devices=on -o xattr=sa -o acltype=posixacl -o com.sun:auto-snapshot=false "+tr.group,
		"zfs list -H -o name,defer_destroy -t snapshot -r "+tr.group)
	if _, err := open(dir, "rust/other"); !errors.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "zfs.fsname=tank,") {
		t.Errorf("another dataset gives %v", err)
	}
}

func TestOpenSweepsSnapshotsThatBecameNothing(t *testing.T) {
	f, dir := newFake(t), t.TempDir()
	os.WriteFile(filepath.Join(dir, "group"), []byte("tank/berth-1\n"), 0o600)
	f.prints("zfs list -H -o name,defer_destroy -t snapshot -r tank/berth-1", "tank/berth-1/a@frozen\toff\ntank/berth-1/b@c\ton\ntank/berth-1/b@d\toff\n")
	if _, err := open(dir, "tank"); err != nil {
		t.Fatal(err)
	}
	f.calls("zfs list -H -o name -t filesystem tank/berth-1",
		"zfs list -H -o name,defer_destroy -t snapshot -r tank/berth-1",
		"zfs destroy -d tank/berth-1/b@d")
}

func TestCommands(t *testing.T) {
	f, tr := group(t)
	f.fails("zfs clone -o mountpoint=legacy tank/g/berth-1/warm@frozen tank/g/berth-1/c", "cannot open 'tank/g/berth-1/warm@frozen': dataset does not exist")
	f.fails("zfs destroy -r tank/g/berth-1/gone", "cannot open 'tank/g/berth-1/gone': dataset does not exist")
	f.fails("zfs snapshot tank/g/berth-1/twice@frozen", "cannot create snapshot 'tank/g/berth-1/twice@frozen': dataset already exists")
	f.prints("zfs list -H -o name -t filesystem -d 1 -r tank/g/berth-1", "tank/g/berth-1\ntank/g/berth-1/a\ntank/g/berth-1/b-2\n")
	f.prints("zfs get -Hp -o value used tank/g/berth-1/a", "98304\n")
	for _, c := range []struct {
		name string
		do   func() error
		want []string
	}{
		{"empty", func() error { return tr.Make("a", "") }, []string{"zfs create -o mountpoint=legacy tank/g/berth-1/a"}},
		{"copy of a frozen one", func() error { return tr.Make("b", "a") }, []string{"zfs clone -o mountpoint=legacy tank/g/berth-1/a@frozen tank/g/berth-1/b"}},
		{"copy of a writable one", func() error { return tr.Make("c", "warm") }, []string{
			"zfs clone -o mountpoint=legacy tank/g/berth-1/warm@frozen tank/g/berth-1/c",
			"zfs snapshot tank/g/berth-1/warm@c",
			"zfs clone -o mountpoint=legacy tank/g/berth-1/warm@c tank/g/berth-1/c",
			"zfs destroy -d tank/g/berth-1/warm@c"}},
		{"remove", func() error { return tr.Remove("a") }, []string{"zfs destroy -r tank/g/berth-1/a"}},
		{"remove what is gone", func() error { return tr.Remove("gone") }, []string{"zfs destroy -r tank/g/berth-1/gone"}},
		{"freeze", func() error { return tr.Freeze("a") }, []string{"zfs set readonly=on tank/g/berth-1/a", "zfs snapshot tank/g/berth-1/a@frozen"}},
		{"freeze again", func() error { return tr.Freeze("twice") }, []string{"zfs set readonly=on tank/g/berth-1/twice", "zfs snapshot tank/g/berth-1/twice@frozen"}},
		{"sync", func() error { return tr.Sync("a") }, []string{"zpool sync tank"}},
		{"limit", func() error { return tr.Limit("a", 10<<30) }, []string{"zfs set quota=10737418240 tank/g/berth-1/a"}},
		{"unmounted", func() error { return tr.Unmounted("a") }, nil},
		{"list", func() error { return same(tr.List())([]string{"a", "b-2"}) }, []string{"zfs list -H -o name -t filesystem -d 1 -r tank/g/berth-1"}},
		{"usage", func() error { return same(tr.Usage("a"))(98304) }, []string{"zpool sync tank", "zfs get -Hp -o value used tank/g/berth-1/a"}},
		{"mount", func() error { m, err := tr.Mount("a"); return same(m.Type+" "+m.Source, err)("zfs tank/g/berth-1/a") }, []string{"zfs list -H -o name -t filesystem tank/g/berth-1/a"}},
	} {
		if err := c.do(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		f.calls(c.want...)
	}
}

// same compares what a call gave with what it should.
func same[T any](got T, err error) func(want T) error {
	return func(want T) error {
		if err == nil && fmt.Sprint(got) != fmt.Sprint(want) {
			err = fmt.Errorf("got %v, want %v", got, want)
		}
		return err
	}
}

func TestWordsOfThePrograms(t *testing.T) {
	f, tr := group(t)
	for words, kind := range map[string]fault.Kind{
		"cannot destroy 'tank/g/berth-1/a': dataset is busy":                                                                 fault.Conflict,
		"cannot destroy 'tank/g/berth-1/a': filesystem has dependent clones\nuse '-R' to destroy the following datasets:\nb": fault.Conflict,
		"cannot destroy 'tank/g/berth-1/a': permission denied":                                                               fault.Denied,
		"internal error: something else":                                                                                     "",
	} {
		f.fails("zfs destroy -r tank/g/berth-1/a", words)
		err := tr.Remove("a")
		if err == nil || fault.Of(err) != kind || !strings.Contains(err.Error(), strings.Fields(words)[0]) {
			t.Errorf("%q gives %v, kind %q", words, err, fault.Of(err))
		}
	}
	f.fails("zfs create -o mountpoint=legacy tank/g/berth-1/a", "cannot create 'tank/g/berth-1/a': dataset already exists")
	if err := tr.Make("a", ""); !errors.Is(err, fault.Exists) {
		t.Errorf("a name that is taken gives %v", err)
	}
	f.fails("zfs clone -o mountpoint=legacy tank/g/berth-1/x@frozen tank/g/berth-1/b", "cannot open 'tank/g/berth-1/x@frozen': dataset does not exist")
	f.fails("zfs snapshot tank/g/berth-1/x@b", "cannot open 'tank/g/berth-1/x': dataset does not exist")
	if err := tr.Make("b", "x"); !errors.Is(err, fault.NotFound) {
		t.Errorf("a copy of what is not there gives %v", err)
	}
	f.prints("zfs get -Hp -o value used tank/g/berth-1/a", "-\n")
	if _, err := tr.Usage("a"); err == nil {
		t.Error("a usage of - is taken for a number")
	}
}

func TestStatus(t *testing.T) {
	f, tr := group(t)
	f.prints("zpool list -H -o name,health tank", "tank\tONLINE\n")
	f.prints("zfs get -Hp -o property,value used,available,quota,compression tank/g", "used\t1048576\navailable\t5368709120\nquota\t0\ncompression\tlz4\n")
	want := [][2]string{{"Zpool", "tank"}, {"Zpool Health", "ONLINE"}, {"Parent Dataset", "tank/g"}, {"Space Used By Parent", "1048576"},
		{"Space Available", "5368709120"}, {"Parent Quota", "no"}, {"Compression", "lz4"}}
	if got := tr.Status(); !slices.Equal(got, want) {
		t.Errorf("status %v", got)
	}
	f.fails("zpool list -H -o name,health tank", "cannot open 'tank': no such pool")
	if got := tr.Status(); !strings.Contains(got[0][1], "no such pool") || got[1][1] != "not available" {
		t.Errorf("status without its pool %v", got[:2])
	}
}

func TestOptions(t *testing.T) {
	for o, ok := range map[string]bool{"fsname=tank/containers": true, "fsname=": false, "fsname=/tank": false, "fsname=a@b": false, "fsname=-r": false, "size=3": false} {
		if _, err := fsname([]string{o}); ok != (err == nil) || !ok && !errors.Is(err, fault.Invalid) {
			t.Errorf("option %q gives %v", o, err)
		}
	}
}

func TestDatasetOfAMount(t *testing.T) {
	const mounts = `22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
31 22 0:44 / /tank rw,noatime shared:8 - zfs tank rw,xattr,posixacl
32 31 0:45 / /tank/my\040data rw,noatime shared:9 - zfs tank/my\040data rw,xattr,posixacl
33 22 0:46 / /other rw - tmpfs zfs rw
`
	for device, want := range map[string]string{"0:44": "tank", "0:45": "tank/my data", "0:46": "", "254:1": "", "9:9": ""} {
		if got := sourceOf(mounts, device); got != want {
			t.Errorf("device %s is %q, want %q", device, got, want)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := Open(t.TempDir(), nil); !errors.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), "zfsutils-linux") {
		t.Errorf("without programs: %v", err)
	}
	newFake(t)
	if _, err := os.Stat(device); err == nil {
		return // the rest is refused for other reasons
	}
	if _, err := Open(t.TempDir(), nil); !errors.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), "kernel has no ZFS") {
		t.Errorf("without the module: %v", err)
	}
}
