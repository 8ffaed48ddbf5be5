package union_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"berth/archive"
	"berth/kernel"
	"berth/union"
)

const victimVar = "BERTH_UNION_VICTIM" // driver and directory, in the process that is to be killed

// TestVictim is that process: it makes layers and roots, commits and removes them until it is killed. A line "step" comes after each.
func TestVictim(t *testing.T) {
	driver, dir, ok := strings.Cut(os.Getenv(victimVar), " ")
	if !ok {
		t.Skip("TestKilled runs this in a process of its own")
	}
	d := open(t, driver, dir)
	step := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("step")
	}
	for i := 0; ; i++ {
		name := fmt.Sprintf("%d-%d", os.Getpid(), i)
		below := addLayer(t, d, "", bulk("below-"+name)...)
		step(nil)
		above := addLayer(t, d, below, append(bulk("above-"+name), "below-"+name+"/.wh.f3")...)
		step(nil)
		if i%3 == 0 {
			step(d.Sync())
		}
		r, err := d.Create("r-"+name, above, func(root *os.File) error { return write(root, "init", "i") })
		step(err)
		step(union.View(r, func(root *os.File) error { return write(root, "own", name) }))
		layerOf(t, d, r, above, "committed-"+name)
		step(nil)
		_, err = d.Create("second-"+name, digest.FromString("committed-"+name), nil)
		step(err)
		step(d.Delete("r-" + name))
		if i%2 == 0 {
			step(d.Delete("second-" + name))
			step(d.Remove(digest.FromString("committed-" + name)))
			step(d.Remove(above))
			step(d.Remove(below))
		}
	}
}

// bulk is a layer of several files in a directory of its own, each of which says whose it is.
func bulk(dir string) []string {
	list := []string{dir + "/ 755"}
	for i := range 8 {
		list = append(list, fmt.Sprintf("%s/f%d=%s", dir, i, strings.Repeat(dir+"\n", 50*i+1)))
	}
	return list
}

// TestKilled kills a process that works with a driver at points drawn at random. What is listed afterwards is whole, and nothing else is there.
func TestKilled(t *testing.T) {
	rounds := 5
	if os.Getenv("BERTH_SOAK") != "" {
		rounds = 200
	}
	overAll(t, func(t *testing.T, g *ground) {
		dir := g.dir(t)
		for round := range rounds {
			kill(t, g.driver, dir, rand.IntN(24))
			wait(t, "the killed process's lock is free", func() bool { return free(t, dir) })
			d := open(t, g.driver, dir)
			whole(t, d, fmt.Sprintf("round %d", round))
			if round%4 == 3 { // others build up
				removeAll(t, d)
			}
			idleAll(d)
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// free tells whether nobody holds a driver's lock: a program that the killed one was just starting has it until it is executed.
func free(t *testing.T, dir string) bool {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return true
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	is, err := kernel.TryLock(f)
	if err != nil {
		t.Fatal(err)
	}
	return is
}

func idleAll(d union.Driver) {
	roots, _ := d.Roots()
	for _, id := range roots {
		union.Idle(d, id)
	}
}

// kill runs TestVictim and kills it some time after that many steps.
func kill(t *testing.T, driver, dir string, steps int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestVictim$", "-test.v")
	cmd.Env = append(os.Environ(), victimVar+"="+driver+" "+dir)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	var said []string
	for seen := 0; seen <= steps && lines.Scan(); {
		if lines.Text() == "step" {
			seen++
		} else {
			said = append(said, lines.Text())
		}
	}
	for range rand.IntN(20_000_000) { // a little further, into the middle of a step
		_ = spin()
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.Exited() {
		t.Fatalf("the victim ended by itself: %v\n%s\n%s", err, strings.Join(said, "\n"), complaint.String())
	}
}

//go:noinline
func spin() int { return 1 }

// whole looks at all that a driver lists, and for what it doesn't.
func whole(t *testing.T, d union.Driver, when string) {
	t.Helper()
	layers, err := d.Layers()
	if err != nil {
		t.Fatal(err)
	}
	parent := map[digest.Digest]digest.Digest{}
	for _, l := range layers {
		parent[l.Chain] = l.Parent
		err := union.Look(d, l.Chain, func(dir *os.File) error { return bulks(dir, depth(parent, l.Chain)) })
		if err != nil {
			t.Errorf("%s: layer %s: %v", when, l.Chain, err)
		}
		if s, err := union.InventoryOf(d).Measure(l.Chain); err != nil || s.Shown != l.Size {
			t.Errorf("%s: layer %s shows %d bytes instead of %d (%v)", when, l.Chain, s.Shown, l.Size, err)
		}
	}
	roots, err := d.Roots()
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range roots {
		r, err := d.Open(id)
		if err == nil {
			err = union.View(r, func(dir *os.File) error { return bulks(dir, 2) })
		}
		if err == nil {
			_, err = union.Changes(t.Context(), r)
		}
		if err != nil {
			t.Errorf("%s: root %s: %v", when, id, err)
		}
	}
	inv := union.InventoryOf(d)
	if err := inv.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	places, err := inv.Places()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range places {
		if p.Stray {
			t.Errorf("%s: the %s %s is nobody's", when, p.Kind, p.Name)
		}
	}
}

func depth(parent map[digest.Digest]digest.Digest, chain digest.Digest) (n int) {
	for ; chain != ""; chain = parent[chain] {
		n++
	}
	return min(n, 2) // what was committed brings no such directory
}

// bulks checks that a tree has that many of the layers that bulk makes, and each whole.
func bulks(top *os.File, want int) error {
	names, err := top.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	found := 0
	for _, n := range names {
		above := strings.HasPrefix(n, "above-")
		if !above && !strings.HasPrefix(n, "below-") {
			continue
		}
		found++
		for i := range 8 {
			text, err := archive.ReadFile(top, fmt.Sprintf("/%s/f%d", n, i), 1<<20)
			switch {
			case errors.Is(err, os.ErrNotExist) && i == 3 && !above && want > 1: // taken away by the layer above
			case err != nil:
				return err
			case i == 3 && !above && want > 1:
				return fmt.Errorf("%s/f3 came back", n)
			case string(text) != strings.Repeat(n+"\n", 50*i+1):
				return fmt.Errorf("%s/f%d has %d bytes", n, i, len(text))
			}
		}
	}
	if found != want {
		return fmt.Errorf("it shows %d layers instead of %d: %q", found, want, names)
	}
	return nil
}

// removeAll removes every root and layer.
func removeAll(t *testing.T, d union.Driver) {
	t.Helper()
	roots, err := d.Roots()
	for _, id := range roots {
		err = errors.Join(err, d.Delete(id))
	}
	layers, lerr := d.Layers()
	slices.Reverse(layers)
	for _, l := range layers {
		err = errors.Join(err, d.Remove(l.Chain))
	}
	if err = errors.Join(err, lerr, union.InventoryOf(d).Settle(t.Context())); err != nil {
		t.Fatal(err)
	}
}
