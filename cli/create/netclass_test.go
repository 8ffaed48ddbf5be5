package create

import "testing"

func TestNetClass(t *testing.T) {
	for v, want := range map[string]uint32{"10:1": 0x100001, "0x100001": 0x100001, "1048577": 0x100001, "ffff:ffff": 0xffffffff, "1:": 0, ":1": 0, "0": 0, "0:0": 0, "10000:1": 0, "-1": 0, "x": 0, "": 0, "1:2:3": 0, "4294967296": 0} {
		got, err := parseNetClass(v)
		if got != want || (err == nil) != (want != 0) {
			t.Errorf("%q: %#x, %v", v, got, err)
		}
	}
}
