// Package zfs keeps whole file trees as datasets of a ZFS pool, each a clone of the one it began as.
//
// It is not a storage driver: layers, roots and their records are package union's, which gives the names. ZFS has no stable
// interface but its programs, so zfs(8) and zpool(8) are run. Invariant: it touches only datasets below the group that
// it drew a name for, so that a sweep never meets what is somebody else's.
package zfs

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"berth/fault"
	"berth/kernel"
)

// Trees are the datasets below a group.
//
//	DIR/group                   the group's name
//	PARENT/berth-HEX            the group, which holds no files; PARENT is zfs.fsname, or the dataset that DIR lies on
//	PARENT/berth-HEX/NAME       a tree
//	PARENT/berth-HEX/A@frozen   what copies of the frozen tree A begin as
//	PARENT/berth-HEX/A@B        what the copy B of the writable tree A begins as; goes with B
type Trees struct {
	parent string
	group  string
}

const (
	device = "/dev/zfs"
	super  = 0x2fc12fc1 // ZFS_SUPER_MAGIC of OpenZFS's sys/zfs_vfsops_os.h
)

// Open opens the trees that DIR/group names; the first time it draws a group below the dataset that is the option "fsname=DATASET", or the one that dir lies
// on. fault.Unsupported says what is missing, fault.Invalid names an option that it doesn't know.
func Open(dir string, options []string) (*Trees, error) {
	parent, err := fsname(options)
	if err != nil {
		return nil, err
	}
	for _, program := range []string{"zfs", "zpool"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fault.New(fault.Unsupported, "storage driver zfs: the program %s is missing: install zfsutils-linux, or use --storage-driver overlay2", program)
		}
	}
	if _, err := os.Stat(device); err != nil {
		return nil, fault.New(fault.Unsupported, "storage driver zfs: this kernel has no ZFS (%w): load its module zfs, or use --storage-driver overlay2", err)
	}
	if parent == "" {
		if parent, err = datasetOf(dir); err != nil {
			return nil, err
		}
	}
	return open(dir, parent)
}

func fsname(options []string) (name string, err error) {
	for _, o := range options {
		key, value, _ := strings.Cut(o, "=")
		if key != "fsname" {
			return "", fault.New(fault.Invalid, "storage driver zfs has no option %q: it takes zfs.fsname", "zfs."+key)
		}
		if value == "" || strings.ContainsAny(value, "@# \t\n") || strings.HasPrefix(value, "/") || strings.HasPrefix(value, "-") {
			return "", fault.New(fault.Invalid, "storage option zfs.fsname=%s: give the name of a dataset such as tank/containers", value)
		}
		name = value
	}
	return name, nil
}

// datasetOf finds the dataset that dir lies on.
func datasetOf(dir string) (name string, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	f, err := os.Open(dir)
	if err != nil {
		return "", err
	}
	defer fault.Close(f, &err)
	kind, err := kernel.FSType(f)
	if err != nil {
		return "", err
	}
	if kind != super {
		return "", fault.New(fault.Unsupported, "storage driver zfs: %s does not lie on ZFS: name a dataset by --storage-opt zfs.fsname=DATASET, choose a --data-root on one, or use --storage-driver overlay2", dir)
	}
	st, err := kernel.Stat(f)
	if err != nil {
		return "", err
	}
	mounts, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return "", err
	}
	major, minor := kernel.DevNumbers(st.Dev)
	if name = sourceOf(string(mounts), fmt.Sprintf("%d:%d", major, minor)); name == "" {
		return "", fault.New(fault.Unsupported, "storage driver zfs: no mount tells which dataset %s lies on: name one by --storage-opt zfs.fsname=DATASET", dir)
	}
	return name, nil
}

// sourceOf finds the dataset that is mounted as a device in the lines of a mountinfo (proc_pid_mountinfo(5)).
func sourceOf(mountinfo, device string) string {
	for line := range strings.Lines(mountinfo) {
		mount, rest, ok := strings.Cut(line, " - ")
		fields, of := strings.Fields(mount), strings.Fields(rest)
		if ok && len(fields) > 2 && fields[2] == device && len(of) > 1 && of[0] == "zfs" {
			return unescape.Replace(of[1])
		}
	}
	return ""
}

var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// open finds or draws the group, and drops snapshots that were to become copies when the machine, or we, went down.
func open(dir, parent string) (*Trees, error) {
	t := &Trees{parent: parent}
	note := filepath.Join(dir, "group")
	text, err := os.ReadFile(note)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if err := t.draw(dir, note); err != nil {
			return nil, fmt.Errorf("open storage driver zfs: %w", err)
		}
	case err != nil:
		return nil, fmt.Errorf("open storage driver zfs: %w", err)
	default:
		t.group = strings.TrimSpace(string(text))
		if !strings.HasPrefix(t.group, parent+"/") {
			return nil, fault.New(fault.Conflict, "storage driver zfs: the layers in %s lie in the dataset %s, not below %s: set zfs.fsname=%s, or choose another --data-root", dir, t.group, parent, strings.TrimSuffix(t.group, "/"+filepath.Base(t.group)))
		}
	}
	if err := t.found(); err != nil {
		return nil, fmt.Errorf("open storage driver zfs: %w", err)
	}
	if err := t.sweep(); err != nil {
		return nil, fmt.Errorf("open storage driver zfs: %w", err)
	}
	return t, nil
}

// draw names a new group, on disk before it exists.
func (t *Trees) draw(dir, note string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var b [6]byte
	rand.Read(b[:])
	t.group = t.parent + "/berth-" + hex.EncodeToString(b[:])
	part := note + ".new"
	if err := os.WriteFile(part, []byte(t.group+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(part, note)
}

// groupProperties are what trees need, whatever the pool's owner has chosen for other datasets. Nothing of a group is mounted by
// itself, and a service that makes snapshots of everything would keep trees from being removed.
var groupProperties = []string{"mountpoint=none", "canmount=off", "readonly=off", "exec=on", "setuid=on", "devices=on", "xattr=sa", "acltype=posixacl", "com.sun:auto-snapshot=false"}

// found makes the group unless it is there.
func (t *Trees) found() error {
	_, err := run("zfs", "list", "-H", "-o", "name", "-t", "filesystem", t.group)
	if !errors.Is(err, fault.NotFound) {
		return err
	}
	args := []string{"create"}
	for _, p := range groupProperties {
		args = append(args, "-o", p)
	}
	if _, err = run("zfs", append(args, t.group)...); errors.Is(err, fault.NotFound) {
		return fault.New(fault.Unsupported, "the dataset %s does not exist: make it, or set zfs.fsname to one that does: %w", t.parent, err)
	}
	return err
}

func (t *Trees) sweep() error {
	rows, err := table("zfs", "list", "-H", "-o", "name,defer_destroy", "-t", "snapshot", "-r", t.group)
	if err != nil {
		return err
	}
	for _, r := range rows {
		if len(r) < 2 || r[1] == "on" || strings.HasSuffix(r[0], "@frozen") {
			continue
		}
		if _, err := run("zfs", "destroy", "-d", r[0]); err != nil && !errors.Is(err, fault.NotFound) {
			return err
		}
	}
	return nil
}

func (t *Trees) dataset(name string) string { return t.group + "/" + name }

// Make makes a tree as a clone of from, or an empty one.
func (t *Trees) Make(name, from string) error {
	if from == "" {
		_, err := run("zfs", "create", "-o", "mountpoint=legacy", t.dataset(name)) // its top is the root's, mode 0755
		return err
	}
	err := t.clone(t.dataset(from)+"@frozen", name)
	if !errors.Is(err, fault.NotFound) {
		return err
	}
	origin := t.dataset(from) + "@" + name
	if _, err := run("zfs", "snapshot", origin); err != nil {
		return err
	}
	err = t.clone(origin, name)
	_, dropped := run("zfs", "destroy", "-d", origin) // when the clone goes
	return errors.Join(err, dropped)
}

func (t *Trees) clone(origin, name string) error {
	_, err := run("zfs", "clone", "-o", "mountpoint=legacy", origin, t.dataset(name))
	return err
}

// Remove removes a tree: fault.Conflict while it is mounted, or while there are copies of it.
func (t *Trees) Remove(name string) error {
	_, err := run("zfs", "destroy", "-r", t.dataset(name))
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

// List lists all trees.
func (t *Trees) List() (names []string, err error) {
	rows, err := table("zfs", "list", "-H", "-o", "name", "-t", "filesystem", "-d", "1", "-r", t.group)
	for _, r := range rows {
		if name, ok := strings.CutPrefix(r[0], t.group+"/"); ok {
			names = append(names, name)
		}
	}
	return names, err
}

// Mount tells that a tree is a file system, its dataset the source.
func (t *Trees) Mount(name string) (m struct {
	Type, Source string
	Options      []string
}, err error) {
	m.Type, m.Source = "zfs", t.dataset(name)
	_, err = run("zfs", "list", "-H", "-o", "name", "-t", "filesystem", m.Source)
	return m, err
}

// Unmounted has nothing to let go of.
func (t *Trees) Unmounted(string) error { return nil }

// Freeze keeps the tree as it is now for its copies, and makes later mounts of it read-only.
func (t *Trees) Freeze(name string) error {
	if _, err := run("zfs", "set", "readonly=on", t.dataset(name)); err != nil {
		return err
	}
	_, err := run("zfs", "snapshot", t.dataset(name)+"@frozen")
	if errors.Is(err, fault.Exists) {
		return nil
	}
	return err
}

// Sync writes out the pool that all trees share.
func (t *Trees) Sync(string) error {
	_, err := run("zpool", "sync", t.pool())
	return err
}

func (t *Trees) pool() string {
	pool, _, _ := strings.Cut(t.group, "/")
	return pool
}

// Usage is what ZFS counts for the tree alone, compressed. It writes out what waits in memory first, which is not counted.
func (t *Trees) Usage(name string) (own int64, err error) {
	if err := t.Sync(name); err != nil {
		return 0, err
	}
	rows, err := table("zfs", "get", "-Hp", "-o", "value", "used", t.dataset(name))
	if err != nil {
		return 0, err
	}
	if len(rows) == 1 {
		if own, err = strconv.ParseInt(rows[0][0], 10, 64); err == nil {
			return own, nil
		}
	}
	return 0, fmt.Errorf("zfs get used: %q is no number", slices.Concat(rows...))
}

// Limit bounds what the tree takes of its own, snapshots of it included.
func (t *Trees) Limit(name string, bytes int64) error {
	_, err := run("zfs", "set", "quota="+strconv.FormatInt(bytes, 10), t.dataset(name))
	return err
}

// Status gives the rows that the field's engines show.
func (t *Trees) Status() [][2]string {
	name, health := t.pool(), "not available"
	if rows, err := table("zpool", "list", "-H", "-o", "name,health", t.pool()); err != nil {
		name = err.Error()
	} else if len(rows) == 1 && len(rows[0]) == 2 {
		name, health = rows[0][0], rows[0][1]
	}
	values := map[string]string{}
	rows, _ := table("zfs", "get", "-Hp", "-o", "property,value", "used,available,quota,compression", t.parent)
	for _, r := range rows {
		if len(r) == 2 {
			values[r[0]] = r[1]
		}
	}
	if q := values["quota"]; q == "0" || q == "" {
		values["quota"] = "no"
	}
	return [][2]string{
		{"Zpool", name},
		{"Zpool Health", health},
		{"Parent Dataset", t.parent},
		{"Space Used By Parent", values["used"]},
		{"Space Available", values["available"]},
		{"Parent Quota", values["quota"]},
		{"Compression", values["compression"]},
	}
}

// Close has nothing to let go of.
func (t *Trees) Close() error { return nil }

// table runs a program and splits what it prints by lines and tabs.
func table(program string, args ...string) (rows [][]string, err error) {
	out, err := run(program, args...)
	for line := range strings.Lines(out) {
		rows = append(rows, strings.Split(strings.TrimSuffix(line, "\n"), "\t"))
	}
	return rows, err
}

// kinds are the words by which the programs tell what went wrong (OpenZFS's libzfs_util.c).
var kinds = []struct {
	words string
	kind  fault.Kind
}{
	{"dataset does not exist", fault.NotFound},
	{"parent does not exist", fault.NotFound},
	{"no such pool", fault.NotFound},
	{"could not find any snapshots to destroy", fault.NotFound},
	{"already exists", fault.Exists},
	{"is busy", fault.Conflict},
	{"dependent clones", fault.Conflict},
	{"out of space", fault.Unavailable},
	{"permission denied", fault.Denied},
}

// run gives what a program prints. An error has the program's own words and their kind.
func run(program string, args ...string) (string, error) {
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	if err == nil {
		return out.String(), nil
	}
	words := strings.Join(strings.Fields(said.String()), " ")
	err = fmt.Errorf("%s %s: %w: %s", program, args[0], err, words)
	for _, k := range kinds {
		if strings.Contains(words, k.words) {
			return "", fault.Wrap(k.kind, err)
		}
	}
	return "", err
}
