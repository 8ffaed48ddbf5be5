package kernel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// NewMount makes a file system instance and a detached mount of it. options
// are "key", "key=value" as in mount(8) without the per-mount flags, which are attrs.
// Closing the file before AttachMount discards the mount. An overlay's layers are given by "lowerdir+=PATH", the topmost first;
// kernels that lack it (before 6.7) get them by mount(2), for which the calling thread needs a mount
// namespace and a working directory of its own (Thread, UnshareFS).
func NewMount(kind, source string, options []string, attrs int) (*os.File, error) {
	switch kind {
	case FuseOverlay:
		return newFuseOverlay(source, options, attrs)
	case Aufs:
		return newAufs(options, attrs)
	}
	m, err := newMount(kind, source, options, attrs)
	if errors.Is(err, unix.EINVAL) && kind == "overlay" && !CanAddLower() {
		return overlayByPath(options, attrs)
	}
	return m, err
}

// CanAddLower tells whether an overlay takes "lowerdir+" (Linux 6.7).
func CanAddLower() bool {
	n, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return false
	}
	defer unix.Close(n)
	// Before 6.5 any option is taken at this point and refused later.
	return unix.FsconfigSetString(n, "lowerdir+", "/") == nil && unix.FsconfigSetFlag(n, "no-such-option") != nil
}

// overlayByPath mounts an overlay by mount(2), whose options have to fit into one page: layers are named relative to
// the directory that they have in common, or by descriptor where that is still too long.
func overlayByPath(options []string, attrs int) (*os.File, error) {
	data, dir := overlayData(options)
	if len(data) >= os.Getpagesize() {
		var layers []*os.File
		var err error
		data, layers, err = overlayDescriptors(options)
		defer func() {
			for _, l := range layers {
				l.Close()
			}
		}()
		if err != nil {
			return nil, err
		}
		dir = "/proc/thread-self/fd"
	}
	if len(data) >= os.Getpagesize() {
		return nil, fmt.Errorf("mount overlay: %d bytes of options are more than this kernel takes: Linux 6.7 lifts that", len(data))
	}
	if dir != "" {
		if err := Chdir(dir); err != nil {
			return nil, err
		}
		defer Chdir("/")
	}
	return mountAside("overlay", []string{data}, attrs)
}

// mountAside mounts by mount(2) at a place of no importance and takes the mount away from there. The first of calls are the
// mount's options, each other one a remount's.
func mountAside(kind string, calls []string, attrs int) (m *os.File, err error) {
	const place = "/proc/fs"
	flags := uintptr(0)
	for _, data := range calls {
		if err = pathError("mount "+kind, data, unix.Mount(kind, place, kind, flags, data)); err != nil {
			break
		}
		flags = unix.MS_REMOUNT
	}
	if flags == 0 {
		return nil, err
	}
	if err == nil {
		m, err = CloneMount(nil, place, false)
	}
	if uerr := pathError("umount", place, unix.Unmount(place, unix.MNT_DETACH)); uerr != nil {
		err = errors.Join(err, uerr)
	}
	if err == nil && attrs != 0 {
		err = SetMount(m, false, uint64(attrs), 0, 0)
	}
	if err != nil && m != nil {
		m.Close()
		m = nil
	}
	return m, err
}

// overlayData joins options for mount(2): the lower layers in one list, relative to dir when they share one.
func overlayData(options []string) (data, dir string) {
	var lowers, rest []string
	for _, o := range options {
		if path, ok := strings.CutPrefix(o, "lowerdir+="); ok {
			lowers = append(lowers, path)
		} else {
			rest = append(rest, o)
		}
	}
	if len(lowers) == 0 {
		return strings.Join(rest, ","), ""
	}
	dir = common(lowers)
	for i, path := range lowers {
		if rel, err := filepath.Rel(dir, path); err == nil && dir != "" {
			path = rel
		}
		lowers[i] = escapeLower.Replace(path)
	}
	return strings.Join(append([]string{"lowerdir=" + strings.Join(lowers, ":")}, rest...), ","), dir
}

// overlayDescriptors opens the lower layers, which the caller closes, and names them as /proc/thread-self/fd does: 500 of them fit.
func overlayDescriptors(options []string) (data string, layers []*os.File, err error) {
	named := make([]string, len(options))
	for i, o := range options {
		path, lower := strings.CutPrefix(o, "lowerdir+=")
		if named[i] = o; !lower {
			continue
		}
		f, err := OpenIn(nil, path, OPath|ODirectory, 0, 0)
		if err != nil {
			return "", layers, err
		}
		layers = append(layers, f)
		named[i] = "lowerdir+=" + strconv.Itoa(int(f.Fd()))
	}
	data, _ = overlayData(named)
	return data, layers, nil
}

// escapeLower protects what separates layers and options (ovl_parse_param, and the comma of mount(2)).
var escapeLower = strings.NewReplacer(`\`, `\\`, ":", `\:`, ",", `\,`)

// common is the deepest directory that holds all absolute paths, "" for other paths.
func common(paths []string) string {
	dir := filepath.Dir(paths[0])
	for _, p := range paths {
		if !filepath.IsAbs(p) {
			return ""
		}
		for dir != "/" && !strings.HasPrefix(p, dir+"/") {
			dir = filepath.Dir(dir)
		}
	}
	return dir
}
