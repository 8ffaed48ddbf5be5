package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// flowBytes is how much goes over a connection whose throughput is measured.
const flowBytes = 2 << 30

// flow is this program in a container, or in a namespace: "serve" sends to everyone who asks at port 5001, one at a time, and tells at the end
// what processor time that took it; "ask ADDRESS" takes it and prints MB per second, and the milliseconds of processor time that both took for a GB.
func flow(args []string) error {
	switch {
	case len(args) == 1 && args[0] == "serve":
		return serveFlow()
	case len(args) == 2 && args[0] == "ask":
		return askFlow(args[1])
	}
	return fmt.Errorf("flow: serve, or ask ADDRESS")
}

func serveFlow() error {
	l, err := net.Listen("tcp", ":5001")
	if err != nil {
		return err
	}
	chunk := make([]byte, 1<<20)
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		before := processorTime()
		for sent := 0; sent < flowBytes && err == nil; sent += len(chunk) {
			_, err = c.Write(chunk)
		}
		if err == nil { // one that only knocks wants none
			binary.Write(c, binary.BigEndian, int64(processorTime()-before))
		}
		c.Close()
	}
}

func askFlow(address string) error {
	c, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	began, before := time.Now(), processorTime()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, io.LimitReader(c, flowBytes), make([]byte, 1<<20))
	took, cost := time.Since(began), processorTime()-before
	if err == nil && n != flowBytes {
		err = fmt.Errorf("flow: %d of %d bytes", n, flowBytes)
	}
	var theirs int64
	if err == nil {
		err = binary.Read(c, binary.BigEndian, &theirs)
	}
	if err == nil {
		const giga = flowBytes / 1e9
		fmt.Printf("%.0f %.0f\n", float64(n)/1e6/took.Seconds(), (cost+time.Duration(theirs)).Seconds()*1e3/giga)
	}
	return err
}

// processorTime is what this process has used.
func processorTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// ran is what a flow came to.
type ran struct{ speed, cost float64 }

func flown(cmd *exec.Cmd) (r ran, err error) {
	out, err := cmd.CombinedOutput()
	if err == nil {
		_, err = fmt.Sscan(string(out), &r.speed, &r.cost)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, out)
	}
	return r, err
}

// flowing measures a throughput to a server in a container on a network of its own, which is also published.
func flowing(e engine, self string, ask func(e engine, self, server string) *exec.Cmd) (r ran, err error) {
	const network, server = "bench-flow", "bench-flow-server"
	if err := quiet(e.client("network", "create", network)); err != nil {
		return r, err
	}
	defer quiet(e.client("network", "rm", network))
	defer quiet(e.client("rm", "-f", server))
	if err := quiet(e.client("run", "-d", "--name", server, "--network", network, "-p", "127.0.0.1:5001:5001", "-v", self+":/flow:ro", "busybox", "/flow", "-flow", "serve")); err != nil {
		return r, err
	}
	out, err := e.client("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", server).Output()
	if err != nil {
		return r, err
	}
	address := strings.TrimSpace(string(out)) + ":5001"
	if err := awaitServer(address); err != nil {
		return r, err
	}
	return flown(ask(e, self, address))
}

// awaitServer returns when a server accepts connections.
func awaitServer(address string) (err error) {
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		var c net.Conn
		if c, err = net.DialTimeout("tcp", address, time.Second); err == nil {
			return c.Close()
		}
	}
	return err
}

func quiet(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, out)
	}
	return nil
}

// networkMeasurements: of throughputs, more is better.
var networkMeasurements = []measurement{
	{name: "network create", unit: "ms", run: func(e engine) (float64, error) {
		defer quiet(e.client("network", "rm", "bench-one"))
		return timed(e.client("network", "create", "bench-one"))
	}},
	{name: "run --rm on a network of one's own", unit: "ms", prepare: func(e engine) error {
		quiet(e.client("network", "create", "bench-own"))
		return nil
	}, run: func(e engine) (float64, error) {
		return timed(e.client("run", "--rm", "--network", "bench-own", "busybox", "true"))
	}},
	{name: "start, 1,000 published ports", unit: "ms", slow: true, run: withRemoval(func(e engine, name string) (float64, error) {
		return after(timed, e, e.client("start", name), "create", "--name", name, "-p", "20000-20999:20000-20999", "busybox", "sleep", "1000")
	})},
}

// flowMeasurements carry a flow twice each: for its speed, and for the processor time that both ends take, in which others that load the machine show less.
func flowMeasurements() (all []measurement) {
	for _, f := range []struct {
		name string
		bare func(*bare, string) (ran, error)
		ask  func(e engine, self, server string) *exec.Cmd
	}{
		{"flow: container to container", (*bare).between, func(e engine, self, server string) *exec.Cmd {
			return e.client("run", "--rm", "--network", "bench-flow", "-v", self+":/flow:ro", "busybox", "/flow", "-flow", "ask", server)
		}},
		{"flow: through a published port", (*bare).into, func(_ engine, self, _ string) *exec.Cmd {
			return exec.Command(self, "-flow", "ask", "127.0.0.1:5001")
		}},
	} {
		run := func(e engine) (ran, error) {
			self, err := os.Executable()
			if err != nil {
				return ran{}, err
			}
			if b, ok := e.(*bare); ok {
				return f.bare(b, self)
			}
			return flowing(e, self, f.ask)
		}
		all = append(all, measurement{name: f.name, unit: "MB/s", slow: true, run: func(e engine) (float64, error) {
			r, err := run(e)
			return r.speed, err
		}}, measurement{name: f.name + ", processor time", unit: "ms/GB", slow: true, run: func(e engine) (float64, error) {
			r, err := run(e)
			return r.cost, err
		}})
	}
	return all
}
