package cgroup

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"berth/fault"
)

// permits is the rule that the kernel applies (v1: devcgroup_legacy_check_permission): a denied group allows what one
// exception allows wholly, an open one refuses what any exception touches.
func (d *devices) permits(kind byte, major, minor int64, want access) bool {
	asked := device{kind, major, minor}
	for e, bits := range d.exceptions {
		if !covers(e, asked) {
			continue
		}
		if d.allow && want&bits != 0 {
			return false
		}
		if !d.allow && want&^bits == 0 {
			return true
		}
	}
	return d.allow
}

func rule(allow bool, kind string, major, minor int64, access string) specs.LinuxDeviceCgroup {
	return specs.LinuxDeviceCgroup{Allow: allow, Type: kind, Major: &major, Minor: &minor, Access: access}
}

// dockers is the shape of the list that containers get: nothing but a few.
func dockers() []specs.LinuxDeviceCgroup {
	return []specs.LinuxDeviceCgroup{
		{Allow: false, Access: "rwm"},
		rule(true, "c", 1, 5, "rwm"), rule(true, "c", 1, 3, "rwm"), rule(true, "c", 1, 9, "rwm"), rule(true, "c", 1, 8, "rwm"),
		rule(true, "c", 5, 0, "rwm"), rule(true, "c", 5, 1, "rwm"), rule(false, "c", 10, 229, "rwm"),
		rule(true, "c", wild, wild, "m"), rule(true, "b", wild, wild, "m"), rule(true, "c", 136, wild, "rwm"), rule(true, "c", 5, 2, "rwm"),
	}
}

func TestDeviceRules(t *testing.T) {
	d, err := newDevices(dockers())
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		kind         byte
		major, minor int64
		want         access
		ok           bool
	}{
		{'c', 1, 3, allAccess, true},
		{'c', 1, 3, reading, true},
		{'b', 1, 3, reading, false},
		{'b', 8, 0, mknod, true},
		{'b', 8, 0, mknod | reading, false},
		{'c', 136, 77, reading | writing, true},
		{'c', 10, 229, reading, false},
		{'c', 10, 229, mknod, true},
	} {
		if got := d.permits(test.kind, test.major, test.minor, test.want); got != test.ok {
			t.Errorf("%c %d:%d %s: %v", test.kind, test.major, test.minor, test.want, got)
		}
	}
}

func TestDeviceRulesInOrder(t *testing.T) {
	for name, test := range map[string]struct {
		rules []specs.LinuxDeviceCgroup
		want  access // of c 1:3
	}{
		"none denied":      {[]specs.LinuxDeviceCgroup{rule(true, "a", wild, wild, "rwm")}, allAccess},
		"one denied":       {[]specs.LinuxDeviceCgroup{rule(false, "c", 1, 3, "w")}, reading | mknod},
		"taken back":       {[]specs.LinuxDeviceCgroup{rule(false, "", wild, wild, ""), rule(true, "c", 1, 3, "rw"), rule(false, "c", 1, 3, "w")}, reading},
		"all taken back":   {[]specs.LinuxDeviceCgroup{rule(false, "", wild, wild, ""), rule(true, "c", 1, 3, "rw"), rule(false, "c", wild, wild, "rwm")}, 0},
		"reset":            {[]specs.LinuxDeviceCgroup{rule(false, "c", 1, 3, "w"), rule(false, "a", wild, wild, "rwm"), rule(true, "u", 1, 3, "r")}, reading},
		"joined":           {[]specs.LinuxDeviceCgroup{rule(false, "a", wild, wild, "rwm"), rule(true, "c", 1, 3, "r"), rule(true, "c", 1, 3, "m")}, reading | mknod},
		"a fifo is free":   {[]specs.LinuxDeviceCgroup{rule(false, "a", wild, wild, "rwm"), rule(true, "p", 1, 3, "r")}, 0},
		"denied once more": {[]specs.LinuxDeviceCgroup{rule(false, "a", wild, wild, "rwm"), rule(false, "c", 1, 3, "r")}, 0},
	} {
		d, err := newDevices(test.rules)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for want := mknod; want <= allAccess; want++ {
			if got := d.permits('c', 1, 3, want); got != (want&^test.want == 0) {
				t.Errorf("%s: %s is %v", name, want, got)
			}
		}
	}
	if d, err := newDevices(nil); d != nil || err != nil {
		t.Errorf("no rules: %v %v", d, err)
	}
	for name, bad := range map[string]specs.LinuxDeviceCgroup{
		"type":                 rule(true, "x", 1, 1, "r"),
		"access":               rule(true, "c", 1, 1, "rx"),
		"number":               rule(true, "c", -2, 1, "r"),
		"all with numbers":     rule(true, "a", 1, wild, "rwm"),
		"all with less access": rule(true, "a", wild, wild, "r"),
		"part of a wider one":  rule(false, "c", 136, 3, "rwm"),
	} {
		if _, err := newDevices(append(dockers(), bad)); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// interpret runs a device program as the kernel would: a reading of RFC 9669 for the opcodes in use.
func interpret(t *testing.T, p []instruction, kind byte, major, minor int64, want access) bool {
	t.Helper()
	k := uint32(2)
	if kind == 'b' {
		k = 1
	}
	context := map[int16]uint64{0: uint64(uint32(want)<<16 | k), 4: uint64(uint32(major)), 8: uint64(uint32(minor))}
	var r [11]uint64
	for pc := 0; pc < len(p); pc++ {
		i := p[pc]
		dst, src := i.regs&15, i.regs>>4
		switch i.op {
		case 0x61: // dst = *(u32 *)(src + off)
			if src != 1 {
				t.Fatalf("instruction %d loads from register %d", pc, src)
			}
			r[dst] = context[i.off]
		case 0xb7:
			r[dst] = uint64(int64(i.imm))
		case 0xbf:
			r[dst] = r[src]
		case 0x54:
			r[dst] = uint64(uint32(r[dst]) & uint32(i.imm))
		case 0x74:
			r[dst] = uint64(uint32(r[dst]) >> uint32(i.imm))
		case 0x55, 0x56, 0x15:
			equal := r[dst] == uint64(int64(i.imm))
			if i.op == 0x56 {
				equal = uint32(r[dst]) == uint32(i.imm)
			}
			if equal == (i.op == 0x15) {
				pc += int(i.off)
			}
		case 0x95:
			return r[0] != 0
		default:
			t.Fatalf("instruction %d has opcode %#x", pc, i.op)
		}
	}
	t.Fatal("the program runs over its end")
	return false
}

func TestDeviceProgramAgreesWithTheRules(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	lists := [][]specs.LinuxDeviceCgroup{dockers(), {rule(false, "c", 1, 3, "w")}, {rule(true, "a", wild, wild, "rwm")}, {rule(false, "a", wild, wild, "rwm")}}
	for range 200 {
		list := []specs.LinuxDeviceCgroup{rule(random.IntN(2) == 0, "a", wild, wild, "rwm")}
		for range random.IntN(12) {
			list = append(list, rule(random.IntN(4) > 0, []string{"b", "c"}[random.IntN(2)], random.Int64N(4)-1, random.Int64N(4)-1, access(random.IntN(7)+1).String()))
		}
		lists = append(lists, list)
	}
	tried := 0
	for _, list := range lists {
		d, err := newDevices(list)
		if errors.Is(err, fault.Invalid) {
			continue // takes a part out of a wider rule
		}
		if err != nil {
			t.Fatal(err)
		}
		p := d.program()
		for _, kind := range []byte{'b', 'c'} {
			for _, major := range []int64{0, 1, 2, 136, 1 << 30} {
				for _, minor := range []int64{0, 1, 2, 3, 5, 1 << 20} {
					for want := mknod; want <= allAccess; want++ {
						tried++
						if got := interpret(t, p, kind, major, minor, want); got != d.permits(kind, major, minor, want) {
							t.Fatalf("%c %d:%d %s under %v: %v", kind, major, minor, want, list, got)
						}
					}
				}
			}
		}
	}
	if tried < 20_000 {
		t.Errorf("only %d combinations tried", tried)
	}
}

func TestEncoding(t *testing.T) {
	got := encode([]instruction{{0x61, regKind | regContext<<4, 4, -2}})
	want := []byte{0x61, 0x12, 4, 0, 0xfe, 0xff, 0xff, 0xff}
	if hostIsLittle := encode([]instruction{{0, 0, 1, 0}})[2] == 1; hostIsLittle && string(got) != string(want) {
		t.Errorf("%x, want %x", got, want)
	}
}
