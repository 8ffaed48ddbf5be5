package archive

import (
	"testing"

	"berth/fault"
)

func TestIDMap(t *testing.T) {
	m := IDMap{
		UIDs: []IDRange{{Container: 0, Host: 100000, Size: 1000}, {Container: 1000, Host: 1000, Size: 1}, {Container: 1001, Host: 101001, Size: 64535}},
		GIDs: []IDRange{{Container: 0, Host: 200000, Size: 65536}},
	}
	for _, c := range []struct{ uid, gid, hostUID, hostGID uint32 }{
		{0, 0, 100000, 200000}, {999, 5, 100999, 200005}, {1000, 65535, 1000, 265535}, {1001, 1, 101001, 200001}, {65535, 0, 165535, 200000},
	} {
		u, g, err := m.ToHost(c.uid, c.gid)
		if err != nil || u != c.hostUID || g != c.hostGID {
			t.Errorf("ToHost(%d, %d) = %d, %d, %v", c.uid, c.gid, u, g, err)
		}
		if u, g := m.ToContainer(c.hostUID, c.hostGID); u != c.uid || g != c.gid {
			t.Errorf("ToContainer(%d, %d) = %d, %d", c.hostUID, c.hostGID, u, g)
		}
	}
	for _, c := range [][2]uint32{{65536, 0}, {0, 65536}, {1 << 31, 1<<32 - 1}} {
		if _, _, err := m.ToHost(c[0], c[1]); fault.Of(err) != fault.Invalid {
			t.Errorf("ToHost(%d, %d): %v", c[0], c[1], err)
		}
	}
	if u, g := m.ToContainer(0, 200001); u != Overflow || g != 1 {
		t.Errorf("the host's root is %d:%d inside", u, g)
	}
	var none IDMap
	if u, g, err := none.ToHost(7, 1<<32-1); !none.Empty() || u != 7 || g != 1<<32-1 || err != nil {
		t.Errorf("the zero map: %d, %d, %v", u, g, err)
	}
	if m.Empty() {
		t.Error("a map with ranges is not the identity")
	}
}
