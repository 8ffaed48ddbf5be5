package crash

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"berth/test/testengine"
)

// namesHold has every container that runs ask for all others on each of its networks. addresses are theirs by name and network.
func namesHold(t *testing.T, e *testengine.Engine, addresses map[string]map[string]string) error {
	for asks, on := range addresses {
		script, want := "", []string{}
		for other, at := range addresses {
			for network := range on {
				if at[network] != "" {
					script += fmt.Sprintf("nslookup -type=a %s.%s | grep -A9 Name: | grep -o 'Address: .*';", other, network)
					want = append(want, "Address: "+at[network])
				}
			}
		}
		if script == "" {
			continue
		}
		out, err := e.Try("exec", asks, "sh", "-c", script)
		if got := strings.TrimSpace(out); got != strings.Join(want, "\n") {
			return fmt.Errorf("%s asks\n%s\nand is told\n%s\nnot\n%s\n(%v)", asks, script, got, strings.Join(want, "\n"), err)
		}
	}
	return nil
}

// killNames kills the engine's name server, if there is one.
func killNames(e *testengine.Engine) {
	all, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, comm := range all {
		name, _ := os.ReadFile(comm)
		dir := filepath.Dir(comm)
		log, _ := os.Readlink(dir + "/fd/2")
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil && string(name) == "berth-dns\n" && log == e.Exec+"/dns.log" {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}
