package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// bareName is the peer that is no engine but what the kernel alone makes of the wires: two network namespaces on a bridge.
const bareName = "bare wires"

// bare has a server in one namespace and asks from the other, or from this one. What an engine has that it hasn't: a packet filter. Each end has a control
// group, as containers have: on a machine that is busy, a group gets more processor time than a process among many.
type bare struct {
	base
	asks string // process of the namespace without a server
}

const bareServer = "10.99.0.2"

func (e *bare) start() error {
	if err := quiet(exec.Command("sh", "-ec", `ip link add wires type bridge; ip addr add 10.99.0.1/24 dev wires; ip link set wires up; ip link set lo up`)); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for k, program := range [][]string{{self, "-flow", "serve"}, {"sleep", "1000000"}} {
		if err := e.background(exec.Command("unshare", append([]string{"--net"}, program...)...)); err != nil {
			return err
		}
		e.asks = strconv.Itoa(e.daemon())
		if err := awaitOwnNetwork(e.asks); err != nil {
			return err
		}
		wire := fmt.Sprintf(`echo %[1]s >$(mkgroup %[2]d)/cgroup.procs
			ip link add wire%[2]d type veth peer name eth0 netns %[1]s; ip link set wire%[2]d master wires up
			nsenter -t %[1]s -n sh -ec 'ip addr add 10.99.0.%[2]d/24 dev eth0; ip link set eth0 up; ip link set lo up'`, e.asks, k+2)
		if err := quiet(e.shell(wire)); err != nil {
			return err
		}
	}
	return awaitServer(bareServer + ":5001")
}

// awaitOwnNetwork returns when a process has left our network namespace.
func awaitOwnNetwork(pid string) error {
	ours, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return err
	}
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if its, err := os.Readlink("/proc/" + pid + "/ns/net"); err == nil && its != ours {
			return nil
		}
	}
	return fmt.Errorf("process %s makes no network namespace of its own", pid)
}

func (e *bare) client(args ...string) *exec.Cmd { return exec.Command("false", args...) }
func (e *bare) supervisors() []string           { return nil }

// shell runs a script that can say mkgroup NAME.
func (e *bare) shell(script string) *exec.Cmd {
	return exec.Command("sh", "-ec", `mkgroup() { d=/sys/fs/cgroup/cpu; [ -d $d ] || d=/sys/fs/cgroup; d="$d$0/$1"; mkdir -p "$d"; echo "$d"; }; `+script, e.parent)
}

// between is the throughput from namespace to namespace.
func (e *bare) between(self string) (ran, error) {
	return flown(e.shell(fmt.Sprintf(`echo $$ >$(mkgroup 3)/cgroup.procs; exec nsenter -t %s -n '%s' -flow ask %s:5001`, e.asks, self, bareServer)))
}

// into is that from this namespace, the bridge's, to the server's.
func (e *bare) into(self string) (ran, error) {
	return flown(exec.Command(self, "-flow", "ask", bareServer+":5001"))
}

// takes tells whether a peer is measured: the bare wires carry flows and nothing else, docker.io's other builder builds.
func (m measurement) takes(peer string) bool {
	switch peer {
	case bareName:
		return strings.HasPrefix(m.name, "flow: ")
	case buildkitName:
		return m.builds
	case "podman":
		return !m.builds
	}
	return true
}
