package archive_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"berth/archive"
	"berth/fault"
	"berth/internal/kerneltest"
)

// TestBudget: what an archive takes on disk is bounded, and no more than the bound is made.
func TestBudget(t *testing.T) {
	kerneltest.Root(t)
	many := []member{}
	for i := range 50 {
		many = append(many, file(strings.Repeat("d/", i)+"f", ""))
	}
	xattrs := file("x", "")
	xattrs.PAXRecords = map[string]string{"SCHILY.xattr.user.a": strings.Repeat("x", 30_000)}
	for name, c := range map[string]struct {
		bytes, files int64
		data         []byte
		words        string
	}{
		"fits":                     {5 * 4096, 4, tarOf(t, dir("d"), file("d/f", "x"), file("g", strings.Repeat("x", 4097)), symlink("l", "x")), ""},
		"a byte takes a block":     {4095, 0, tarOf(t, file("f", "x")), "more than the 4095 bytes"},
		"a directory takes one":    {4095, 0, tarOf(t, dir("d")), "more than the 4095 bytes"},
		"three blocks":             {8191, 0, tarOf(t, file("f", strings.Repeat("x", 4097))), "more than the 8191 bytes"},
		"holes are free":           {64 << 10, 0, sparse(t, 1<<30), ""},
		"what a hole has not":      {4095, 0, sparse(t, 1<<30), "more than the 4095 bytes"},
		"members count":            {0, 3, tarOf(t, dir("d"), file("d/f", ""), file("g", ""), symlink("l", "x")), "more than the 3 files"},
		"implied directories, too": {0, 90, tarOf(t, many...), "more than the 90 files"},
		"and only once":            {0, 99, tarOf(t, many...), ""},
		"the same name again":      {3 * 4096, 0, tarOf(t, file("f", "x"), file("f", "y"), file("f", "z"), file("f", "a")), "more than the 12288 bytes"},
		"attributes":               {20_000, 0, tarOf(t, xattrs), "more than the 20000 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := unpack(t, t.TempDir(), c.data, archive.UnpackOptions{Budget: archive.NewBudget(c.bytes, c.files)})
			switch {
			case c.words == "" && err != nil:
				t.Error(err)
			case c.words != "" && (!errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.words)):
				t.Errorf("got %v, want %q", err, c.words)
			}
		})
	}
}

// TestBudgetIsShared: several archives draw on one.
func TestBudgetIsShared(t *testing.T) {
	kerneltest.Root(t)
	b := archive.NewBudget(0, 10)
	data := tarOf(t, file("a", ""), file("b", ""), file("c", ""), file("d", ""))
	errs := make([]error, 4)
	var wg sync.WaitGroup
	for i := range errs {
		root := t.TempDir()
		wg.Go(func() { _, errs[i] = unpack(t, root, data, archive.UnpackOptions{Budget: b}) })
	}
	wg.Wait()
	refused := 0
	for _, err := range errs {
		if errors.Is(err, fault.Invalid) {
			refused++
		} else if err != nil {
			t.Error(err)
		}
	}
	if refused < 1 || refused > 3 {
		t.Errorf("of 4 × 4 files with room for 10, %d archives were refused", refused)
	}
	if err := b.Take(0, 1<<62); err == nil {
		t.Error("no bound on files")
	}
	if err := archive.NewBudget(0, 0).Take(1<<62, 1<<62); err != nil {
		t.Errorf("no bound refuses: %v", err)
	}
}
