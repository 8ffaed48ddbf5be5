package contexts

import (
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"

	"berth/build/transfer"
	"berth/kernel"
)

// FuzzIndex reads indexes that are damaged in a way that their checksum does not show.
func FuzzIndex(f *testing.F) {
	x := index{from: "x", all: []kept{{Entry: transfer.Entry{Path: "d", Mode: kernel.TypeDir}}, {Entry: transfer.Entry{Path: "d/a", Mode: kernel.TypeRegular, Size: 5}, state: unsure, link: "z"}}}
	path := filepath.Join(f.TempDir(), "index")
	if err := x.write(path); err != nil {
		f.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data[:len(data)-4])
	f.Fuzz(func(t *testing.T, data []byte) {
		data = binary.BigEndian.AppendUint32(data[:len(data):len(data)], crc32.Checksum(data, table))
		x, err := parse(data)
		if err != nil {
			return
		}
		for k := range x.all {
			x.span(x.all[k].Path)
			x.find(x.all[k].Path)
		}
	})
}

// FuzzNeeded asks for patterns of any kind: it ends, and what is needed has its directory.
func FuzzNeeded(f *testing.F) {
	for _, p := range []string{"/", "a/*", "l/../b", "**/x", "[a", "l/l/l", `\*`, "loop/x"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, pattern string) {
		all := []transfer.Entry{
			{Path: "a", Mode: kernel.TypeDir}, {Path: "a/b", Mode: kernel.TypeRegular}, {Path: "a/c", Mode: kernel.TypeRegular, Same: 2},
			{Path: "l", Mode: kernel.TypeSymlink, Target: "/a"}, {Path: "loop", Mode: kernel.TypeSymlink, Target: "loop/../loop"}, {Path: "up", Mode: kernel.TypeSymlink, Target: "../../a/c"},
		}
		marks := needed(all, []string{pattern})
		if (marks[1] || marks[2]) && !marks[0] || marks[2] && !marks[1] {
			t.Fatalf("%q: %v", pattern, marks)
		}
	})
}
