package kerneltest_test

import (
	"net"
	"os"
	"testing"

	"berth/internal/kerneltest"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

func TestWorldIsItsOwn(t *testing.T) {
	kerneltest.Root(t)
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if l.Flags&net.FlagLoopback == 0 && l.Flags&net.FlagUp != 0 {
			t.Errorf("link %s of another network is in sight", l.Name)
		}
	}
	comm, err := os.ReadFile("/proc/1/comm")
	if err != nil || string(comm) != "kerneltest.test\n" {
		t.Errorf("process 1 is %q, %v", comm, err)
	}
	if entries, err := os.ReadDir("/run"); err != nil || len(entries) != 0 {
		t.Errorf("/run has %v, %v", entries, err)
	}
	if kerneltest.CgroupParent() == "" {
		t.Error("no cgroup parent")
	}
}
