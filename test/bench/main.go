// Command bench measures what a user waits for, on berth and on the engines
// that Debian packages, in one run, alternately, each in a world of its own.
//
// It prints absolute medians and their ratios; only the ratios mean something on a machine that others use too.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"berth/internal/kerneltest"
)

func main() {
	rounds := flag.Int("n", 10, "how often each thing is measured")
	only := flag.String("only", "", "measure only what has this in its name")
	with := flag.String("engines", strings.Join(engineNames, ","), "measure these")
	worker := flag.String("worker", "", "used by bench itself: serve one engine's measurements")
	many := flag.Int("load", 0, "instead of all that: start so many containers of ours at once, ask for them, stop them")
	flows := flag.Bool("flow", false, "used by bench itself: send, or take")
	task := flag.String("work", "", "used by bench itself: change files in a container")
	flag.Parse()
	if *flows || *task != "" {
		do := func() error { return work(*task) }
		if *flows {
			do = func() error { return flow(flag.Args()) }
		}
		if err := do(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if *worker != "" {
		os.Exit(kerneltest.World(func() int { return serve(*worker) }))
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "bench needs root: engines make namespaces and mounts. Try: sudo make bench")
		os.Exit(1)
	}
	if *many > 0 {
		os.Exit(kerneltest.World(func() int {
			if err := load(*many); err != nil {
				fmt.Fprintln(os.Stderr, "bench:", err)
				return 1
			}
			return 0
		}))
	}
	if err := compare(*rounds, *only, strings.Split(*with, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// answer is a worker's reply to one measurement.
type answer struct {
	Value float64 // milliseconds, or megabytes
	More  []figure
	Error string
}

// peer is one engine behind a worker process.
type peer struct {
	name string
	cmd  *exec.Cmd
	in   *json.Encoder
	out  *bufio.Reader
	got  map[string][]float64
	bad  map[string]string
}

func compare(rounds int, only string, engines []string) error {
	if slices.ContainsFunc(imageMeasurements, func(m measurement) bool { return strings.Contains(m.name, only) }) {
		if err := makeContent(); err != nil {
			return err
		}
	}
	var peers []*peer
	for _, name := range engines {
		p, err := start(name)
		if err != nil {
			fmt.Printf("%s: left out: %v\n", name, err)
			continue
		}
		defer p.stop()
		peers = append(peers, p)
	}
	order := slices.Clone(peers)
	header(peers)
	for _, m := range all() {
		if !strings.Contains(m.name, only) {
			continue
		}
		n := rounds
		if m.slow {
			n = max(1, rounds/10)
		}
		for i := range n + 1 {
			slices.Reverse(order)     // what one leaves behind, another finds
			for _, p := range order { // alternately, so that noise hits all alike
				if m.takes(p.name) {
					p.measure(m.name, i > 0) // the first round warms up
				}
			}
		}
		row(peers, m.name, m.name, m.unit) // at once, so that a run that is cut short was not for nothing
		if m.observe || m.inside != nil {
			row(peers, m.name+"processor time", "  processor time", "ms")
		}
		if m.observe {
			row(peers, m.name+"daemon's peak memory", "  daemon's peak memory", "MB")
		}
		if m.floor != "" {
			if err := showFloor(m.floor, peers[0].got[m.name]); err != nil {
				return err
			}
		}
	}
	fmt.Println("\nmedian (lowest tenth); ratio: how many times ours")
	for _, p := range peers {
		for name, e := range p.bad {
			fmt.Printf("failed: %s, %s: %s\n", p.name, name, e)
		}
	}
	return nil
}

func start(name string) (*peer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "-worker", name)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &peer{name: name, cmd: cmd, in: json.NewEncoder(in), out: bufio.NewReader(out), got: map[string][]float64{}, bad: map[string]string{}}
	if a := p.read(); a.Error != "" {
		p.stop()
		return nil, fmt.Errorf("%s", a.Error)
	}
	return p, nil
}

func (p *peer) read() (a answer) {
	line, err := p.out.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &a)
	}
	if err != nil {
		a.Error = "the worker ended: " + err.Error()
	}
	return a
}

func (p *peer) measure(name string, count bool) {
	p.in.Encode(name)
	switch a := p.read(); {
	case a.Error != "":
		p.bad[name] = a.Error
	case count:
		p.got[name] = append(p.got[name], a.Value)
		for _, f := range a.More {
			p.got[name+f.Name] = append(p.got[name+f.Name], f.Value)
		}
	}
}

func (p *peer) stop() {
	p.in.Encode("end")
	done := make(chan struct{})
	go func() { p.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(3 * time.Minute): // it removes what was measured
		p.cmd.Process.Kill()
		<-done
	}
}

func header(peers []*peer) {
	fmt.Printf("%-30s %4s", "", "unit")
	for i, p := range peers {
		fmt.Printf(" %17s", p.name)
		if i > 0 {
			fmt.Printf(" %8s", "ratio")
		}
	}
	fmt.Println()
}

// row prints a measurement: each peer's median, and how many times ours that is.
func row(peers []*peer, key, title, unit string) {
	fmt.Printf("%-30s %4s", title, unit)
	base := 0.0
	for i, p := range peers {
		mid, low := quantiles(p.got[key])
		if i == 0 {
			base = mid
		}
		text := "-"
		if len(p.got[key]) > 0 {
			text = fmt.Sprintf("%.2f (%.2f)", mid, low)
		}
		fmt.Printf(" %17s", text)
		switch {
		case i > 0 && base > 0 && mid > 0:
			fmt.Printf(" %8.1f", mid/base)
		case i > 0:
			fmt.Printf(" %8s", "-")
		}
	}
	fmt.Println()
}

func quantiles(v []float64) (median, low float64) {
	if len(v) == 0 {
		return 0, 0
	}
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2], v[len(v)/10]
}
