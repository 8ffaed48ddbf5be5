package namespace_test

import (
	"os"
	"sync"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/internal/kerneltest"
	"berth/kernel/namespace"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

// Many at once: the processes that make them inherit each other's pipes.
func TestOwnedNetsAtOnce(t *testing.T) {
	kerneltest.Root(t)
	var all sync.WaitGroup
	for k := range 64 {
		all.Go(func() {
			ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: uint32(100000 + 1000*k), Size: 500}, {ContainerID: 500, HostID: 50, Size: 1}}
			net, err := namespace.NewOwnedNet(ids, ids[:1])
			if err != nil {
				t.Error(err)
				return
			}
			defer net.Close()
			user, err := namespace.Owner(net)
			if err != nil {
				t.Error(err)
				return
			}
			defer user.Close()
			ours, err := os.Open("/proc/self/ns/user")
			if err != nil {
				t.Error(err)
				return
			}
			defer ours.Close()
			if same, err := namespace.Same(user, ours); err != nil || same {
				t.Errorf("it belongs to our user namespace (%v)", err)
			}
		})
	}
	all.Wait()
	if _, err := namespace.NewUser([]specs.LinuxIDMapping{{Size: 0}}, nil); err == nil {
		t.Error("a map of no ids was taken")
	}
}

func TestReadMaps(t *testing.T) {
	uids, gids, err := namespace.ReadMaps("/proc/self")
	if err != nil || len(uids) == 0 || len(gids) == 0 || uids[0].Size == 0 {
		t.Error(uids, gids, err)
	}
}
