package crash

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/test/testengine"
)

// TestKillDuringVolumeChanges kills the daemon while volumes are made, filled, mounted, renamed, copied, brought back and removed. What is listed afterwards is
// whole, no container lost its volume, and nothing is mounted for nobody.
func TestKillDuringVolumeChanges(t *testing.T) {
	rounds := 4
	if os.Getenv("BERTH_SOAK") != "" {
		rounds = 200
	}
	e := testengine.Start(t)
	e.Busybox(t)
	e.Run(t, "run", "--name", "keeper", "-v", "v0:/v", "busybox", "sh", "-c", "echo whole >/v/f; mkdir /v/d; echo whole >/v/d/g")
	e.Run(t, "volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "scratch")
	files := strings.TrimSpace(e.Run(t, "run", "--rm", "busybox", "sh", "-c", "ls /etc | wc -l"))
	for round := range rounds {
		stop := make(chan struct{})
		var workers sync.WaitGroup
		for _, work := range []func(int){
			func(int) {
				e.Try("volume", "rename", "v0", "v1")
				e.Try("volume", "rename", "v1", "v0")
			},
			func(k int) {
				for _, v := range []string{"v0", "v1"} {
					e.Try("volume", "snapshot", v, "s"+strconv.Itoa(k))
					e.Try("volume", "rollback", v)
					e.Try("volume", "snapshot", "--rm", v, "s"+strconv.Itoa(k))
				}
			},
			func(k int) {
				e.Try("run", "--rm", "-v", "scratch:/s", "-v", fmt.Sprintf("filled%d-%d:/etc", round, k), "busybox", "true")
				e.Try("volume", "clone", fmt.Sprintf("filled%d-%d", round, k), fmt.Sprintf("clone%d-%d", round, k))
				e.Try("volume", "rm", fmt.Sprintf("filled%d-%d", round, k-1))
			},
		} {
			workers.Go(func() {
				for k := 1; ; k++ {
					select {
					case <-stop:
						return
					default:
						work(k)
					}
				}
			})
		}
		<-time.After(time.Duration(100+round*137%400) * time.Millisecond)
		e.Kill()
		close(stop)
		workers.Wait()
		e.Up(t)
		volumesHold(t, e, files)
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
}

func volumesHold(t *testing.T, e *testengine.Engine, files string) {
	t.Helper()
	var kept, copies []string
	for _, name := range strings.Fields(e.Run(t, "volume", "ls", "-q")) {
		switch {
		case strings.HasPrefix(name, "v"):
			kept = append(kept, name)
		case name != "scratch":
			copies = append(copies, name)
		}
	}
	if len(kept) != 1 {
		t.Errorf("the volume is called %v", kept)
		return
	}
	if its := strings.TrimSpace(e.Run(t, "inspect", "-f", "{{range .Mounts}}{{.Name}}{{end}} {{index .HostConfig.Binds 0}}", "keeper")); its != kept[0]+" "+kept[0]+":/v" {
		t.Errorf("the volume is called %s, and the container has %s", kept[0], its)
	}
	if got := e.Run(t, "run", "--rm", "-v", kept[0]+":/v", "busybox", "sh", "-c", "cat /v/f /v/d/g; ls /v | wc -l"); got != "whole\nwhole\n2\n" {
		t.Errorf("its content is %q", got)
	}
	for _, name := range copies {
		got := strings.TrimSpace(e.Run(t, "run", "--rm", "-v", name+":/c:nocopy", "busybox", "sh", "-c", "ls /c | wc -l"))
		if got != files && !(got == "0" && strings.HasPrefix(name, "filled")) {
			t.Errorf("%s has %s files of %s", name, got, files)
		}
	}
	e.Run(t, append([]string{"volume", "rm", "-f", "nosuch"}, copies...)...)
	if out, err := e.Try("system", "fsck"); err != nil {
		t.Errorf("fsck: %v\n%s", err, out)
	}
	testengine.Eventually(t, 60*time.Second, func() error { // a mount ends a moment after its last container
		if left := processes("berth-oci\x00hold\x00"); len(left) > 0 {
			return fmt.Errorf("holders of mounts that nobody has: %v", left)
		}
		return nil
	})
}
