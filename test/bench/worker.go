package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"
)

// measurement is one thing that users wait for. run does it once and returns
// its cost; what it has to prepare and clean up is not counted.
type measurement struct {
	name   string
	unit   string
	slow   bool // measured a tenth as often
	run    func(e engine) (float64, error)
	inside func(e engine) (ms, cost float64, err error) // instead of run: it knows the processor time, as most of what it does is not measured

	prepare func(e engine) error // before run; nil: nothing
	observe bool                 // processor time and memory as well
	builds  bool                 // of the builders, which are more than the engines
	floor   string               // the image whose pull it is, to be set beside what the machine allows
}

// engine is one container engine inside this worker's world.
type engine interface {
	// start brings it up with the image "busybox" in it.
	start() error
	stop()
	// client is the command line of its client.
	client(args ...string) *exec.Cmd
	// common is what it has in common with the others.
	common() *base
	// daemon is the process number of its daemon; 0 when it has none.
	daemon() int
	// supervisors lists the programs that each of its containers keeps running.
	supervisors() []string
}

var measurements = []measurement{
	{name: "client start (--version)", unit: "ms", run: func(e engine) (float64, error) { return timed(e.client("--version")) }},
	{name: "run --rm busybox true", unit: "ms", run: func(e engine) (float64, error) {
		return timed(e.client("run", "--rm", "busybox", "true"))
	}},
	{name: "run --rm, --network none", unit: "ms", run: func(e engine) (float64, error) {
		return timed(e.client("run", "--rm", "--network", "none", "busybox", "true"))
	}},
	{name: "run --rm -p", unit: "ms", run: func(e engine) (float64, error) {
		return timed(e.client("run", "--rm", "-p", "127.0.0.1:8099:80", "busybox", "true"))
	}},
	{name: "run -d", unit: "ms", run: withRemoval(func(e engine, name string) (float64, error) {
		return timed(e.client("run", "-d", "--name", name, "busybox", "sleep", "1000"))
	})},
	{name: "create", unit: "ms", run: withRemoval(func(e engine, name string) (float64, error) {
		return timed(e.client("create", "--name", name, "busybox", "sleep", "1000"))
	})},
	{name: "start", unit: "ms", run: withRemoval(func(e engine, name string) (float64, error) {
		return after(timed, e, e.client("start", name), "create", "--name", name, "busybox", "sleep", "1000")
	})},
	{name: "exec true", unit: "ms", run: withRemoval(func(e engine, name string) (float64, error) {
		return after(timed, e, e.client("exec", name, "true"), "run", "-d", "--name", name, "busybox", "sleep", "1000")
	})},
	{name: "stop (handles TERM)", unit: "ms", run: withRemoval(func(e engine, name string) (float64, error) {
		cmd := e.client("stop", name)
		return after(timed, e, cmd, "run", "-d", "--init", "--name", name, "busybox", "sleep", "1000")
	})},
	{name: "rm -f", unit: "ms", run: func(e engine) (float64, error) {
		return after(timed, e, e.client("rm", "-f", "removed"), "run", "-d", "--name", "removed", "busybox", "sleep", "1000")
	}},
	{name: "50 x run -d, one by one", unit: "ms", slow: true, run: func(e engine) (float64, error) { return many(e, 50, 1) }},
	{name: "50 x run -d, by 8 clients", unit: "ms", slow: true, run: func(e engine) (float64, error) { return many(e, 50, 8) }},
	{name: "ps of 50", unit: "ms", slow: true, run: func(e engine) (float64, error) {
		return withMany(e, 50, func() (float64, error) { return timed(e.client("ps")) })
	}},
	{name: "daemon, idle", unit: "MB", slow: true, run: func(e engine) (float64, error) { return rss(e.daemon()) }},
	{name: "supervisor of a container", unit: "MB", slow: true, run: func(e engine) (float64, error) {
		return withMany(e, 20, func() (float64, error) { return supervisorPSS(e, 20) })
	}},
}

func timed(cmd *exec.Cmd) (float64, error) {
	var stderr strings.Builder
	cmd.Stderr = &stderr
	begin := time.Now()
	err := cmd.Run()
	took := float64(time.Since(begin).Microseconds()) / 1000
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, stderr.String())
	}
	return took, err
}

// after runs the client with args first, uncounted.
func after(measure func(*exec.Cmd) (float64, error), e engine, cmd *exec.Cmd, args ...string) (float64, error) {
	if _, err := timed(e.client(args...)); err != nil {
		return 0, err
	}
	return measure(cmd)
}

func withRemoval(run func(e engine, name string) (float64, error)) func(engine) (float64, error) {
	return func(e engine) (float64, error) {
		ms, err := run(e, "measured")
		_, err2 := timed(e.client("rm", "-f", "measured"))
		return ms, errors.Join(err, err2)
	}
}

func names(n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprintf("many%d", i))
	}
	return all
}

func many(e engine, n, clients int) (float64, error) {
	begin := time.Now()
	err := runMany(e, n, clients)
	took := float64(time.Since(begin).Microseconds()) / 1000
	_, err2 := timed(e.client(append([]string{"rm", "-f"}, names(n)...)...))
	return took, errors.Join(err, err2)
}

func runMany(e engine, n, clients int) error {
	work := make(chan string)
	failed := make(chan error, n)
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for name := range work {
				if _, err := timed(e.client("run", "-d", "--name", name, "busybox", "sleep", "1000")); err != nil {
					failed <- err
				}
			}
		})
	}
	for _, name := range names(n) {
		work <- name
	}
	close(work)
	wg.Wait()
	close(failed)
	return <-failed
}

func withMany(e engine, n int, run func() (float64, error)) (float64, error) {
	if err := runMany(e, n, 4); err != nil {
		return 0, err
	}
	v, err := run()
	_, err2 := timed(e.client(append([]string{"rm", "-f"}, names(n)...)...))
	return v, errors.Join(err, err2)
}

// once takes the measurement.
func (m measurement) once(e engine) (a answer) {
	var err error
	if m.prepare != nil {
		err = m.prepare(e)
	}
	switch {
	case err != nil:
	case m.inside != nil:
		var cost float64
		a.Value, cost, err = m.inside(e)
		a.More = []figure{{"processor time", "ms", cost}}
	case m.observe:
		a.Value, a.More, err = observed(e, func() (float64, error) { return m.run(e) })
	default:
		a.Value, err = m.run(e)
	}
	if err != nil {
		a.Error = err.Error()
	}
	return a
}

func all() []measurement {
	return slices.Concat(measurements, buildMeasurements, fileMeasurements, imageMeasurements, networkMeasurements, flowMeasurements(), storageMeasurements())
}

// serve measures what its standard input names, one JSON string a line.
func serve(name string) int {
	out := json.NewEncoder(os.Stdout)
	e, err := newEngine(name)
	if err == nil {
		err = e.start()
		defer e.stop()
	}
	if err != nil {
		out.Encode(answer{Error: err.Error()})
		return 1
	}
	out.Encode(answer{})
	in := json.NewDecoder(bufio.NewReader(os.Stdin))
	for {
		var want string
		if err := in.Decode(&want); err != nil || want == "end" {
			if err != nil && !errors.Is(err, io.EOF) {
				return 1
			}
			return 0
		}
		a := answer{Error: "unknown measurement"}
		for _, m := range all() {
			if m.name == want {
				a = m.once(e)
			}
		}
		out.Encode(a)
	}
}
