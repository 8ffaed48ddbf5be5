package userns

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	passwd "github.com/moby/sys/user"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/container"
	"berth/fault"
)

// Files are the host's tables of users (passwd(5), group(5)) and of the ids set aside for them (subuid(5), subgid(5)).
type Files struct {
	Dir              string // where they were read from
	Users            []passwd.User
	Groups           []passwd.Group
	SubUIDs, SubGIDs []passwd.SubID
}

// ReadFiles reads the tables in dir, which is /etc. A missing one is empty.
func ReadFiles(dir string) (f Files, err error) {
	f.Dir = dir
	read := func(name string, parse func([]byte) error) error {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			err = parse(data)
		}
		if err != nil {
			return fmt.Errorf("read the host's %s: %w", name, err)
		}
		return nil
	}
	err = errors.Join(
		read("passwd", func(d []byte) (err error) { f.Users, err = passwd.ParsePasswd(bytes.NewReader(d)); return err }),
		read("group", func(d []byte) (err error) { f.Groups, err = passwd.ParseGroup(bytes.NewReader(d)); return err }),
		read("subuid", func(d []byte) (err error) { f.SubUIDs, err = passwd.ParseSubID(bytes.NewReader(d)); return err }),
		read("subgid", func(d []byte) (err error) { f.SubGIDs, err = passwd.ParseSubID(bytes.NewReader(d)); return err }),
	)
	return f, err
}

// all lists every range of one of the tables; what is no range of ids is left out.
func (f Files) all(table []passwd.SubID) (list []Range) {
	for _, s := range table {
		if s.SubID >= 0 && s.Count > 0 && s.SubID+s.Count <= 1<<32-1 {
			list = append(list, Range{uint32(s.SubID), uint32(s.Count)})
		}
	}
	return list
}

// ranges lists those of a user or group, which the tables call by name or by number, in the order of the ids.
func (f Files) ranges(who string, table []passwd.SubID, numbers ...int) []Range {
	names := []string{who}
	for _, n := range numbers {
		names = append(names, strconv.Itoa(n))
	}
	list := f.all(slices.DeleteFunc(slices.Clone(table), func(s passwd.SubID) bool { return !slices.Contains(names, s.Name) }))
	slices.SortFunc(list, func(a, b Range) int { return int(int64(a.First) - int64(b.First)) })
	return list
}

// RemapUser is who "default" means, as on the field's engine.
const RemapUser = "dockremap"

// Remap reads the daemon's --userns-remap: "default", "user[:group]" or "uid[:gid]". The containers' ids are, one
// after another, those set aside for the user and the group. fault.Invalid says what is missing, and where.
func Remap(spec string, f Files) (container.IDs, error) {
	if spec == "" {
		return container.IDs{}, nil
	}
	if spec == "default" {
		spec = RemapUser
	}
	name, group, given := strings.Cut(spec, ":")
	if name == "" || given && group == "" || strings.Contains(group, ":") {
		return container.IDs{}, fault.New(fault.Invalid, "invalid user/group specification in --userns-remap: %q", spec)
	}
	user, uid, err := f.user(name)
	if err != nil {
		return container.IDs{}, err
	}
	if !given {
		group = user
	}
	groupName, gid := f.group(group)
	uids := f.ranges(user, f.SubUIDs, uid)
	gids := f.ranges(groupName, f.SubGIDs, gid)
	if len(gids) == 0 {
		gids = f.ranges(user, f.SubGIDs, uid) // newer tools write the user's name there
	}
	for _, one := range []struct {
		file   string
		ranges []Range
	}{{"subuid", uids}, {"subgid", gids}} {
		if len(one.ranges) == 0 {
			return container.IDs{}, fault.New(fault.Invalid, "can't create ID mappings: no %s ranges found for user %q in %s: add a line such as %s:100000:65536 (subuid(5))",
				one.file, user, filepath.Join(f.Dir, one.file), user)
		}
	}
	return container.IDs{UIDs: inOrder(uids), GIDs: inOrder(gids)}, nil
}

// user resolves a name or a number. A name that only the ranges have is taken, too.
func (f Files) user(name string) (string, int, error) {
	n, numeric := number(name)
	for _, u := range f.Users {
		if u.Name == name || numeric && u.Uid == n {
			if u.Uid == 0 {
				return "", 0, fault.New(fault.Invalid, "--userns-remap %s: root can't stand in for itself; leave the option out, or name another user", name)
			}
			return u.Name, u.Uid, nil
		}
	}
	if numeric {
		return "", 0, fault.New(fault.Invalid, "--userns-remap: uid %d has no entry in %s", n, filepath.Join(f.Dir, "passwd"))
	}
	if len(f.ranges(name, f.SubUIDs)) == 0 {
		return "", 0, fault.New(fault.Invalid, "--userns-remap: user %q has no entry in %s: add it (useradd --system %s), and its ranges to subuid and subgid there",
			name, filepath.Join(f.Dir, "passwd"), name)
	}
	return name, -1, nil
}

// group resolves a name or a number; -1 when only the name is known.
func (f Files) group(name string) (string, int) {
	n, numeric := number(name)
	for _, g := range f.Groups {
		if g.Name == name || numeric && g.Gid == n {
			return g.Name, g.Gid
		}
	}
	return name, -1
}

func number(s string) (int, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return int(n), err == nil
}

// inOrder maps the ids from 0 on to the ranges, one after another.
func inOrder(list []Range) (ids []specs.LinuxIDMapping) {
	next := uint32(0)
	for _, r := range list {
		ids = append(ids, specs.LinuxIDMapping{ContainerID: next, HostID: r.First, Size: r.Size})
		next += r.Size
	}
	return ids
}

// Reserve sets ids aside for user in both files of dir, unless it has some: the first 65,536 from 100000 on that nobody
// has, as useradd(8) would. It returns the tables as they are then.
func Reserve(f Files, user string) (Files, error) {
	if len(f.ranges(user, f.SubUIDs)) > 0 && len(f.ranges(user, f.SubGIDs)) > 0 {
		return f, nil
	}
	left := free([]Range{{100000, 600000000}}, append(f.all(f.SubUIDs), f.all(f.SubGIDs)...))
	for _, r := range left {
		if r.Size < DefaultSize {
			continue
		}
		for _, name := range []string{"subuid", "subgid"} {
			table := f.SubUIDs
			if name == "subgid" {
				table = f.SubGIDs
			}
			if len(f.ranges(user, table)) > 0 {
				continue
			}
			if err := appendLine(filepath.Join(f.Dir, name), fmt.Sprintf("%s:%d:%d\n", user, r.First, DefaultSize)); err != nil {
				return f, err
			}
		}
		return ReadFiles(f.Dir)
	}
	return f, fault.New(fault.Unavailable, "--userns-remap: %s and subgid have no %d free ids from 100000 on for user %s", filepath.Join(f.Dir, "subuid"), DefaultSize, user)
}

// appendLine adds one line in a single write, so that a reader never sees half of it.
func appendLine(path, line string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	if text, rerr := os.ReadFile(path); rerr == nil && len(text) > 0 && text[len(text)-1] != '\n' {
		line = "\n" + line
	}
	_, err = f.WriteString(line)
	return errors.Join(err, f.Close())
}
