package thin

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

	"berth/fault"
	"berth/kernel"
)

const victimVar = "BERTH_THIN_VICTIM" // the pool's directory, in the process that is to be killed

// TestVictim is that process: it makes, copies, fills, freezes and removes trees until it is killed.
func TestVictim(t *testing.T) {
	dir := os.Getenv(victimVar)
	if dir == "" {
		t.Skip("TestKilled runs this in a process of its own")
	}
	trees, err := Open(dir, small)
	must(t, err)
	run := os.Getpid()
	step := func(err error) {
		must(t, err)
		fmt.Println("step")
	}
	for i := 0; ; i++ {
		layer, root, second := fmt.Sprintf("layer-%d-%d", run, i), fmt.Sprintf("root-%d-%d", run, i), fmt.Sprintf("second-%d-%d", run, i)
		step(trees.Make(layer, ""))
		in(t, trees, layer, func(dir string) { write(t, dir+"/file", bytes.Repeat([]byte("l"), 300<<10)) })
		step(nil)
		step(trees.Freeze(layer))
		step(trees.Make(root, layer))
		m, err := trees.Mount(root)
		step(err)
		must(t, within(m, func(dir *os.File) error {
			write(t, kernel.ProcFD(dir)+"/own", bytes.Repeat([]byte("r"), 200<<10))
			step(trees.Make(second, root)) // which holds root back for a moment
			return nil
		}))
		step(trees.Unmounted(root))
		step(trees.Limit(second, 300<<20))
		_, err = trees.Usage(second)
		step(err)
		step(trees.Remove(second))
		if i%2 == 0 {
			step(trees.Remove(root))
			step(trees.Remove(layer))
		}
	}
}

// TestKilled kills a process that works on a pool at points drawn at random. What a record names can be used or removed, and nothing else is in the pool.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	trees := openTest(t, dir, small...)
	s, err := trees.state(true)
	must(t, err)
	clean := s.data.used
	must(t, trees.Close())
	for round := range 30 {
		kill(t, dir, rand.IntN(30))
		trees, err = Open(dir, small)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		list, err := trees.List()
		must(t, err)
		for _, name := range list {
			if _, err := trees.Mount(name); err != nil && !errors.Is(err, fault.NotFound) { // half-made at most
				t.Errorf("round %d: %v", round, err)
			}
		}
		if volumes := volumesOf(t, trees); volumes > len(list)+1 {
			t.Errorf("round %d: the pool has %d volumes, records name %d and the base", round, volumes, len(list))
		}
		if round%3 == 0 { // others build up
			for _, name := range list {
				removeEventually(t, trees, name)
			}
			s, err := trees.state(true)
			must(t, err)
			if s.data.used != clean || volumesOf(t, trees) != 1 {
				t.Errorf("round %d: %d blocks and %d volumes where %d blocks and 1 are expected", round, s.data.used, volumesOf(t, trees), clean)
			}
		}
		must(t, trees.Close())
	}
	trees = openTest(t, dir, small...)
	closeTest(t, trees)
}

// kill runs TestVictim and kills it after that many steps.
func kill(t *testing.T, dir string, steps int) {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self, "-test.run=^TestVictim$", "-test.v")
	cmd.Env = append(os.Environ(), victimVar+"="+dir)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	lines := bufio.NewScanner(out)
	var said []string
	for seen := 0; seen <= steps && lines.Scan(); {
		if lines.Text() == "step" {
			seen++
		} else {
			said = append(said, lines.Text())
		}
	}
	// A little further, into the middle of a step.
	for range rand.IntN(20_000_000) {
		_ = spin()
	}
	must(t, cmd.Process.Kill())
	err = cmd.Wait()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.Exited() {
		t.Fatalf("the victim ended by itself: %v\n%s\n%s", err, said, complaint.String())
	}
}

//go:noinline
func spin() int { return 1 }

// removeEventually waits for the end of a killed process's mounts.
func removeEventually(t *testing.T, trees *Trees, name string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		err := trees.Remove(name)
		if err == nil {
			return
		}
		if !errors.Is(err, fault.Conflict) || time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// volumesOf counts the volumes that the pool's metadata have.
func volumesOf(t *testing.T, trees *Trees) int {
	t.Helper()
	_, err := trees.dm.Message(trees.pool.name, "reserve_metadata_snap")
	must(t, err)
	defer func() { must(t, trees.release()) }()
	s, err := trees.state(false)
	must(t, err)
	disk, err := trees.openMetadata()
	must(t, err)
	defer disk.Close()
	m := metadata{disk, 10000}
	super, err := m.read(s.held)
	must(t, err)
	n := 0
	must(t, m.walk(binary.LittleEndian.Uint64(super[detailsAt:]), detailSize, func(uint64, []byte) { n++ }))
	return n
}
