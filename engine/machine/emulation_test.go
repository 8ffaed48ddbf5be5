package machine

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

func TestEmulated(t *testing.T) {
	const arm64 = "enabled\ninterpreter /usr/bin/emulator\nflags: OCF\noffset 0\nmagic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n"
	const s390x = "enabled\ninterpreter /usr/bin/emulator\nflags: F\noffset 0\nmagic 7f454c4602020100000000000000000000020016\nmask ffffffffffffff00fffffffffffffffffffeffff\n"
	for name, c := range map[string]struct {
		files        map[string]string
		architecture string
		want         bool
	}{
		"none":         {nil, "arm64", false},
		"registered":   {map[string]string{"status": "enabled\n", "a": s390x, "b": arm64}, "arm64", true},
		"big endian":   {map[string]string{"a": s390x}, "s390x", true},
		"another":      {map[string]string{"a": s390x}, "arm64", false},
		"all off":      {map[string]string{"status": "disabled\n", "b": arm64}, "arm64", false},
		"this one off": {map[string]string{"b": "disabled" + arm64[len("enabled"):]}, "arm64", false},
		"not in roots": {map[string]string{"b": "enabled\ninterpreter /usr/bin/emulator\nflags: OC\noffset 0\nmagic 7f454c460201010000000000000000000200b700\n"}, "arm64", false},
		"extension":    {map[string]string{"b": "enabled\ninterpreter /usr/bin/x\nflags: F\nextension .x\n"}, "arm64", false},
		"unknown":      {map[string]string{"b": arm64}, "z80", false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for n, text := range c.files {
				if err := os.WriteFile(filepath.Join(dir, n), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got := emulated(dir, c.architecture); got != c.want {
				t.Errorf("emulated: %v, want %v", got, c.want)
			}
		})
	}
	if !Runs(runtime.GOARCH) {
		t.Error("this very program does not run")
	}
}
