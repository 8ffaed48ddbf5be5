package hostile

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/test/testengine"
)

// TestManyClientsAtOnce: sixteen clients pull, load, tag, remove, prune, save and run the same and different images. Nobody gets content that
// is not his, and in the end nothing is left.
func TestManyClientsAtOnce(t *testing.T) {
	e := testengine.Start(t)
	e.Busybox(t)
	all := subjects(t)
	s, address, stop := serve(t)
	const clients = 16
	for n, one := range all {
		one.put(s, fmt.Sprint("shared", n), "1")
		for c := range clients {
			one.put(s, fmt.Sprintf("own%d-%d", c, n), "1")
		}
	}
	work := func(c, steps int) {
		random := rand.New(rand.NewPCG(uint64(c), 3))
		says := func(name string, n int) {
			if out, err := e.Try("run", "--rm", name, "sh", "-c", tell); out != all[n].words {
				t.Errorf("client %d: a container of %s says %q, want %q; %v", c, name, out, all[n].words, err)
			}
		}
		for step := range steps {
			n := random.IntN(len(all))
			own, shared := fmt.Sprintf("%s/own%d-%d:1", address, c, n), fmt.Sprintf("%s/shared%d:1", address, n)
			must := func(args ...string) {
				if _, err := e.Try(args...); err != nil {
					t.Errorf("client %d: berth %s: %v", c, strings.Join(args, " "), err)
				}
			}
			// The image of a name is everybody's: another client's container may be on it when this was its last name.
			rmi := func(ref string) {
				testengine.Eventually(t, 20*time.Second, func() error {
					out, err := e.Try("rmi", ref)
					if err != nil && !strings.Contains(err.Error()+out, "is using its referenced image") {
						t.Errorf("client %d: berth rmi %s: %v", c, ref, err)
						return nil
					}
					return err
				})
			}
			switch random.IntN(7) {
			case 0, 1: // nobody else touches the own name
				must("pull", "-q", own)
				says(own, n)
				rmi(own)
			case 2: // others may remove it at any moment
				e.Try("pull", "-q", shared)
				if out, err := e.Try("run", "--rm", "--pull", "never", shared, "sh", "-c", tell); err == nil && out != all[n].words {
					t.Errorf("client %d: a container of %s says %q", c, shared, out)
				}
			case 3:
				e.Try("rmi", shared)
			case 4:
				must("pull", "-q", own)
				to := fmt.Sprintf("tag%d:%d", c, step)
				must("tag", own, to)
				rmi(own)
				says(to, n)
				rmi(to)
			case 5:
				must("load", "-q", "-i", all[n].archive)
				e.Try("rmi", "unused:1")
			case 6:
				must("pull", "-q", own)
				if status, data := callAll(t, e, "GET", "/images/"+own+"/get"); status != 200 || len(data) < 1<<20 {
					t.Errorf("client %d: save: %d, %d bytes", c, status, len(data))
				}
				e.Try("image", "prune", "-f")
				says(own, n)
				rmi(own)
			}
		}
	}
	storm := func(steps int) {
		var wg sync.WaitGroup
		for c := range clients {
			wg.Go(func() { work(c, steps) })
		}
		wg.Wait()
		// What nobody owned.
		for n := range all {
			e.Try("rmi", fmt.Sprintf("%s/shared%d:1", address, n))
		}
		for _, image := range list(t, e, "/images/json?all=1") {
			if fmt.Sprint(image["RepoTags"]) != "[busybox:latest]" {
				e.Run(t, "rmi", "-f", fmt.Sprint(image["Id"]))
			}
		}
		freed(t, e)
	}
	storm(2) // meets every path once
	before := settled(t, e)
	storm(6)
	stop()
	same(t, e, before)
	if log := e.Log(); strings.Contains(log, "panic") {
		t.Errorf("a panic:\n%s", log)
	}
	if peak := memory(t, e); peak > 250<<10 {
		t.Errorf("the daemon took %d KiB for it", peak)
	} else {
		t.Logf("the daemon took %d KiB at most", peak)
	}
}
