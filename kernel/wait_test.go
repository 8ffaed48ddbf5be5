package kernel_test

import (
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"

	"berth/kernel"
)

// child starts a program that this test reaps itself.
func child(t *testing.T, args ...string) *os.File {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pidfd, err := kernel.OpenPid(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Process.Release()
	t.Cleanup(func() { pidfd.Close() })
	return pidfd
}

func TestReap(t *testing.T) {
	p := child(t, "sh", "-c", "exit 7")
	if e, err := kernel.Reap(p); err != nil || e != (kernel.Ended{Code: 7}) {
		t.Errorf("%+v, %v", e, err)
	}
	p = child(t, "sleep", "1000")
	if err := kernel.AwaitEnd(p, time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a running program: %v", err)
	}
	if err := kernel.SignalPid(p, 15); err != nil {
		t.Fatal(err)
	}
	if err := kernel.AwaitEnd(p, time.Minute); err != nil {
		t.Error(err)
	}
	if e, err := kernel.Reap(p); err != nil || e != (kernel.Ended{Code: 143, Signal: 15}) {
		t.Errorf("%+v, %v", e, err)
	}
	if err := kernel.SignalPid(p, 15); !kernel.IsGone(err) {
		t.Errorf("a reaped program: %v", err)
	}
}

func TestStartTime(t *testing.T) {
	own, err := kernel.StartTime(os.Getpid())
	if err != nil || own == 0 {
		t.Errorf("%d, %v", own, err)
	}
	if again, err := kernel.StartTime(os.Getpid()); err != nil || again != own {
		t.Errorf("%d, then %d, %v", own, again, err)
	}
	if _, err := kernel.StartTime(1 << 30); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no process: %v", err)
	}
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	p, err := kernel.OpenPid(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := kernel.AwaitEnd(p, time.Minute); err != nil {
		t.Fatal(err)
	}
	if _, err := kernel.StartTime(cmd.Process.Pid); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a zombie: %v", err)
	}
}

func TestSignalNumber(t *testing.T) {
	for name, want := range map[string]int{"9": 9, "KILL": 9, "sigterm": 15, "SIGWINCH": 28, "RTMIN": 34, "SIGRTMIN+3": 37, "RTMAX-1": 63, "0": 0} {
		if n, ok := kernel.SignalNumber(name); !ok || n != want {
			t.Errorf("%s: %d, %v", name, n, ok)
		}
	}
	for _, name := range []string{"", "NOPE", "65", "-1", "RTMIN+40", "RTMAX+1"} {
		if n, ok := kernel.SignalNumber(name); ok {
			t.Errorf("%q is %d", name, n)
		}
	}
}

func TestCapabilityNames(t *testing.T) {
	for _, name := range (^kernel.CapSet(0)).Names() {
		n, ok := kernel.Capability(name)
		if !ok || len(kernel.CapSet(1<<n).Names()) != 1 || kernel.CapSet(1 << n).Names()[0] != name {
			t.Errorf("%s is %d, %v", name, n, ok)
		}
	}
	if n, ok := kernel.Capability("CAP_SYS_ADMIN"); n != 21 || !ok {
		t.Errorf("CAP_SYS_ADMIN is %d", n)
	}
	if _, ok := kernel.Capability("SYS_ADMIN"); ok {
		t.Error("a name without its prefix was taken")
	}
	if have := kernel.BoundingSet(); os.Geteuid() == 0 && !have.Has(0) {
		t.Errorf("our bounding set is %x", have)
	}
}

func TestSignalAfterClose(t *testing.T) {
	p, err := kernel.OpenPid(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
	if err := kernel.SignalPid(p, 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("got %v", err)
	}
}
