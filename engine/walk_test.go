package engine

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/fault"

	api "github.com/moby/moby/api/types/container"
)

var (
	walkSteps = flag.Int("walk", 60, "operations of each client in TestRandomWalk")
	walkSeed  = flag.Uint64("seed", 1, "seed of TestRandomWalk")
)

// TestRandomWalk lets clients do anything to a few containers at once. What they are refused must be a refusal
// with a kind, and at the end what is recorded is what is there.
func TestRandomWalk(t *testing.T) {
	w := newWorld(t)
	const clients, names = 4, 5
	var group sync.WaitGroup
	for client := range clients {
		group.Add(1)
		random := rand.New(rand.NewPCG(*walkSeed, uint64(client)))
		go func() {
			defer group.Done()
			for range *walkSteps {
				name := fmt.Sprintf("walk%d", random.IntN(names))
				op, err := w.randomStep(random, name)
				if err != nil && fault.Of(err) == "" {
					t.Errorf("%s %s: %v", op, name, err)
				}
			}
		}()
	}
	group.Wait()
	// A container that was just killed, or ended by itself, is recorded a moment later.
	for _, i := range w.Containers.index.All() {
		var err error
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			if err = w.agrees(i); err == nil {
				break
			}
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// agrees compares what is recorded of a container with what is there and what is on disk.
func (w *world) agrees(i *instance) error {
	r := i.record()
	if r.State.Status.Alive() {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", r.State.Pid)); err != nil {
			return fmt.Errorf("%s is recorded as %s, but its process is gone", r.Name, r.State.Status)
		}
	}
	if _, err := w.Containers.index.Get(i.id); errors.Is(err, fault.NotFound) {
		return nil // it removed itself meanwhile
	}
	stored, err := w.Containers.store.Load(i.id)
	if err != nil || stored.State.Status != r.State.Status || stored.State.ExitCode != r.State.ExitCode {
		return fmt.Errorf("%s: on disk %+v, shown %+v, %v", r.Name, stored, r.State, err)
	}
	return nil
}

// randomStep does one thing. A program that ends by itself is among those it starts.
func (w *world) randomStep(random *rand.Rand, name string) (op string, err error) {
	c, ctx := w.Containers, w.t.Context()
	zero := 0
	switch random.IntN(14) {
	case 0, 1, 2:
		h := &api.HostConfig{NetworkMode: []api.NetworkMode{"none", "bridge"}[random.IntN(2)], AutoRemove: random.IntN(4) == 0}
		program := [][]string{{"sleep", "1000"}, {"true"}, {"sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"}, {"none"}}[random.IntN(4)]
		_, _, err = c.Create(ctx, name, CreateRequest{Config: &api.Config{Image: "busybox", Cmd: program}, HostConfig: h})
		op = "create"
	case 3, 4, 5, 6:
		op, err = "start", c.Start(ctx, name)
	case 7:
		op, err = "stop", c.Stop(ctx, name, StopOptions{Timeout: &zero})
	case 8:
		op, err = "kill", c.Kill(ctx, name, "")
	case 9:
		op, err = "restart", c.Restart(ctx, name, StopOptions{Timeout: &zero})
	case 10:
		op, err = "remove", c.Remove(ctx, name, RemoveOptions{Force: random.IntN(2) == 0})
	case 11:
		op, err = "pause", c.Pause(ctx, name)
	case 12:
		op, err = "unpause", c.Unpause(ctx, name)
	case 13:
		op = "exec"
		var id string
		if id, err = c.ExecCreate(ctx, name, api.ExecCreateRequest{Cmd: []string{"true"}}); err == nil {
			err = c.ExecStart(ctx, id, ExecStartRequest{})
		}
	}
	if err != nil && strings.Contains(err.Error(), "executable file not found") && !errors.Is(err, fault.Invalid) {
		return op, fmt.Errorf("a wrong kind: %w", err)
	}
	return op, err
}
