package usage

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"berth/fault"
	"berth/oci"

	"github.com/google/go-cmp/cmp"
	api "github.com/moby/moby/api/types/container"
)

func TestParsePS(t *testing.T) {
	out := "UID   PID  PPID CMD\nroot    7     1 sh -c sleep 5\nroot   77     1 other\nroot    8     7 a\u00a0b 5\nshort\n"
	got, err := parsePS([]byte(out), []int{7, 8, 9})
	want := api.TopResponse{Titles: []string{"UID", "PID", "PPID", "CMD"}, Processes: [][]string{{"root", "7", "1", "sh -c sleep 5"}, {"root", "8", "7", "a\u00a0b 5"}}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	if _, err := parsePS([]byte("USER CMD\n"), nil); !errors.Is(err, fault.Invalid) || err.Error() != "Couldn't find PID field in ps output" {
		t.Errorf("no PID: %v", err)
	}
}

func TestProcessesOfThisHost(t *testing.T) {
	if _, err := exec.LookPath("ps"); err != nil {
		t.Skip("needs the program ps")
	}
	own := []int{os.Getpid()}
	top, err := Processes(t.Context(), nil, own)
	if err != nil || len(top.Processes) != 1 || strings.Join(top.Titles, " ") != "UID PID PPID C STIME TTY TIME CMD" {
		t.Errorf("%+v, %v", top, err)
	}
	for args, want := range map[string]string{
		"-o bogus":             `error running ps -o bogus: error: unknown user-defined format specifier "bogus"`,
		"-o comm":              "Couldn't find PID field in ps output",
		"-eo ppid=PID,comm":    `specifying "ppid=PID" is not allowed`,
		"-o user,ppid=PIDDLER": `specifying "ppid=PIDDLER" is not allowed`,
	} {
		if _, err := Processes(t.Context(), strings.Fields(args), own); !errors.Is(err, fault.Invalid) || err.Error() != want {
			t.Errorf("%s: %v", args, err)
		}
	}
	if top, err := Processes(t.Context(), []string{"-o", "pid=PID"}, own); err != nil || len(top.Processes) != 1 {
		t.Errorf("a column under its own name: %+v, %v", top, err)
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := Processes(t.Context(), nil, own); !errors.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "install it") {
		t.Errorf("no ps: %v", err)
	}
}

func TestProcessorTime(t *testing.T) {
	total, n := parseProcessorTime([]byte("cpu  1 2 3 4 5 6 7 8 900 900\ncpu0 1 1 1 1 1 1 1 1 0 0\ncpu1 0 1 2 3 4 5 6 7 0 0\nintr 99 cpu\n"))
	if total != 36*10_000_000 || n != 2 {
		t.Errorf("%d, %d processors", total, n)
	}
	for _, bad := range []string{"", "cpu x\n", "intr 1\n"} {
		if total, n := parseProcessorTime([]byte(bad)); total != 0 || n != 0 {
			t.Errorf("%q: %d, %d", bad, total, n)
		}
	}
}

func TestLinks(t *testing.T) {
	const head = "Inter-|   Receive                                                |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n"
	got := parseNetDev(head + "    lo:  1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0:100 2 3 4 0 0 0 0 50 6 7 8 0 0 0 0\neth1: 1 2\n")
	want := map[string]api.NetworkStats{"eth0": {RxBytes: 100, RxPackets: 2, RxErrors: 3, RxDropped: 4, TxBytes: 50, TxPackets: 6, TxErrors: 7, TxDropped: 8}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := parseNetDev(head); got != nil {
		t.Errorf("no links: %v", got)
	}
}

func TestMemoryLimitIsTheMachines(t *testing.T) {
	for limit, want := range map[uint64]uint64{0: 1000, 500: 500, 5000: 1000} {
		u := &oci.Stats{}
		u.Memory.Limit = limit
		if got := memoryStats(u, 1000).Limit; got != want {
			t.Errorf("limit %d is %d", limit, got)
		}
	}
}

func FuzzTables(f *testing.F) {
	f.Add("eth0:100 2 3 4 0 0 0 0 50 6 7 8 0 0 0 0\n")
	f.Add("cpu  1 2 3 4 5 6 7 8 9 10\n")
	f.Fuzz(func(t *testing.T, s string) {
		parseNetDev(s)
		parseProcessorTime([]byte(s))
		parsePS([]byte(s), []int{1, 2})
	})
}
