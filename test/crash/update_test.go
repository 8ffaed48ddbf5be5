package crash

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/test/testengine"
)

// TestKillInTheMiddleOfUpdates: whenever the daemon is killed, the container runs afterwards and is what its record says, all
// of the change or nothing of it, and it can be changed again.
func TestKillInTheMiddleOfUpdates(t *testing.T) {
	e := testengine.Start(t)
	e.Busybox(t)
	dir := t.TempDir()
	e.Run(t, "run", "-d", "--name", "web", "-e", "N=0", "-l", "n=0", "-p", "7000:80", "--cpu-shares", "1000", "busybox", "sh", "-c", `trap 'exit 0' TERM; while :; do sleep 0.02; done`)
	was := 0
	const rounds = 24
	for n := 1; n <= rounds; n++ {
		live := n%2 == 0
		change := []string{"update", "--cpu-shares", fmt.Sprint(1000 + n), "--label-add", fmt.Sprintf("n=%d", n),
			"--publish-rm", fmt.Sprintf("%d:80", 7000+was), "--publish-add", fmt.Sprintf("%d:80", 7000+n),
			"--mount-add", fmt.Sprintf("type=bind,src=%s,dst=/m%d", dir, n)}
		if was > 0 {
			change = append(change, "--mount-rm", fmt.Sprintf("/m%d", was))
		}
		if !live {
			change = append(change, "--env-add", fmt.Sprintf("N=%d", n))
		}
		done := make(chan error, 1)
		go func() {
			_, err := e.Try(append(change, "web")...)
			done <- err
		}()
		var err error
		if n < rounds {
			<-time.After(time.Duration(n*7%40) * time.Millisecond)
			e.Kill()
			err = <-done
		} else { // on a slow machine none may have come through before
			if err = <-done; err != nil {
				t.Errorf("the last update, which nobody disturbed: %v", err)
			}
			e.Kill()
		}
		e.Up(t)
		now := consistent(t, e, n, was)
		if err == nil && now != n {
			t.Errorf("update %d was answered, and is not there", n)
		}
		was = now
		if t.Failed() {
			t.Log(e.Log())
			return
		}
	}
}

// consistent compares what the container is with its record, and returns which update that is.
func consistent(t *testing.T, e *testengine.Engine, n, was int) int {
	t.Helper()
	var c []struct {
		ID    string `json:"Id"`
		State struct {
			Status string
			Pid    int
		}
		Config struct {
			Labels map[string]string
			Env    []string
		}
		HostConfig struct {
			CPUShares    int `json:"CpuShares"`
			PortBindings map[string][]struct{ HostPort string }
		}
		Mounts          []struct{ Destination string }
		NetworkSettings struct {
			Ports map[string][]struct{ HostPort string }
		}
	}
	testengine.Eventually(t, time.Minute, func() error {
		left, err := filepath.Glob(e.Data + "/containers/*/update.json")
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("after update %d a note is left: %v", n, left)
		}
		return err
	})
	if err := json.Unmarshal([]byte(e.Run(t, "inspect", "web")), &c); err != nil {
		t.Fatal(err)
	}
	w := c[0]
	now := 0
	fmt.Sscan(w.Config.Labels["n"], &now)
	if now != n && now != was || w.State.Status != "running" {
		t.Errorf("after update %d on %d: label %q, %s", n, was, w.Config.Labels["n"], w.State.Status)
	}
	port := fmt.Sprint(7000 + now)
	if b := w.HostConfig.PortBindings["80/tcp"]; len(b) != 1 || b[0].HostPort != port || w.HostConfig.CPUShares != 1000+now {
		t.Errorf("after update %d the record says %+v", n, w.HostConfig)
	}
	if p := w.NetworkSettings.Ports["80/tcp"]; len(p) != 1 || p[0].HostPort != port {
		t.Errorf("after update %d it is published on %+v, not %s", n, p, port)
	}
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", w.State.Pid))
	if err != nil || !slices.Contains(strings.Split(string(environ), "\x00"), w.Config.Env[0]) {
		t.Errorf("after update %d: the environment is not %s, %v", n, w.Config.Env[0], err)
	}
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mounts", w.State.Pid))
	if err != nil {
		t.Error(err)
	}
	for _, k := range []int{was, n} {
		want := k == now && k > 0
		if got := strings.Count(string(mounts), fmt.Sprintf(" /m%d ", k)); got != map[bool]int{true: 1}[want] {
			t.Errorf("after update %d, which is %d: /m%d is mounted %d times", n, now, k, got)
		}
	}
	if (now > 0) != (len(w.Mounts) == 1) {
		t.Errorf("after update %d: mounts %+v", n, w.Mounts)
	}
	for _, k := range []int{was, n} {
		l, err := net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", 7000+k))
		if err == nil {
			l.Close()
		}
		if (err != nil) != (k == now) {
			t.Errorf("after update %d, which is %d: port %d: %v", n, now, 7000+k, err)
		}
	}
	shares, err := os.ReadFile("/sys/fs/cgroup/cpu" + cgroupOf(t, w.State.Pid) + "/cpu.shares")
	if err == nil && strings.TrimSpace(string(shares)) != fmt.Sprint(1000+now) {
		t.Errorf("after update %d, which is %d: shares %s", n, now, shares)
	}
	return now
}

// cgroupOf is a process's group in v1's cpu hierarchy, else in v2's.
func cgroupOf(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Error(err)
	}
	unified := ""
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) == 3 && slices.Contains(strings.Split(f[1], ","), "cpu") {
			return f[2]
		}
		if len(f) == 3 && f[1] == "" {
			unified = f[2]
		}
	}
	return unified
}
