package oci

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/fault"
	"berth/kernel"
	"berth/kernel/namespace"
)

// defaultDevices are those that every container has (runtime-spec, "Default Devices").
var defaultDevices = []specs.LinuxDevice{
	{Path: "/dev/null", Type: "c", Major: 1, Minor: 3},
	{Path: "/dev/zero", Type: "c", Major: 1, Minor: 5},
	{Path: "/dev/full", Type: "c", Major: 1, Minor: 7},
	{Path: "/dev/random", Type: "c", Major: 1, Minor: 8},
	{Path: "/dev/urandom", Type: "c", Major: 1, Minor: 9},
	{Path: "/dev/tty", Type: "c", Major: 5, Minor: 0},
}

var deviceLinks = []struct{ name, target string }{
	{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"},
}

// devices fills /dev, unless the caller bound one of its own.
func (t *tree) devices() error {
	for _, m := range t.spec.Mounts {
		if path.Clean(m.Destination) == "/dev" && (m.Type == "bind" || parseOptions(m.Options).bind) {
			return nil
		}
	}
	dev, err := t.target("/dev", true)
	if err != nil {
		return err
	}
	defer dev.Close()
	nodes, err := t.takeNodes()
	if err != nil {
		return err
	}
	for i, d := range allDevices(t.spec) {
		if nodes != nil {
			err = t.bindNode(nodes, i, d)
		} else {
			err = t.device(d)
		}
		if err != nil {
			return err
		}
	}
	for _, l := range deviceLinks {
		if err := kernel.SymlinkIn(l.target, dev, l.name); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	if _, err := kernel.StatIn(t.proc, "kcore"); err == nil {
		if err := kernel.SymlinkIn("/proc/kcore", dev, "core"); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return replaceLink("pts/ptmx", dev, "ptmx")
}

// allDevices lists those that the container gets, the caller's last.
func allDevices(s *specs.Spec) []specs.LinuxDevice {
	asked := map[string]bool{}
	for _, d := range s.Linux.Devices {
		asked[path.Clean(d.Path)] = true
	}
	all := slices.DeleteFunc(slices.Clone(defaultDevices), func(d specs.LinuxDevice) bool { return asked[d.Path] })
	return append(all, s.Linux.Devices...)
}

// replaceLink makes a symbolic link in place of whatever the image has under that name.
func replaceLink(target string, dir *os.File, name string) error {
	err := kernel.SymlinkIn(target, dir, name)
	if errors.Is(err, os.ErrExist) {
		if err = kernel.UnlinkIn(dir, name); err == nil {
			err = kernel.SymlinkIn(target, dir, name)
		}
	}
	return err
}

// device makes one node. Where that is not allowed (a user namespace), the host's is bound.
func (t *tree) device(d specs.LinuxDevice) error {
	kind, mode, err := nodeMode(d)
	if err != nil {
		return err
	}
	block := kind == kernel.TypeBlock
	clean := path.Clean("/" + d.Path)
	if clean == "/" {
		return fault.New(fault.Invalid, "device path %q", d.Path)
	}
	dir, err := t.target(path.Dir(clean), true)
	if err != nil {
		return err
	}
	defer dir.Close()
	name := path.Base(clean)
	if t.ns.has(namespace.User) {
		return t.bindDevice(d, dir, name, block)
	}
	number := kernel.Dev(uint32(d.Major), uint32(d.Minor))
	err = kernel.MknodIn(dir, name, kind|mode, number)
	if errors.Is(err, os.ErrExist) { // the image's own, whatever that is
		if err = kernel.UnlinkIn(dir, name); err == nil {
			err = kernel.MknodIn(dir, name, kind|mode, number)
		}
		if kernel.IsBusy(err) { // a mount that the caller asked for
			return nil
		}
	}
	if errors.Is(err, os.ErrPermission) {
		return t.bindDevice(d, dir, name, block)
	}
	if err != nil {
		return fmt.Errorf("make device %s: %w", d.Path, err)
	}
	if d.UID != nil || d.GID != nil {
		return kernel.ChownIn(dir, name, value(d.UID), value(d.GID))
	}
	return nil
}

// nodeMode gives the type bits and the permissions of a device's node.
func nodeMode(d specs.LinuxDevice) (kind, mode uint32, err error) {
	kind, mode = kernel.TypeChar, 0o666
	switch d.Type {
	case "c", "u", "":
	case "b":
		kind = kernel.TypeBlock
	case "p":
		kind = kernel.TypeFifo
	default:
		return 0, 0, fault.New(fault.Invalid, "device %s: type %q is none of c, b, u, p", d.Path, d.Type)
	}
	if d.FileMode != nil {
		mode = uint32(*d.FileMode) & 0o7777
	}
	return kind, mode, nil
}

func value(n *uint32) uint32 {
	if n == nil {
		return 0
	}
	return *n
}

// bindDevice binds the host's node, after a look at what it really is.
func (t *tree) bindDevice(d specs.LinuxDevice, dir *os.File, name string, block bool) error {
	host, err := kernel.OpenIn(nil, d.Path, kernel.OPath, 0, 0)
	if err != nil {
		return fmt.Errorf("device %s: %w", d.Path, err)
	}
	defer host.Close()
	if d.Type != "p" {
		if err := kernel.IsDevice(host, block, uint32(d.Major), uint32(d.Minor)); err != nil {
			return err
		}
	}
	return bindFile(host, dir, name)
}

// bindFile puts the object f stands for on name in dir, which is made an empty file when it is missing.
func bindFile(f, dir *os.File, name string) error {
	err := kernel.MknodIn(dir, name, kernel.TypeRegular|0o644, 0)
	if err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	target, err := kernel.OpenIn(dir, name, kernel.OPath|kernel.ONoFollow, 0, kernel.Beneath|kernel.NoSymlinks)
	if err != nil {
		return err
	}
	defer target.Close()
	m, err := kernel.CloneMount(f, "", false)
	if err != nil {
		return err
	}
	defer m.Close()
	return kernel.AttachMount(m, target)
}

// makeConsole opens a terminal in the container's own devpts and binds its other side to /dev/console.
func (t *tree) makeConsole() error {
	if !t.console {
		return nil
	}
	if err := t.openTerminal(); err != nil {
		return err
	}
	dev, err := t.target("/dev", true)
	if err != nil {
		return err
	}
	defer dev.Close()
	if err := replaceByFile(dev, "console"); err != nil {
		return err
	}
	return bindFile(t.terminal, dev, "console")
}

// openTerminal makes a terminal in the container's devpts. CVE-2025-52565: each object is verified
// by its descriptor before it is used, none is reached through an image's path twice.
func (t *tree) openTerminal() error {
	pts, err := kernel.OpenIn(t.root, "/dev/pts", kernel.OPath|kernel.ODirectory, 0, kernel.InRoot|kernel.NoSymlinks)
	if err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	defer pts.Close()
	if kind, err := kernel.FSType(pts); err != nil || kind != kernel.DevptsMagic {
		return errors.Join(fault.New(fault.Invalid, "terminal: /dev/pts in the container is not a devpts"), err)
	}
	ptmx, err := kernel.OpenIn(pts, "ptmx", kernel.OPath, 0, kernel.Beneath|kernel.NoSymlinks)
	if err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	defer ptmx.Close()
	if err := kernel.IsDevice(ptmx, false, 5, 2); err != nil {
		return err
	}
	master, err := kernel.OpenIn(pts, "ptmx", os.O_RDWR|kernel.ONoCTTY|kernel.ONonblock, 0, kernel.Beneath|kernel.NoSymlinks)
	if err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	t.master = master
	if err := errors.Join(kernel.IsDevice(master, false, 5, 2), kernel.UnlockTerminal(master)); err != nil {
		return err
	}
	peer, err := kernel.TerminalPeer(master)
	if err != nil {
		return err
	}
	defer peer.Close()
	slave, err := kernel.HighDup(peer)
	if err != nil {
		return err
	}
	t.terminal = t.own(slave)
	if size := t.spec.Process.ConsoleSize; size != nil {
		return kernel.SetSize(master, uint16(size.Height), uint16(size.Width))
	}
	return nil
}

// replaceByFile makes name an empty regular file, whatever the image put there.
func replaceByFile(dir *os.File, name string) error {
	err := kernel.MknodIn(dir, name, kernel.TypeRegular|0o600, 0)
	if errors.Is(err, os.ErrExist) {
		if err = kernel.UnlinkIn(dir, name); err == nil {
			err = kernel.MknodIn(dir, name, kernel.TypeRegular|0o600, 0)
		}
	}
	return err
}

// below gives the part of name under dir, and whether it is there.
func below(dir, name string) (string, bool) {
	rest, ok := strings.CutPrefix(path.Clean(name), dir+"/")
	return rest, ok
}
