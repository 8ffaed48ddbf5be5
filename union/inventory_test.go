package union_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"berth/archive"
	"berth/union"
)

func placesOf(t *testing.T, d union.Driver) map[union.PlaceKind][]union.Place {
	t.Helper()
	list, err := union.InventoryOf(d).Places()
	if err != nil {
		t.Fatal(err)
	}
	all := map[union.PlaceKind][]union.Place{}
	for _, p := range list {
		all[p.Kind] = append(all[p.Kind], p)
	}
	return all
}

func TestPlacesTellStraysFromWhatIsInUse(t *testing.T) {
	dir := t.TempDir()
	d := open(t, "overlay2", dir)
	chain := addLayer(t, d, "", "f=1")
	if _, err := d.Create("root", chain, func(*os.File) error { return nil }); err != nil {
		t.Fatal(err)
	}
	for _, p := range placesOf(t, d) {
		for _, one := range p {
			if one.Stray && one.Kind != union.TrashPlace {
				t.Errorf("%s %s is a stray", one.Kind, one.Name)
			}
		}
	}
	if roots := placesOf(t, d)[union.RootPlace]; len(roots) != 1 || roots[0].Below() != chain {
		t.Errorf("roots: %+v", roots)
	}
	strange := []string{"layers/" + strings.Repeat("a", 64), "layers/odd", "inits/" + strings.Repeat("b", 64), "merged/x", "roots/foreign", "spare/foreign", "stage/foreign"}
	for _, name := range strange {
		if err := os.MkdirAll(filepath.Join(dir, name, "diff"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	inv, found := union.InventoryOf(d), 0
	for _, list := range placesOf(t, d) {
		for _, p := range list {
			if !p.Stray {
				if err := inv.Drop(p); err == nil {
					t.Errorf("%s was dropped, and is in use", p.Path)
				}
				continue
			}
			found++
			if err := inv.Drop(p); err != nil {
				t.Error(err)
			}
		}
	}
	if err := inv.Settle(t.Context()); err != nil {
		t.Error(err)
	}
	if found != len(strange) {
		t.Errorf("%d strays of %d were found", found, len(strange))
	}
	if left := placesOf(t, d)[union.TrashPlace]; len(left) != 0 {
		t.Errorf("in the trash: %v", left)
	}
}

// restage makes a stage with one layer's files.
func restage(t *testing.T, d union.Driver, entries ...string) (*union.Stage, archive.Unpacked) {
	t.Helper()
	s, err := d.Stage()
	if err != nil {
		t.Fatal(err)
	}
	u, err := archive.Unpack(t.Context(), bytes.NewReader(layerTar(t, entries...)), s.Root(), archive.UnpackOptions{Whiteouts: true})
	if err != nil {
		t.Fatal(err)
	}
	return s, u
}

func TestRenewFindsAndMendsDamage(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(diff string) error
		says   string
	}{
		"nothing": {func(string) error { return nil }, ""},
		"content": {func(diff string) error { return overwrite(filepath.Join(diff, "dir/f"), "bad") }, `"/dir/f" has other content`},
		"size":    {func(diff string) error { return os.Truncate(filepath.Join(diff, "dir/f"), 1) }, `"/dir/f" has 1 bytes instead of 3`},
		"removed": {func(diff string) error { return os.Remove(filepath.Join(diff, "dir/f")) }, `"/dir/f" is missing`},
		"added":   {func(diff string) error { return os.WriteFile(filepath.Join(diff, "more"), nil, 0o600) }, `"/more" is too much`},
		"mode":    {func(diff string) error { return os.Chmod(filepath.Join(diff, "dir/f"), 0o4755) }, `"/dir/f" has mode`},
		"owner":   {func(diff string) error { return os.Chown(filepath.Join(diff, "dir"), 9, 8) }, `"/dir" belongs to 9:8`},
		"link": {func(diff string) error {
			return errors.Join(os.Remove(filepath.Join(diff, "l")), os.Symlink("x", filepath.Join(diff, "l")))
		}, `"/l" leads to "x" instead of "dir/f"`},
		"gone":     {os.RemoveAll, "its directory is gone"},
		"all gone": {func(diff string) error { return os.RemoveAll(filepath.Dir(diff)) }, "its directory is gone"},
		"record": {func(diff string) error {
			return os.WriteFile(filepath.Join(filepath.Dir(diff), "layer.json"), nil, 0o600)
		}, "its record is damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			d := open(t, "overlay2", dir)
			files := []string{"dir/ 755", "dir/f=abc", "l->dir/f"}
			chain := addLayer(t, d, "", files...)
			child := addLayer(t, d, chain, "dir/g=2")
			inv := union.InventoryOf(d)
			if err := c.damage(filepath.Join(inv.Dir(chain), "diff")); err != nil {
				t.Fatal(err)
			}
			for _, replace := range []bool{false, true} {
				s, u := restage(t, d, files...)
				got, err := inv.Renew(chain, s, u, replace)
				if err != nil || (got == "") != (c.says == "") || !strings.HasPrefix(got, c.says) {
					t.Fatalf("found %q, %v; want %q", got, err, c.says)
				}
			}
			s, u := restage(t, d, files...)
			if got, err := inv.Renew(chain, s, u, false); err != nil || got != "" {
				t.Errorf("afterwards: %q, %v", got, err)
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			d = open(t, "overlay2", dir)
			if !d.Has(chain) || !d.Has(child) {
				t.Error("a layer was lost")
			}
			if stages := placesOf(t, d)[union.StagePlace]; len(stages) != 0 {
				t.Errorf("left: %v", stages)
			}
		})
	}
}

// overwrite changes a file's content and keeps its size and time.
func overwrite(path, content string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(content), 0); err != nil {
		return err
	}
	return os.Chtimes(path, info.ModTime(), info.ModTime())
}

func TestMeasureIsDu(t *testing.T) {
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(dir, "a/b/c"), 0o755))
	must(os.WriteFile(filepath.Join(dir, "a/f"), make([]byte, 100_000), 0o600))
	must(os.Link(filepath.Join(dir, "a/f"), filepath.Join(dir, "a/b/g")))
	must(os.Symlink(strings.Repeat("x", 200), filepath.Join(dir, "a/l")))
	must(os.Truncate(filepath.Join(dir, "a/f"), 10<<20)) // a hole
	sum := func(args ...string) int64 {
		out, err := exec.Command("du", append([]string{"-s", "--block-size=1"}, args...)...).Output()
		must(err)
		n, err := strconv.ParseInt(strings.Fields(string(out))[0], 10, 64)
		must(err)
		return n
	}
	s, err := union.Measure(dir, nil)
	must(err)
	if want := sum(dir); s.Disk != want || s.Files != 5 || s.Shown != 10<<20 {
		t.Errorf("%+v; du says %d", s, want)
	}
	s, err = union.Measure(dir, func(path string) bool { return path == filepath.Join(dir, "a/b") })
	must(err)
	if want := sum("--exclude=b", dir); s.Disk != want {
		t.Errorf("without a/b: %d, du says %d", s.Disk, want)
	}
	if _, err := union.Measure(filepath.Join(dir, "none"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of nothing: %v", err)
	}
}
