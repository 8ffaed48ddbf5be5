package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"
)

// flowBytes is how much goes over a connection whose throughput is measured.
const flowBytes = 2 << 30

// flow is this program in a container, or in a namespace: "serve" sends to everyone who asks at port 5001, "ask ADDRESS" takes it
// and prints MB per second.
func flow(args []string) error {
	if len(args) == 1 && args[0] == "serve" {
		l, err := net.Listen("tcp", ":5001")
		if err != nil {
			return err
		}
		for {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			go func() {
				defer c.Close()
				chunk := make([]byte, 1<<20)
				for sent := 0; sent < flowBytes; sent += len(chunk) {
					if _, err := c.Write(chunk); err != nil {
						return
					}
				}
			}()
		}
	}
	if len(args) != 2 || args[0] != "ask" {
		return fmt.Errorf("flow: serve, or ask ADDRESS")
	}
	c, err := net.DialTimeout("tcp", args[1], 10*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	began := time.Now()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 1<<20))
	if err == nil && n != flowBytes {
		err = fmt.Errorf("flow: %d of %d bytes", n, flowBytes)
	}
	if err == nil {
		fmt.Printf("%.0f\n", float64(n)/1e6/time.Since(began).Seconds())
	}
	return err
}

// speed runs a command that prints MB per second.
func speed(cmd *exec.Cmd) (mb float64, err error) {
	out, err := cmd.CombinedOutput()
	if err == nil {
		_, err = fmt.Sscan(string(out), &mb)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, out)
	}
	return mb, err
}

// flowing measures a throughput to a server in a container on a network of its own, which is also published.
func flowing(ask func(e engine, self, server string) *exec.Cmd) func(engine) (float64, error) {
	return func(e engine) (mb float64, err error) {
		self, err := os.Executable()
		if err != nil {
			return 0, err
		}
		const network, server = "bench-flow", "bench-flow-server"
		if err := quiet(e.client("network", "create", network)); err != nil {
			return 0, err
		}
		defer quiet(e.client("network", "rm", network))
		if err := quiet(e.client("run", "-d", "--name", server, "--network", network, "-p", "127.0.0.1:5001:5001", "-v", self+":/flow:ro", "busybox", "/flow", "-flow", "serve")); err != nil {
			return 0, err
		}
		defer quiet(e.client("rm", "-f", server))
		out, err := e.client("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", server).Output()
		if err != nil {
			return 0, err
		}
		address := strings.TrimSpace(string(out)) + ":5001"
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			if c, err := net.Dial("tcp", address); err == nil {
				c.Close()
				break
			}
		}
		return speed(ask(e, self, address))
	}
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
	{name: "flow: container to container", unit: "MB/s", slow: true, run: flowing(func(e engine, self, server string) *exec.Cmd {
		return e.client("run", "--rm", "--network", "bench-flow", "-v", self+":/flow:ro", "busybox", "/flow", "-flow", "ask", server)
	})},
	{name: "flow: through a published port", unit: "MB/s", slow: true, run: flowing(func(_ engine, self, _ string) *exec.Cmd {
		return exec.Command(self, "-flow", "ask", "127.0.0.1:5001")
	})},
}
