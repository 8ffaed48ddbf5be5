package network

import (
	"context"
	"testing"
)

// BenchmarkAttach is what a start waits for: an endpoint reserved and a pooled namespace plugged in, with and without
// a published port. The pool is filled outside the clock.
func BenchmarkAttach(b *testing.B) {
	for name, ports := range map[string][]PortRequest{"plain": nil, "published": {{Port: 80}}} {
		b.Run(name, func(b *testing.B) {
			newHost(b)
			br := restored(b, Config{})
			for b.Loop() {
				b.StopTimer()
				until(b, "a namespace is ready", func() bool { return len(br.pool.wires) > 0 })
				b.StartTimer()
				ep, err := br.Reserve("bench", ports)
				if err != nil {
					b.Fatal(err)
				}
				ns, err := br.Attach(context.Background(), ep)
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				ns.Close()
				if err := br.Release(ep); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
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
		ep := must(br.Reserve("bench", []PortRequest{{Port: 80}}))(b)
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
		ep := must(br.Reserve("bench", []PortRequest{{Port: 80}}))(b)
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
		must(br.Loopback())(b).Close()
	}
}
