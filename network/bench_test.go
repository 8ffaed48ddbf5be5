package network

import (
	"context"
	"slices"
	"testing"
	"time"
)

// BenchmarkAttach is what a start waits for: an endpoint reserved and a pooled namespace plugged in, with and without
// a published port. The pool is filled outside the clock.
func BenchmarkAttach(b *testing.B) {
	for name, ports := range map[string][]PortRequest{"plain": nil, "published": {{Port: 80}}} {
		b.Run(name, func(b *testing.B) {
			newHost(b)
			br := restored(b, Config{})
			var took []time.Duration
			for b.Loop() {
				b.StopTimer()
				until(b, "the pool is full", func() bool { return len(br.pool.wires) == cap(br.pool.wires) })
				b.StartTimer()
				start := time.Now()
				ep, err := br.Reserve("bench", onDefault(br), ports)
				if err != nil {
					b.Fatal(err)
				}
				ns, err := br.Attach(context.Background(), ep)
				if err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(start))
				b.StopTimer()
				ns.Close()
				if err := br.Release(ep); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			// On a busy machine the mean says little.
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[len(took)/10].Microseconds()), "p10-µs")
		})
	}
}

// BenchmarkRelease is what a removal waits for.
func BenchmarkRelease(b *testing.B) {
	newHost(b)
	br := restored(b, Config{})
	for b.Loop() {
		b.StopTimer()
		until(b, "a namespace is ready", func() bool { return len(br.pool.wires) > 0 })
		ep := must(br.Reserve("bench", onDefault(br), []PortRequest{{Port: 80}}))(b)
		ns := must(br.Attach(context.Background(), ep))(b)
		ns.Close()
		b.StartTimer()
		if err := br.Release(ep); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkChurn is start and end back to back, with the pool refilled meanwhile: what `run --rm` in a loop meets.
func BenchmarkChurn(b *testing.B) {
	newHost(b)
	br := restored(b, Config{})
	for b.Loop() {
		ep := must(br.Reserve("bench", onDefault(br), []PortRequest{{Port: 80}}))(b)
		ns := must(br.Attach(context.Background(), ep))(b)
		ns.Close()
		if err := br.Release(ep); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLoopback(b *testing.B) {
	newHost(b)
	br := restored(b, Config{})
	for b.Loop() {
		must(br.Loopback(Owner{}))(b).Close()
	}
}

// BenchmarkPortNotes is what a container's creation with a published port pays for the look at other firewalls.
func BenchmarkPortNotes(b *testing.B) {
	newHost(b)
	h := restored(b, Config{Pool: -1})
	on, ports := []string{standard(h).ID}, []PortRequest{{HostPort: 8080, Port: 80}}
	for b.Loop() {
		h.Firewalls().PortNotes(on, ports)
	}
}
