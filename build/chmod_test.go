package build

import "testing"

func TestChange(t *testing.T) {
	for _, c := range []struct {
		mode string
		old  int64
		dir  bool
		want int64
	}{
		{"755", 0o640, false, 0o755},
		{"4755", 0o640, false, 0o4755},
		{"u+x", 0o640, false, 0o740},
		{"go-rw,u=rwx", 0o666, false, 0o700},
		{"a+X", 0o644, false, 0o644},
		{"a+X", 0o644, true, 0o755},
		{"+X", 0o744, false, 0o755},
		{"g=u", 0o640, false, 0o660},
		{"u+s,o+t", 0o755, true, 0o5755},
		{"o=", 0o777, false, 0o770},
		{"u=r+w", 0o100, false, 0o600},
	} {
		if got, err := change(c.mode)(c.old, c.dir); err != nil || got != c.want {
			t.Errorf("%s of %o: %o, %v, wanted %o", c.mode, c.old, got, err, c.want)
		}
	}
	for _, bad := range []string{"u", "z+x", "u+q", "9"} {
		if got, err := change(bad)(0o644, false); err == nil {
			t.Errorf("%s: %o", bad, got)
		}
	}
}
