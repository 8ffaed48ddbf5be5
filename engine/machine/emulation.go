package machine

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// Runs tells whether programs for an architecture, as Go calls it, run here: on the processor itself, or by an emulator that is registered with
// binfmt_misc (the kernel's admin-guide/binfmt-misc) so that it is there in every container, with the flag F.
func Runs(architecture string) bool {
	if architecture == runtime.GOARCH || architecture == "386" && runtime.GOARCH == "amd64" {
		return true
	}
	return emulated("/proc/sys/fs/binfmt_misc", architecture)
}

// emulated looks for an emulator among those registered in dir.
func emulated(dir, architecture string) bool {
	head := elfHead(architecture)
	names, err := os.ReadDir(dir)
	if err != nil || head == nil || FirstLine(filepath.Join(dir, "status")) == "disabled" {
		return false
	}
	for _, n := range names {
		text, err := os.ReadFile(filepath.Join(dir, n.Name()))
		if err == nil && fits(string(text), head) {
			return true
		}
	}
	return false
}

// fits tells whether a registration, as the kernel shows it, is for files that begin with head.
func fits(registration string, head []byte) bool {
	on, rest, _ := strings.Cut(registration, "\n")
	if on != "enabled" {
		return false
	}
	field := map[string]string{}
	for line := range strings.Lines(rest) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		field[name] = value
	}
	magic, err := hex.DecodeString(field["magic"])
	mask, maskErr := hex.DecodeString(field["mask"])
	offset, offsetErr := strconv.Atoi(field["offset"])
	if err != nil || maskErr != nil || offsetErr != nil || len(magic) == 0 || offset < 0 || offset+len(magic) > len(head) || !strings.Contains(field["flags:"], "F") {
		return false
	}
	for k, want := range magic {
		have := head[offset+k]
		if k < len(mask) {
			have, want = have&mask[k], want&mask[k]
		}
		if have != want {
			return false
		}
	}
	return true
}

// elfMachines has the number of an architecture in ELF (its e_machine), the size of its words, and whether their first byte is the highest.
var elfMachines = map[string]struct {
	number byte
	bits   int
	big    bool
}{
	"386": {3, 32, false}, "mips": {8, 32, true}, "mipsle": {8, 32, false}, "mips64": {8, 64, true}, "mips64le": {8, 64, false}, "ppc64": {21, 64, true}, "ppc64le": {21, 64, false},
	"s390x": {22, 64, true}, "arm": {40, 32, false}, "amd64": {62, 64, false}, "arm64": {183, 64, false}, "riscv64": {243, 64, false},
}

// elfHead is how a program for an architecture begins; nil for one that is not known.
func elfHead(architecture string) []byte {
	m, ok := elfMachines[architecture]
	if !ok {
		return nil
	}
	head := make([]byte, 20)
	copy(head, "\x7fELF")
	head[4], head[5], head[6] = byte(m.bits/32), 1, 1
	head[16], head[18] = 2, m.number // an executable
	if m.big {
		head[5] = 2
		head[16], head[17], head[18], head[19] = 0, 2, 0, m.number
	}
	return head
}
