package nft_test

import (
	"os/exec"
	"testing"

	"berth/internal/kerneltest"
	"berth/kernel/nft"
)

func TestLegacyBlockerIsFound(t *testing.T) {
	kerneltest.Root(t)
	program, err := exec.LookPath("iptables-legacy")
	if err != nil {
		t.Skip("needs iptables-legacy to write rules of the old packet filter")
	}
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
			t.Fatalf("iptables-legacy %v: %v\n%s", args, err, out)
		}
	}
	expect := func(want bool) {
		t.Helper()
		if got, err := nft.LegacyBlocker("berth0"); err != nil || got != want {
			t.Errorf("%v, %v; want %v", got, err, want)
		}
	}
	expect(false) // no table at all
	run("-A", "INPUT", "-i", "berth0", "-j", "ACCEPT")
	run("-A", "FORWARD", "-i", "eth0", "-j", "ACCEPT")
	expect(false)
	run("-P", "FORWARD", "DROP")
	t.Cleanup(func() { run("-F"); run("-P", "FORWARD", "ACCEPT") })
	expect(true)
	run("-I", "FORWARD", "-o", "berth0", "-j", "ACCEPT")
	expect(false)
}
