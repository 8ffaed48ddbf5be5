package engine

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/container"
	"berth/engine/request"
	"berth/fault"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
)

var (
	walkSteps = flag.Int("walk", 0, "operations of each client in TestRandomWalk")
	walkSeed  = flag.Uint64("seed", 1, "seed of TestRandomWalk")
)

// TestRandomWalk lets clients do anything to some containers at once, with restart policies and health checks. What they are refused must be a
// refusal with a kind, and at the end what is recorded is what is there; when all is removed nothing is left. BERTH_SOAK=1 makes it
// 10,000 operations by 16 clients on 50 containers.
func TestRandomWalk(t *testing.T) {
	w := newWorld(t)
	clients, names, steps := 6, 8, 50
	if os.Getenv("BERTH_SOAK") != "" {
		clients, names, steps = 16, 50, 625
	}
	if *walkSteps > 0 {
		steps = *walkSteps
	}
	var group sync.WaitGroup
	for client := range clients {
		random := rand.New(rand.NewPCG(*walkSeed, uint64(client)))
		group.Go(func() {
			for range steps {
				name := fmt.Sprintf("walk%d", random.IntN(names))
				op, err := w.randomStep(random, name)
				if err != nil && fault.Of(err) == "" {
					t.Errorf("%s %s: %v", op, name, err)
				}
			}
		})
	}
	group.Wait()
	// What was just killed, ended by itself or is started again by its policy is recorded a moment later.
	settle := func(what func() error) {
		var err error
		for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			if err = what(); err == nil {
				return
			}
		}
		t.Error(err)
	}
	for _, i := range w.Containers.index.All() {
		settle(func() error { return w.agrees(i) })
	}
	for _, i := range w.Containers.index.All() {
		if err := w.Containers.Remove(t.Context(), i.id, RemoveOptions{Force: true, Volumes: true}); err != nil && !errors.Is(err, fault.NotFound) {
			t.Errorf("remove %s: %v", i.record().Name, err)
		}
	}
	settle(w.empty)
	if n := w.Events.Listeners(); n != 0 {
		t.Errorf("%d listeners are left", n)
	}
}

// agrees compares what is recorded of a container with what is there and what is on disk.
func (w *world) agrees(i *instance) error {
	i.op.Lock()
	defer i.op.Unlock()
	r := i.record()
	if _, err := w.Containers.index.Get(i.id); errors.Is(err, fault.NotFound) {
		return nil // it removed itself meanwhile
	}
	_, gone := os.Stat(fmt.Sprintf("/proc/%d", r.State.Pid))
	switch _, err := i.current(); {
	case r.State.Status.Alive() && (gone != nil || r.State.Pid == 0 || err != nil):
		return fmt.Errorf("%s is recorded as %s, but its process %d is gone: %v, %v", r.Name, r.State.Status, r.State.Pid, gone, err)
	case !r.State.Status.Alive() && (r.State.Pid != 0 || err == nil):
		return fmt.Errorf("%s is recorded as %s, but it runs: %d", r.Name, r.State.Status, r.State.Pid)
	case (r.State.Status == container.Restarting) != (i.again != nil):
		return fmt.Errorf("%s is %s, and a restart of it is waited for: %v", r.Name, r.State.Status, i.again != nil)
	case r.State.Status == container.Removing, r.State.Status == container.Dead:
		return fmt.Errorf("%s is %s: %s", r.Name, r.State.Status, r.State.Error)
	}
	if wanted, err := request.Ports(r.Config, r.HostConfig); r.State.Status.Alive() && attachmentOf(r) != nil && (err != nil || len(attachmentOf(r).Ports) != len(wanted)) {
		return fmt.Errorf("%s publishes %v, and is recorded to publish %v, %v", r.Name, attachmentOf(r).Ports, wanted, err)
	}
	if u, err := w.Containers.store.Updating(i.id); u != nil || err != nil {
		return fmt.Errorf("%s: an update is noted: %v", r.Name, err)
	}
	stored, err := w.Containers.store.Load(i.id)
	if err != nil || stored.State.Status != r.State.Status || stored.State.ExitCode != r.State.ExitCode || stored.Name != r.Name {
		return fmt.Errorf("%s: on disk %+v, shown %+v, %v", r.Name, stored, r.State, err)
	}
	return nil
}

// empty looks for what containers that are all removed left.
func (w *world) empty() error {
	left := map[string]int{"shown": len(w.Containers.index.All())}
	records, err := w.Containers.store.List()
	left["on disk"] = len(records)
	roots, rootErr := w.Containers.layers.Roots()
	left["roots"] = len(roots)
	shims, shimErr := w.Containers.shims.List()
	left["run states"] = len(shims)
	w.Containers.execs.mu.Lock()
	left["execs"] = len(w.Containers.execs.byID)
	w.Containers.execs.mu.Unlock()
	for what, n := range left {
		if n > 0 {
			err = errors.Join(err, fmt.Errorf("%d containers are still there: %s", n, what))
		}
	}
	return errors.Join(err, rootErr, shimErr)
}

// randomContainer is one that lives on its own in many ways.
func randomContainer(random *rand.Rand) CreateRequest {
	one := func(of ...[]string) []string { return of[random.IntN(len(of))] }
	r := CreateRequest{
		Config: &api.Config{Image: "busybox", Cmd: one(
			[]string{"sleep", "1000"}, []string{"true"}, []string{"none"}, []string{"sh", "-c", "sleep 0.1; exit 3"},
			[]string{"sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"},
		)},
		HostConfig: &api.HostConfig{NetworkMode: []api.NetworkMode{"none", "bridge"}[random.IntN(2)]},
	}
	switch random.IntN(6) {
	case 0:
		r.HostConfig.AutoRemove = true
	case 1:
		r.HostConfig.RestartPolicy.Name = "always"
	case 2:
		r.HostConfig.RestartPolicy.Name = "unless-stopped"
	case 3:
		r.HostConfig.RestartPolicy = api.RestartPolicy{Name: "on-failure", MaximumRetryCount: 1 + random.IntN(3)}
	}
	if random.IntN(3) == 0 {
		r.Config.Healthcheck = &api.HealthConfig{Test: one([]string{"CMD", "true"}, []string{"CMD", "false"}, []string{"CMD", "none"}), Interval: 100 * time.Millisecond, Retries: 2}
		r.Settings.HealthOnFailure = one([]string{"none"}, []string{"kill"}, []string{"restart"}, []string{"stop"})[0]
	}
	if random.IntN(5) == 0 {
		r.Settings.DependsOn = []string{fmt.Sprintf("walk%d", random.IntN(8))}
	}
	return r
}

// randomUpdate changes one thing, live or by a new start.
func randomUpdate(random *rand.Rand) (u UpdateRequest) {
	c := &u.Changes
	switch random.IntN(7) {
	case 0:
		u.RestartPolicy.Name = []api.RestartPolicyMode{"no", "always", "unless-stopped"}[random.IntN(3)]
	case 1:
		u.Resources.CPUShares = 2 + random.Int64N(1000)
	case 2:
		c.EnvAdd = []string{fmt.Sprintf("N=%d", random.IntN(100))}
	case 3:
		c.LabelAdd = map[string]string{"n": fmt.Sprint(random.IntN(100))}
	case 4:
		c.PublishAdd = publish(fmt.Sprintf("%d:80", 7100+random.IntN(4)))
	case 5:
		c.PublishRemove = []string{"80"}
	case 6:
		c.MountAdd, c.MountRemove = []mount.Mount{{Type: mount.TypeTmpfs, Target: "/added"}}, nil
		if random.IntN(2) == 0 {
			c.MountAdd, c.MountRemove = nil, []string{"/added"}
		}
	}
	return u
}

// randomStep does one thing. A program that ends by itself is among those it starts.
func (w *world) randomStep(random *rand.Rand, name string) (op string, err error) {
	c := w.Containers
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	zero := 0
	switch random.IntN(21) {
	case 0, 1, 2:
		_, _, err = c.Create(ctx, name, randomContainer(random))
		op = "create"
	case 3, 4, 5, 6:
		op, err = "start", c.Start(ctx, name)
	case 7:
		op, err = "stop", c.Stop(ctx, name, StopOptions{Timeout: &zero})
	case 8:
		op, err = "kill", c.Kill(ctx, name, []string{"", "TERM", "HUP"}[random.IntN(3)])
	case 9:
		op, err = "restart", c.Restart(ctx, name, StopOptions{Timeout: &zero})
	case 10, 11:
		op, err = "remove", c.Remove(ctx, name, RemoveOptions{Force: random.IntN(2) == 0, Volumes: true})
	case 12:
		op, err = "pause", c.Pause(ctx, name)
	case 13:
		op, err = "unpause", c.Unpause(ctx, name)
	case 14:
		op = "exec"
		var id string
		if id, err = c.ExecCreate(ctx, name, api.ExecCreateRequest{Cmd: []string{"true"}}); err == nil {
			err = c.ExecStart(ctx, id, ExecStartRequest{})
		}
	case 15:
		op = "crash" // from outside
		if i, notThere := c.index.Get(name); notThere == nil {
			if pid := i.record().State.Pid; pid > 0 {
				if p, notThere := os.FindProcess(pid); notThere == nil {
					p.Kill() // it may have ended already
				}
			}
		}
	case 16, 19, 20:
		op = "update"
		_, err = c.Update(ctx, name, randomUpdate(random))
	case 17:
		op, err = "rename", c.Rename(ctx, name, fmt.Sprintf("walk%d", random.IntN(8)))
	case 18:
		op = "look"
		if _, err = c.List(ctx, ListRequest{All: true}); err == nil {
			_, err = c.Inspect(ctx, name, false)
		}
	}
	if err != nil && strings.Contains(err.Error(), "executable file not found") && !errors.Is(err, fault.Invalid) && !errors.Is(err, fault.Conflict) {
		return op, fmt.Errorf("a wrong kind: %w", err)
	}
	return op, err
}
