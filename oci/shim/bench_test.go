package shim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/internal/kerneltest"
	"berth/oci"
)

// BenchmarkStart compares a start through a supervisor with the same in this very process, alternately; the difference is what
// the supervisor costs. To the exit is with the wait for it.
func BenchmarkStart(b *testing.B) {
	l := benchLauncher(b)
	image := root(b)
	ctx := context.Background()
	var here, shim, exit []time.Duration
	for i := range b.N {
		bundle := describe(fmt.Sprintf("here%d", i), image, "/bin/true")
		began := time.Now()
		p, err := oci.Create(ctx, &bundle, oci.Stdio{}, nil)
		if err == nil {
			err = p.Start()
		}
		if err != nil {
			b.Fatal(err)
		}
		here = append(here, time.Since(began))
		p.Wait()
		p.Delete()

		eventually(b, "spares", func() bool {
			l.spares.mu.Lock()
			defer l.spares.mu.Unlock()
			return len(l.spares.idle) == l.spares.want
		})
		r := Request{Bundle: describe(fmt.Sprintf("shim%d", i), image, "/bin/true")}
		began = time.Now()
		s, err := l.Start(ctx, r)
		if err != nil {
			b.Fatal(err)
		}
		shim = append(shim, time.Since(began))
		if _, err := s.Wait(ctx); err != nil {
			b.Fatal(err)
		}
		exit = append(exit, time.Since(began))
		discard(b, l, s)
	}
	for name, times := range map[string][]time.Duration{"here-ms": here, "shim-ms": shim, "to-exit-ms": exit} {
		slices.Sort(times)
		b.ReportMetric(times[len(times)/2].Seconds()*1000, name)
	}
	b.ReportMetric((shim[len(shim)/2]-here[len(here)/2]).Seconds()*1000, "added-ms")
	b.ReportMetric(0, "ns/op")
}

func benchLauncher(b *testing.B) *Launcher {
	b.Helper()
	kerneltest.Root(b)
	dir, err := os.MkdirTemp("/run", "shim") // the world's tmpfs
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	l, err := NewLauncher(build(b, "berth/cmd/berth-oci"), dir, 2)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	return l
}

func BenchmarkExec(b *testing.B) {
	l := benchLauncher(b)
	s := start(b, l, Request{Bundle: bundle(b, "/bin/sleep", "1000")})
	var times []time.Duration
	for i := range b.N {
		id := strconv.Itoa(i)
		began := time.Now()
		if _, err := s.Exec(context.Background(), execRequest(id, "/bin/true")); err != nil {
			b.Fatal(err)
		}
		if _, err := s.ExecWait(context.Background(), id); err != nil {
			b.Fatal(err)
		}
		times = append(times, time.Since(began))
	}
	slices.Sort(times)
	b.ReportMetric(times[len(times)/2].Seconds()*1000, "median-ms")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkOutput is a flood through pipe, log and one attached client.
func BenchmarkOutput(b *testing.B) {
	l := benchLauncher(b)
	r := request(b, "/bin/sh", "-c", fmt.Sprintf("yes 'a line of output as programs write it, sixty-four bytes or so...' | head -c %d", 1<<20*b.N))
	a, client := peerOf(b, Attachment{Stdout: true})
	r.Attach = []Attachment{a}
	b.SetBytes(1 << 20)
	s := start(b, l, r)
	readToEnd(b, client)
	wait(b, s)
}

// BenchmarkIdleMemory reports what one idle supervisor of many takes, in KB (proportional set size, proc_pid_smaps_rollup).
func BenchmarkIdleMemory(b *testing.B) {
	l := benchLauncher(b)
	image := root(b)
	const n = 60
	var pids []int
	for i := range n {
		r := Request{Bundle: describe(fmt.Sprintf("idle%d", i), image, "/bin/sleep", "1000"), Log: request(b).Log}
		pids = append(pids, start(b, l, r).state.Shim)
	}
	last, since := 0, time.Now()
	eventually(b, "it is quiet", func() bool {
		if now := pss(b, pids); now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) > 3*quiet
	})
	b.ReportMetric(float64(last)/n, "KB/shim")
	b.ReportMetric(0, "ns/op")
}

func pss(b *testing.B, pids []int) (kb int) {
	for _, pid := range pids {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if errors.Is(err, syscall.ESRCH) {
			return 0 // it is just executing itself anew: ask again
		}
		if err != nil {
			b.Fatal(err)
		}
		_, after, _ := strings.Cut(string(data), "\nPss:")
		n, err := strconv.Atoi(strings.Fields(after)[0])
		if err != nil {
			b.Fatal(err)
		}
		kb += n
	}
	return kb
}

// BenchmarkLog is the log's share of the output: cutting lines and making records of them, without the disk.
func BenchmarkLog(b *testing.B) {
	l := &logger{Log: Log{Path: os.DevNull}}
	var err error
	if l.file, err = os.OpenFile(os.DevNull, os.O_WRONLY, 0); err != nil {
		b.Fatal(err)
	}
	defer l.file.Close()
	data := bytes.Repeat([]byte("a line of output as programs write it, sixty-four bytes or so...\n"), 500)
	var s splitter
	now := time.Now()
	line := func(text []byte, last bool, at time.Time) { l.add("stdout", text, last, at) }
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		s.feed(data, now, line)
		l.flush()
	}
}
