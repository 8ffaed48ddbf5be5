package oci

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	passwd "github.com/moby/sys/user"

	"berth/fault"
	"berth/kernel"
)

// user is who a program runs as.
type user struct {
	uid, gid uint32
	groups   []uint32
	home     string
	named    bool // resolved from an image's name: an ordinary user has no capabilities, as after any execve
}

// maxTable bounds how much of a container's /etc/passwd is read, in bytes.
const maxTable = 8 << 20

// table reads a file such as /etc/passwd of root, nil being the thread's, as far as it is a regular file; none is empty.
func table(root *os.File, path string) ([]byte, error) {
	how := uint64(kernel.NoMagicLinks)
	if root != nil {
		how |= kernel.InRoot
	}
	f, err := kernel.OpenIn(root, path, os.O_RDONLY|kernel.ONonblock|kernel.ONoCTTY, 0, how)
	if errors.Is(err, os.ErrNotExist) || kernel.IsNotDir(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, errors.Join(err, fault.New(fault.Invalid, "%s in the container is not a regular file", path))
	}
	data, err := io.ReadAll(io.LimitReader(f, maxTable+1))
	if len(data) > maxTable {
		return nil, fault.New(fault.Invalid, "%s in the container is larger than %d bytes", path, maxTable)
	}
	return data, err
}

// findUser resolves who runs, by the tables of the thread's root.
func findUser(name string, given *specs.User, add []string) (user, error) {
	return findUserIn(nil, name, given, add)
}

// findUserIn is findUser by the tables of root, nil being the thread's.
func findUserIn(root *os.File, name string, given *specs.User, add []string) (user, error) {
	users, err := table(root, "/etc/passwd")
	if err != nil {
		return user{}, err
	}
	groups, err := table(root, "/etc/group")
	if err != nil {
		return user{}, err
	}
	return resolveUser(name, given, add, users, groups)
}

// resolveUser resolves name as an image has it ("", "name", "uid:gid", …), or takes the numbers given. The texts
// of its errors are those that the field's tools know.
func resolveUser(name string, given *specs.User, add []string, users, groups []byte) (user, error) {
	if given != nil {
		u := user{uid: given.UID, gid: given.GID, groups: slices.Clone(given.AdditionalGids), home: "/"}
		entries, err := passwd.ParsePasswdFilter(bytes.NewReader(users), func(e passwd.User) bool { return e.Uid == int(given.UID) })
		if err == nil && len(entries) > 0 {
			u.home = entries[0].Home
		}
		return u, nil
	}
	found, err := passwd.GetExecUser(name, &passwd.ExecUser{Home: "/"}, bytes.NewReader(users), bytes.NewReader(groups))
	if err != nil {
		return user{}, fault.Wrap(fault.Invalid, err)
	}
	more, err := passwd.GetAdditionalGroups(add, bytes.NewReader(groups))
	if err != nil {
		return user{}, fault.Wrap(fault.Invalid, err)
	}
	u := user{uid: uint32(found.Uid), gid: uint32(found.Gid), home: found.Home, named: true}
	// The primary group is in the list too: a process that changes its gid must not lose what denies it something (CVE-2022-36109).
	for _, g := range append(append([]int{found.Gid}, found.Sgids...), more...) {
		if n := uint32(g); !slices.Contains(u.groups, n) {
			u.groups = append(u.groups, n)
		}
	}
	return u, nil
}

// resolveUser decides who the container's program runs as, and its environment.
func (b *builder) resolveUser() error {
	var given *specs.User
	if b.bundle.UserFromSpec {
		given = &b.spec.Process.User
	}
	u, err := findUser(b.bundle.User, given, b.bundle.GroupAdd)
	if err != nil {
		return err
	}
	b.user, b.env = u, withHome(b.spec.Process.Env, u)
	return b.giveStdio()
}

// giveStdio makes the program's user own its pipes and its terminal, so that /dev/stdout can be opened again.
func (b *builder) giveStdio() error {
	for _, f := range append([]*os.File{b.terminal}, b.stdio[:]...) {
		if f == nil {
			continue
		}
		st, err := kernel.Stat(f)
		if err != nil {
			return err
		}
		uid, err := b.outsideUID(b.user.uid)
		if err != nil {
			return err
		}
		if f != b.terminal && !kernel.IsPipe(st.Mode) || st.Uid == uid {
			continue
		}
		if err := kernel.Chown(f, uid, st.Gid); err != nil && !errors.Is(err, os.ErrPermission) {
			return err
		}
	}
	return nil
}

// mapped refuses a user whose ids a user namespace with these maps does not have: the kernel would only call it invalid.
func (u user) mapped(uids, gids []specs.LinuxIDMapping) error {
	_, err := mapID(uids, u.uid)
	for _, g := range append([]uint32{u.gid}, u.groups...) {
		if err == nil {
			_, err = mapID(gids, g)
		}
	}
	if err != nil {
		return fault.New(fault.Invalid, "user %s with groups %v: %w: give it more ids (--userns auto:size=N, /etc/subuid), or choose another user", u, u.groups, err)
	}
	return nil
}

// outsideUID is what the thread has to call a user of the container.
func (b *builder) outsideUID(uid uint32) (uint32, error) {
	if b.uids == nil {
		return uid, nil
	}
	return mapID(b.uids, uid)
}

// withHome adds HOME to an environment that has none.
func withHome(env []string, u user) []string {
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "HOME="); ok && v != "" {
			return env
		}
	}
	out := slices.DeleteFunc(slices.Clone(env), func(e string) bool { return strings.HasPrefix(e, "HOME=") })
	home := u.home
	if home == "" {
		home = "/"
	}
	return append(out, "HOME="+home)
}

func (u user) String() string {
	return fmt.Sprintf("%d:%s", u.uid, strconv.Itoa(int(u.gid)))
}
