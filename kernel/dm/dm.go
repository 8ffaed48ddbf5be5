// Package dm speaks to the kernel's device mapper through its control device (linux/dm-ioctl.h).
//
// It knows devices, tables, states and messages, nothing about what a target does with them, and it keeps no list of its own.
// Invariant: nothing waits for udev. Device nodes that nobody made are made where the caller says, and
// udev is told to leave what we make alone but for its name below /dev/mapper.
package dm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"berth/fault"
	"berth/kernel"
)

// Sector is the unit of all sizes in tables, in bytes.
const Sector = 512

// Control is the open device mapper. It may be used by several goroutines at once; the caller closes it.
type Control struct {
	f     *os.File
	nodes string
}

// Target is one row of a device's table. Of a status, Params is what the target says about itself.
type Target struct {
	Start, Length uint64 // sectors
	Type          string
	Params        string
}

// Info is what a device is doing.
type Info struct {
	Dev       uint64 // as in stat(2)'s st_rdev
	Open      int    // how often it is held: by mounts, by programs, by tables above it
	Suspended bool
	ReadOnly  bool
	Live      bool // has a table that takes requests
	Deferred  bool // is removed as soon as nobody holds it
}

// Numbers names the device in the tables of others, as MAJOR:MINOR.
func (i Info) Numbers() string {
	return fmt.Sprintf("%d:%d", unix.Major(i.Dev), unix.Minor(i.Dev))
}

// Open opens the device mapper. Device nodes that /dev lacks are made in the directory nodes, which exists.
// fault.Unsupported: this kernel has none.
func Open(nodes string) (*Control, error) {
	path, err := controlNode(nodes)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
		return nil, fault.New(fault.Unsupported, "open device mapper: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("open device mapper: %w", err)
	}
	c := &Control{f, nodes}
	if _, err := c.call(unix.DM_VERSION, "", request{}); err != nil {
		f.Close()
		return nil, fault.New(fault.Unsupported, "open device mapper: %w", err)
	}
	return c, nil
}

// controlNode is /dev/mapper/control, or a node of our own by the number in /proc/misc when /dev has none.
func controlNode(nodes string) (string, error) {
	const path = "/dev/" + unix.DM_DIR + "/" + unix.DM_CONTROL_NODE
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	const misc = 10 // the major number of /proc/misc's devices
	list, _ := os.ReadFile("/proc/misc")
	for line := range strings.Lines(string(list)) {
		number, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseUint(number, 10, 20); err == nil && name == "device-mapper" {
			own := filepath.Join(nodes, "control")
			return own, node(own, unix.S_IFCHR, unix.Mkdev(misc, uint32(n)))
		}
	}
	return path, nil
}

// node makes path a device node with that number.
func node(path string, kind uint32, dev uint64) error {
	if is(path, kind, dev) {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err := unix.Mknod(path, kind|0o600, int(dev))
	if err == unix.EEXIST && is(path, kind, dev) { // somebody made it meanwhile
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "mknod", Path: path, Err: err}
	}
	return nil
}

func is(path string, kind uint32, dev uint64) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == kind && st.Rdev == dev
}

// Close closes the control device; devices stay as they are.
func (c *Control) Close() error { return c.f.Close() }

// Node is the path of a device's node.
func (c *Control) Node(i Info) (string, error) {
	name := fmt.Sprintf("dm-%d", unix.Minor(i.Dev))
	if path := "/dev/" + name; is(path, unix.S_IFBLK, i.Dev) {
		return path, nil
	}
	own := filepath.Join(c.nodes, name)
	return own, node(own, unix.S_IFBLK, i.Dev)
}

// DropNode removes the node of a removed device that Node made.
func (c *Control) DropNode(i Info) error {
	err := os.Remove(filepath.Join(c.nodes, fmt.Sprintf("dm-%d", unix.Minor(i.Dev))))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Version is that of the kernel's interface, such as "4.47.0".
func (c *Control) Version() (string, error) {
	r, err := c.call(unix.DM_VERSION, "", request{})
	if err != nil {
		return "", err
	}
	v := r.header.Version
	return fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2]), nil
}

// Target gives the version of a kind of target, such as "1.22.0" of "thin-pool", whose module the kernel loads if it can.
// fault.Unsupported: it has none.
func (c *Control) Target(kind string) (string, error) {
	r, err := c.call(unix.DM_GET_TARGET_VERSION, kind, request{})
	if errors.Is(err, unix.EINVAL) {
		return "", fault.New(fault.Unsupported, "device mapper: the kernel has no target %s: %w", kind, err)
	}
	if err != nil {
		return "", err
	}
	return parseVersions(r.data)[kind], nil
}

// Devices lists all device names, of others too.
func (c *Control) Devices() ([]string, error) {
	r, err := c.call(unix.DM_LIST_DEVICES, "", request{})
	if err != nil {
		return nil, err
	}
	return parseNames(r.data), nil
}

// Create makes a device without a table; fault.Exists when the name is taken. It takes no requests until Resume.
func (c *Control) Create(name string) (Info, error) {
	r, err := c.call(unix.DM_DEV_CREATE, name, request{})
	if errors.Is(err, unix.EBUSY) {
		return Info{}, fault.Wrap(fault.Exists, err)
	}
	return r.info(), err
}

// Load puts a table in the slot that the next Resume makes live.
func (c *Control) Load(name string, readOnly bool, table ...Target) error {
	q := request{targets: uint32(len(table)), data: encodeTable(table)}
	if readOnly {
		q.flags = unix.DM_READONLY_FLAG
	}
	_, err := c.call(unix.DM_TABLE_LOAD, name, q)
	return err
}

// leaveAlone tells udev's rules that a device is not for it to probe: no subsystem, disk or other rules
// (DM_UDEV_DISABLE_*_FLAG of libdevmapper.h, in the upper half of the cookie).
const leaveAlone = (2 | 4 | 8) << 16

// Resume makes a loaded table live and lets requests through.
func (c *Control) Resume(name string) (Info, error) {
	r, err := c.call(unix.DM_DEV_SUSPEND, name, request{event: leaveAlone})
	return r.info(), err
}

// Suspend holds requests back; a file system on the device is frozen first, so that what is on it is whole.
func (c *Control) Suspend(name string) error {
	_, err := c.call(unix.DM_DEV_SUSPEND, name, request{flags: unix.DM_SUSPEND_FLAG, event: leaveAlone})
	return err
}

// Remove removes a device: fault.NotFound when absent, fault.Conflict while it is held, unless it is to be
// deferred: then it goes when nobody holds it any more.
func (c *Control) Remove(name string, deferred bool) error {
	q := request{event: leaveAlone}
	if deferred {
		q.flags = unix.DM_DEFERRED_REMOVE
	}
	_, err := c.call(unix.DM_DEV_REMOVE, name, q)
	return err
}

// Keep takes a deferred Remove back: fault.NotFound when it has happened, fault.Conflict while it is happening.
func (c *Control) Keep(name string) error {
	_, err := c.Message(name, "@cancel_deferred_remove")
	return err
}

// Info tells what a device is doing; fault.NotFound when absent.
func (c *Control) Info(name string) (Info, error) {
	r, err := c.call(unix.DM_DEV_STATUS, name, request{})
	return r.info(), err
}

// Status returns the live table with what each target says. With flush a target that keeps books brings them to the disk first.
func (c *Control) Status(name string, flush bool) ([]Target, error) {
	if flush {
		return c.table(name, 0)
	}
	return c.table(name, unix.DM_NOFLUSH_FLAG)
}

// Table returns the live table.
func (c *Control) Table(name string) ([]Target, error) {
	return c.table(name, unix.DM_STATUS_TABLE_FLAG)
}

func (c *Control) table(name string, flags uint32) ([]Target, error) {
	r, err := c.call(unix.DM_TABLE_STATUS, name, request{flags: flags})
	if err != nil {
		return nil, err
	}
	return parseTable(r.data, r.header.Target_count), nil
}

// Message sends text to the target at the start of a device and returns its answer.
func (c *Control) Message(name, text string) (string, error) {
	r, err := c.call(unix.DM_TARGET_MSG, name, request{data: append(make([]byte, 8), text+"\x00"...), about: text})
	if err != nil {
		return "", err
	}
	if r.header.Flags&unix.DM_DATA_OUT_FLAG == 0 {
		return "", nil
	}
	return cString(r.data), nil
}

// request is what goes in beside the name.
type request struct {
	flags, event, targets uint32
	data                  []byte
	about                 string // for the error
}

// reply is what came back; data begins after the header.
type reply struct {
	header unix.DmIoctl
	data   []byte
}

func (r reply) info() Info {
	f := r.header.Flags
	return Info{
		Dev: r.header.Dev, Open: int(r.header.Open_count),
		Suspended: f&unix.DM_SUSPEND_FLAG != 0, ReadOnly: f&unix.DM_READONLY_FLAG != 0,
		Live: f&unix.DM_ACTIVE_PRESENT_FLAG != 0, Deferred: f&unix.DM_DEFERRED_REMOVE != 0,
	}
}

// call makes one ioctl, again with more room when the answer did not fit.
func (c *Control) call(number uint, name string, q request) (reply, error) {
	if len(name) >= unix.DM_NAME_LEN {
		return reply{}, fault.New(fault.Invalid, "device mapper: the name %s is longer than %d bytes", name, unix.DM_NAME_LEN-1)
	}
	for room := 16 << 10; ; room *= 2 {
		buf := make([]uint64, (unix.SizeofDmIoctl+max(len(q.data), room)+7)/8) // the kernel wants it aligned
		bytes := unsafe.Slice((*byte)(unsafe.Pointer(&buf[0])), len(buf)*8)
		h := (*unix.DmIoctl)(unsafe.Pointer(&buf[0]))
		h.Version = [3]uint32{unix.DM_VERSION_MAJOR}
		h.Data_size = uint32(len(bytes))
		h.Data_start = unix.SizeofDmIoctl
		h.Flags, h.Event_nr, h.Target_count = q.flags, q.event, q.targets
		copy(h.Name[:], name)
		copy(bytes[unix.SizeofDmIoctl:], q.data)
		var errno unix.Errno
		for {
			_, _, errno = unix.Syscall(unix.SYS_IOCTL, uintptr(kernel.FD(c.f)), uintptr(number), uintptr(unsafe.Pointer(&buf[0])))
			if errno != unix.EINTR {
				break
			}
		}
		runtime.KeepAlive(buf)
		runtime.KeepAlive(c.f)
		if errno != 0 {
			return reply{}, callError(number, name, q.about, errno)
		}
		if h.Flags&unix.DM_BUFFER_FULL_FLAG == 0 || room > 64<<20 {
			end := min(int(h.Data_size), len(bytes)) // before the data's start when there are none
			return reply{*h, bytes[min(int(h.Data_start), end):end]}, nil
		}
	}
}

var verbs = map[uint]string{
	unix.DM_VERSION: "ask version", unix.DM_GET_TARGET_VERSION: "ask version of target", unix.DM_LIST_DEVICES: "list devices",
	unix.DM_DEV_CREATE: "create", unix.DM_DEV_REMOVE: "remove", unix.DM_DEV_SUSPEND: "suspend or resume",
	unix.DM_DEV_STATUS: "look at", unix.DM_TABLE_LOAD: "load table of", unix.DM_TABLE_STATUS: "read table of", unix.DM_TARGET_MSG: "send message to",
}

func callError(number uint, name, about string, errno unix.Errno) error {
	if about != "" {
		name += " (" + about + ")"
	}
	err := fmt.Errorf("device mapper: %s %s: %w", verbs[number], name, errno)
	switch errno {
	case unix.ENXIO, unix.ENODATA: // no such device; a thin pool's word for no such volume
		return fault.Wrap(fault.NotFound, err)
	case unix.EBUSY:
		return fault.Wrap(fault.Conflict, err)
	case unix.EEXIST:
		return fault.Wrap(fault.Exists, err)
	}
	return err
}
