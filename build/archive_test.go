package build

import (
	"archive/tar"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestOpenArchive: an archive is one whatever its first member's headers are, and is read from its beginning.
func TestOpenArchive(t *testing.T) {
	long := strings.Repeat("long/", 60) + "name"
	for what, headers := range map[string][]tar.Header{
		"plain":              {{Name: "f"}},
		"attributes":         {{Name: "f", PAXRecords: map[string]string{"SCHILY.xattr.user.a": strings.Repeat("a", 9000)}}},
		"parts of a second":  {{Name: "f", ModTime: time.Unix(1, 5), Format: tar.FormatPAX}},
		"a long name":        {{Name: long, Format: tar.FormatGNU}},
		"as git begins them": {{Typeflag: tar.TypeXGlobalHeader, Name: "pax_global_header", PAXRecords: map[string]string{"comment": strings.Repeat("c", 40)}}, {Name: "f"}},
		"nothing":            nil,
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			f, err := os.Create(filepath.Join(dir, "a.tar"))
			if err != nil {
				t.Fatal(err)
			}
			w := tar.NewWriter(f)
			for _, h := range headers {
				if h.Typeflag == 0 {
					h.Size = 5
				}
				if err := w.WriteHeader(&h); err != nil {
					t.Fatal(err)
				}
				if _, err := io.WriteString(w, "bytes"[:h.Size]); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			top, err := os.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer top.Close()
			a, is, err := openArchive(top, "a.tar")
			if err != nil || is != (len(headers) > 0) {
				t.Fatalf("it is one: %v, %v", is, err)
			}
			if !is {
				return
			}
			defer a.Close()
			read, err := io.ReadAll(a)
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(f.Name())
			if err != nil {
				t.Fatal(err)
			}
			if string(read) != string(want) {
				t.Errorf("%d bytes of %d are read", len(read), len(want))
			}
		})
	}
}
