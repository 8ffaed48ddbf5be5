package disk

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestKillsWhileMending kills the daemon at random moments of prunes and repairs: no image that is listed lacks anything, and what was damaged can
// still be mended.
func TestKillsWhileMending(t *testing.T) {
	rounds := 6
	if os.Getenv("BERTH_SOAK") != "" {
		rounds = 60
	}
	w := newWorld(t)
	base := w.busybox()
	kept, _ := w.pull("kept", base, w.layer(1, map[string]int{"a": 1 << 20, "b": 5000}))
	w.e.Run(t, "create", "--name", "holder", kept)
	for round := range rounds {
		other, _ := w.pull(fmt.Sprintf("other%d", round), base, w.layer(uint64(round+2), map[string]int{"own": 2 << 20}))
		command := []string{"system", "prune", "-a", "-f"}
		if round%2 == 0 {
			w.must(flip(filepath.Join(w.diff(base.diff), "etc/passwd")))
			w.must(os.Remove(filepath.Join(w.diff(base.diff), "etc/group")))
			command = []string{"system", "fsck", "--repair", "--deep"}
		} else {
			w.e.Run(t, "create", other)
		}
		cmd := w.e.Command("berth", command...)
		w.must(cmd.Start())
		after := time.Duration(rand.IntN(120)) * time.Millisecond
		kill := time.NewTimer(after)
		<-kill.C
		w.e.Kill()
		_ = cmd.Wait()
		w.e.Up(t)
		if round%2 == 0 {
			if all, sum := w.check("deep", "repair"); !sum.Clean {
				t.Errorf("repair killed after %v: %+v %+v", after, all, sum)
			}
		}
		if all, sum := w.check("deep"); !sum.Clean {
			t.Errorf("%v killed after %v: %+v %+v", command, after, all, sum)
		}
		if out := w.e.Run(t, "run", "--rm", kept, "cat", "/etc/group"); len(out) == 0 {
			t.Errorf("%v killed after %v: the image is damaged", command, after)
		}
		if round%2 == 1 {
			w.e.Run(t, "rm", "-f", "holder")
			w.e.Run(t, "pull", "-q", kept)
			w.e.Run(t, "create", "--name", "holder", kept)
		}
	}
}
