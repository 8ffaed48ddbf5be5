package hold

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path"
	"runtime/debug"
	"strings"
	"syscall"

	"berth/kernel"
)

// Main is a holder: it mounts what it is told on its standard input, answers on its standard output, and lives until it is killed. It ends by itself when
// whoever started it goes before having said that it is recorded. It was started in a mount namespace of its own.
func Main() int {
	orders := bufio.NewReader(os.Stdin)
	line, err := orders.ReadBytes('\n')
	if err != nil {
		return 1
	}
	var m Mounting
	var a answer
	if err = json.Unmarshal(line, &m); err == nil {
		a.Place, err = m.mount()
	}
	if err != nil {
		a.Error = err.Error()
		if errno := syscall.Errno(0); errors.As(err, &errno) {
			a.Errno = int(errno)
		}
	}
	if json.NewEncoder(os.Stdout).Encode(a) != nil || err != nil {
		return 1
	}
	if _, err := orders.ReadByte(); err != nil {
		return 1
	}
	os.Stdout.Close()
	os.Stdin.Close()
	debug.FreeOSMemory()
	forever, end, err := os.Pipe()
	if err != nil {
		return 1
	}
	io.Copy(io.Discard, forever) // only a signal ends this, as nobody closes the other end
	end.Close()
	return 0
}

// stage is where the new root comes up: a directory that is always there.
const stage = "/proc/fs"

// mount mounts m and makes it all that there is in the mount namespace, so that nothing of the host is kept busy. It gives the place.
func (m Mounting) mount() (place string, err error) {
	top, err := m.open()
	if err != nil {
		return "", err
	}
	defer top.Close()
	// One page, for one directory. Its name is drawn, so that it is not found in the mount namespace of another process of that number.
	root, err := kernel.NewMount("tmpfs", "volume", []string{"mode=0700", "size=4k", "nr_inodes=4"}, kernel.NoSUID|kernel.NoDev|kernel.NoExec)
	if err != nil {
		return "", err
	}
	defer root.Close()
	at, err := kernel.OpenIn(nil, stage, kernel.OPath|kernel.ODirectory, 0, 0)
	if err != nil {
		return "", err
	}
	defer at.Close()
	if err := kernel.AttachMount(root, at); err != nil {
		return "", err
	}
	place = rand.Text()
	if err := kernel.MkdirIn(root, place, 0o700); err != nil {
		return "", err
	}
	target, err := kernel.OpenIn(root, place, kernel.OPath|kernel.ODirectory, 0, 0)
	if err != nil {
		return "", err
	}
	defer target.Close()
	if err := kernel.AttachMount(top, target); err != nil {
		return "", err
	}
	if err := kernel.Pivot(root); err != nil { // an initramfs: what the host has mounted is kept busy then
		return path.Join(stage, place), nil
	}
	return "/" + place, nil
}

// flags are the options that mount(8) makes flags of a mount.
var flags = map[string]struct{ set, clear uint64 }{
	"ro": {set: kernel.ReadOnly}, "rw": {clear: kernel.ReadOnly},
	"nosuid": {set: kernel.NoSUID}, "suid": {clear: kernel.NoSUID},
	"nodev": {set: kernel.NoDev}, "dev": {clear: kernel.NoDev},
	"noexec": {set: kernel.NoExec}, "exec": {clear: kernel.NoExec},
	"nodiratime": {set: kernel.NoDirATime}, "diratime": {clear: kernel.NoDirATime},
	"nosymfollow": {set: kernel.NoSymFollow}, "symfollow": {clear: kernel.NoSymFollow},
	"noatime": {set: kernel.NoATime, clear: kernel.AtimeModes}, "strictatime": {set: kernel.StrictATime, clear: kernel.AtimeModes}, "relatime": {clear: kernel.AtimeModes},
	"atime": {}, "norelatime": {}, "nostrictatime": {}, "defaults": {}, "bind": {}, "rbind": {},
}

// Sorted takes the options apart: what is a flag of the mount, and what the file system gets (mount(8), "filesystem-independent mount options").
// A mount that is read-only is so for its file system too: a medium that can't be written is not even mounted otherwise.
func (m Mounting) Sorted() (attributes uint64, data []string) {
	for _, o := range m.Options {
		f, known := flags[o]
		attributes = attributes&^f.clear | f.set
		if !known && o != "" || o == "ro" {
			data = append(data, o)
		}
	}
	return attributes, data
}

// IsBind tells whether a directory of this host is to be shown, and whether with all that is mounted below.
func (m Mounting) IsBind() (bind, recursive bool) {
	for _, o := range m.Options {
		bind, recursive = bind || o == "bind" || o == "rbind", recursive || o == "rbind"
	}
	return bind, recursive
}

// open makes the mount, not attached to anything.
func (m Mounting) open() (*os.File, error) {
	attributes, data := m.Sorted()
	bind, recursive := m.IsBind()
	if !bind {
		return kernel.NewMount(m.Type, m.Device, m.layered(data), int(attributes))
	}
	dir, err := kernel.OpenIn(nil, path.Clean(m.Device), kernel.OPath|kernel.ODirectory, 0, 0)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	f, err := kernel.CloneMount(dir, "", recursive)
	if err != nil {
		return nil, err
	}
	if attributes != 0 {
		if err := kernel.SetMount(f, false, attributes, 0, 0); err != nil {
			f.Close()
			return nil, err
		}
	}
	return f, nil
}

// ReadOnly tells whether nobody can write.
func (m Mounting) ReadOnly() bool {
	attributes, _ := m.Sorted()
	return attributes&kernel.ReadOnly != 0
}

// layered writes the lower directories of an overlay one by one, as an option of a new mount has at most 255 bytes (fsconfig(2)).
func (m Mounting) layered(data []string) (all []string) {
	for _, o := range data {
		dirs, is := strings.CutPrefix(o, "lowerdir=")
		if m.Type != "overlay" || !is || strings.Contains(dirs, "::") || strings.Contains(dirs, `\`) || !kernel.CanAddLower() {
			all = append(all, o)
			continue
		}
		for _, dir := range strings.Split(dirs, ":") {
			all = append(all, "lowerdir+="+dir)
		}
	}
	return all
}

// Plain tells whether a bind shows the directory as it is, so that nothing needs to be mounted.
func (m Mounting) Plain() bool {
	attributes, data := m.Sorted()
	bind, _ := m.IsBind()
	return bind && attributes == 0 && len(strings.Join(data, "")) == 0
}
