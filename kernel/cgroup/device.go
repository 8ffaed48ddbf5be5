package cgroup

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/fault"
)

// access is a set of what one may do with a device.
type access uint8

// The bits as BPF's device program sees them (linux/bpf.h: BPF_DEVCG_ACC_*).
const (
	mknod access = 1 << iota
	reading
	writing
	allAccess = mknod | reading | writing
)

// wild stands for every major or minor number.
const wild = -1

// device names devices of one kind: 'b' or 'c', numbers or wild.
type device struct {
	kind         byte
	major, minor int64
}

// devices is what a list of rules comes to: everything is allowed or nothing, but for the exceptions.
type devices struct {
	allow      bool
	exceptions map[device]access
}

// newDevices reads rules in order, each changing what those before say (cgroup-v1/devices.rst). It begins with
// everything allowed, as a new v1 group below an open one does. No rules give nil: nothing is to be set.
func newDevices(rules []specs.LinuxDeviceCgroup) (*devices, error) {
	if len(rules) == 0 {
		return nil, nil
	}
	d := &devices{allow: true, exceptions: map[device]access{}}
	for _, r := range rules {
		if err := d.add(r); err != nil {
			return nil, err
		}
	}
	return d, nil
}

func (d *devices) add(r specs.LinuxDeviceCgroup) error {
	bits, err := parseAccess(r.Access)
	if err != nil {
		return err
	}
	key := device{major: number(r.Major), minor: number(r.Minor)}
	switch r.Type {
	case "", "a":
		if bits != allAccess || key.major != wild || key.minor != wild {
			return fault.New(fault.Invalid, "device rule %s: a rule for all devices takes no numbers and all of rwm", ruleText(r))
		}
		d.allow = r.Allow
		clear(d.exceptions)
		return nil
	case "b", "c", "u", "p":
		if r.Type == "p" { // a FIFO: the kernel never asks
			return nil
		}
		key.kind = r.Type[0]
		if key.kind == 'u' {
			key.kind = 'c'
		}
	default:
		return fault.New(fault.Invalid, "device rule %s: the type must be a, b, c, u or p", ruleText(r))
	}
	if key.major < wild || key.minor < wild || key.major > 1<<31 || key.minor > 1<<31 {
		return fault.New(fault.Invalid, "device rule %s: numbers must be positive, or -1 for all", ruleText(r))
	}
	if r.Allow != d.allow {
		d.exceptions[key] |= bits
		return nil
	}
	return d.takeBack(key, bits, ruleText(r))
}

// takeBack removes what an earlier rule excepted. A part of a wider exception can't be taken out of it: the kernel
// ignores that wish in silence, which would leave open what was to be shut.
func (d *devices) takeBack(key device, bits access, rule string) error {
	for e, have := range d.exceptions {
		if e == key || e.kind != key.kind || have&bits == 0 {
			continue
		}
		if covers(e, key) && !covers(key, e) {
			return fault.New(fault.Invalid, "device rule %s: it takes a part out of the wider rule %s; leave that one out or narrow it", rule, e)
		}
		if covers(key, e) {
			d.remove(e, bits)
		}
	}
	d.remove(key, bits)
	return nil
}

func (d *devices) remove(key device, bits access) {
	if d.exceptions[key] &^= bits; d.exceptions[key] == 0 {
		delete(d.exceptions, key)
	}
}

// covers tells whether a names all that b names.
func covers(a, b device) bool {
	return a.kind == b.kind && (a.major == wild || a.major == b.major) && (a.minor == wild || a.minor == b.minor)
}

// sorted gives the exceptions in a fixed order.
func (d *devices) sorted() []device {
	return slices.SortedFunc(maps.Keys(d.exceptions), func(a, b device) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.major, b.major), cmp.Compare(a.minor, b.minor))
	})
}

func parseAccess(s string) (access, error) {
	if s == "" {
		return allAccess, nil
	}
	var bits access
	for _, c := range s {
		switch c {
		case 'r':
			bits |= reading
		case 'w':
			bits |= writing
		case 'm':
			bits |= mknod
		default:
			return 0, fault.New(fault.Invalid, "device access %q: must be made of r, w and m", s)
		}
	}
	return bits, nil
}

func (a access) String() string {
	s := ""
	for _, c := range []struct {
		bit  access
		name string
	}{{reading, "r"}, {writing, "w"}, {mknod, "m"}} {
		if a&c.bit != 0 {
			s += c.name
		}
	}
	return s
}

func number(n *int64) int64 {
	if n == nil {
		return wild
	}
	return *n
}

// String prints a device as v1's files do: "c 1:3", "b *:*".
func (d device) String() string {
	star := func(n int64) string {
		if n == wild {
			return "*"
		}
		return itoa(n)
	}
	return fmt.Sprintf("%c %s:%s", d.kind, star(d.major), star(d.minor))
}

func ruleText(r specs.LinuxDeviceCgroup) string {
	verb := "deny"
	if r.Allow {
		verb = "allow"
	}
	kind := r.Type
	if kind == "" {
		kind = "a"
	}
	return fmt.Sprintf("%q", fmt.Sprintf("%s %s %s:%s %s", verb, kind, fmt.Sprint(number(r.Major)), fmt.Sprint(number(r.Minor)), r.Access))
}

// setDevices puts d in force.
func (g *Group) setDevices(d *devices, fresh bool) (warnings []string, err error) {
	if dir := g.in("devices", 1); dir != "" {
		if fresh {
			return nil, d.writeV1(dir)
		}
		return nil, d.changeV1(dir)
	}
	if dir := g.v2(); dir != "" {
		err := d.attach(dir)
		if errors.Is(err, unix.EPERM) && inUserNamespace() {
			// The kernel lets no one there make device nodes anyway.
			return []string{"device rules discarded: a user namespace may not load BPF programs; only devices that are bound in can be opened"}, nil
		}
		return nil, kind(err)
	}
	if d.allow && len(d.exceptions) == 0 {
		return nil, nil
	}
	return []string{"device rules discarded: neither the v1 devices controller nor a v2 hierarchy is mounted"}, nil
}

// writeV1 fills a new group's lists, holding each file open.
func (d *devices) writeV1(dir string) error {
	first, then := "devices.deny", "devices.allow"
	if d.allow {
		first, then = then, first
	}
	if err := write(dir, first, "a"); err != nil {
		return kind(err)
	}
	if len(d.exceptions) == 0 {
		return nil
	}
	name := dir + "/" + then
	fd, err := open(name, unix.O_WRONLY)
	if err != nil {
		return kind(&os.PathError{Op: "open", Path: name, Err: err})
	}
	defer unix.Close(fd)
	for e, bits := range d.exceptions {
		if err := writeFD(fd, name, e.String()+" "+bits.String()); err != nil {
			return kind(err)
		}
	}
	return nil
}

// changeV1 takes a group in use from its present list to d. Between two lists of what is allowed there is no moment in
// which something is refused that both allow.
func (d *devices) changeV1(dir string) error {
	now, err := readDevices(dir)
	if err != nil {
		return err
	}
	if now.allow || d.allow {
		return d.writeV1(dir) // an open group does not show what it excepts
	}
	for _, e := range d.sorted() {
		if add := d.exceptions[e] &^ now.exceptions[e]; add != 0 {
			if err := write(dir, "devices.allow", e.String()+" "+add.String()); err != nil {
				return kind(err)
			}
		}
	}
	for _, e := range now.sorted() {
		if drop := now.exceptions[e] &^ d.exceptions[e]; drop != 0 {
			if err := write(dir, "devices.deny", e.String()+" "+drop.String()); err != nil {
				return kind(err)
			}
		}
	}
	return nil
}

// readDevices reads devices.list: "a *:* rwm" for an open group (its exceptions don't show), else what is allowed.
func readDevices(dir string) (*devices, error) {
	s, err := read(dir, "devices.list")
	if err != nil {
		return nil, kind(err)
	}
	d := &devices{exceptions: map[device]access{}}
	for line := range strings.Lines(s) {
		var k byte
		var major, minor, bits string
		line = strings.ReplaceAll(strings.TrimSpace(line), ":", " ")
		if _, err := fmt.Sscanf(line, "%c %s %s %s", &k, &major, &minor, &bits); err != nil {
			return nil, fault.New(fault.Corrupt, "%s/devices.list: unknown line %q", dir, line)
		}
		if k == 'a' {
			return &devices{allow: true, exceptions: map[device]access{}}, nil
		}
		a, err := parseAccess(bits)
		if err != nil {
			return nil, err
		}
		d.exceptions[device{k, parseNumber(major), parseNumber(minor)}] |= a
	}
	return d, nil
}

func parseNumber(s string) int64 {
	n := int64(wild)
	fmt.Sscan(s, &n)
	return n
}

// inUserNamespace tells whether uid 0 here is not the machine's (user_namespaces(7): the initial map is "0 0 4294967295").
func inUserNamespace() bool {
	m, err := read("/proc/self", "uid_map")
	return err == nil && strings.Join(strings.Fields(m), " ") != "0 0 4294967295"
}
