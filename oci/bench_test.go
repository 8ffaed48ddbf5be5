package oci

import (
	"context"
	"os"
	"slices"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/internal/kerneltest"
	"berth/kernel/namespace"
	"berth/kernel/seccomp"
)

// asDocker is a bundle with what an engine's default container has: overlay, limits, filter.
func asDocker(b *testing.B, root string) func() *Bundle {
	filter, err := seccomp.Default(defaultCaps)
	if err != nil {
		b.Fatal(err)
	}
	layers := b.TempDir()
	limit := int64(256 << 20)
	n := 0
	return func() *Bundle {
		n++
		bundle := newBundle(b, root, "/bin/true")
		upper, work := b.TempDir(), b.TempDir()
		bundle.Rootfs = []specs.Mount{{Type: "overlay", Source: "overlay", Options: []string{"lowerdir+=" + layers, "lowerdir+=" + root, "upperdir=" + upper, "workdir=" + work}}}
		bundle.Spec.Linux.Seccomp = filter
		bundle.Spec.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}
		return bundle
	}
}

func benchmark(b *testing.B, builder string) {
	kerneltest.Root(b)
	next := asDocker(b, newRoot(b))
	var ns []*os.File
	var times spans
	for b.Loop() {
		b.StopTimer()
		bundle := next()
		f, err := namespace.NewNet() // as from the network's pool
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		begin := time.Now()
		p, err := create(context.Background(), bundle, Stdio{}, f, options{builder: builder})
		if err != nil {
			b.Fatal(err)
		}
		if err := p.Start(); err != nil {
			b.Fatal(err)
		}
		if _, err := p.Wait(); err != nil {
			b.Fatal(err)
		}
		times = append(times, time.Since(begin))
		b.StopTimer()
		if err := p.Delete(); err != nil {
			b.Fatal(err)
		}
		ns = append(ns, f)
		b.StartTimer()
	}
	for _, f := range ns {
		f.Close()
	}
	times.report(b)
}

// spans are single runs; on a busy machine their tenth percentile is close to what a quiet one takes.
type spans []time.Duration

func (s spans) report(b *testing.B) {
	slices.Sort(s)
	b.ReportMetric(float64(s[len(s)/10])/1e6, "p10-ms")
	b.ReportMetric(float64(s[len(s)/2])/1e6, "p50-ms")
}

// BenchmarkDirect is builder B, BenchmarkIndirect builder A: request to reaped, with a default
// container's mounts, limits and filter; the network namespace and the layers are there before, and removal is after.
func BenchmarkDirect(b *testing.B)   { benchmark(b, "direct") }
func BenchmarkIndirect(b *testing.B) { benchmark(b, "indirect") }

// BenchmarkUserNamespace is BenchmarkIndirect with ids of the container's own: what id-mapped layers, and all that is made
// outside, add. Its network namespace, which can't come from a pool, is measured by BenchmarkOwnedNet.
func BenchmarkUserNamespace(b *testing.B) {
	kerneltest.Root(b)
	root := newRoot(b)
	ids := idsFrom(300000)
	var times spans
	for b.Loop() {
		bundle, _ := mapped(b, root, 300000, "/bin/true")
		netns, err := namespace.NewOwnedNet(ids, ids)
		if err != nil {
			b.Fatal(err)
		}
		begin := time.Now()
		p, err := Create(context.Background(), bundle, Stdio{}, netns)
		if err != nil {
			b.Fatal(err)
		}
		if err := p.Start(); err != nil {
			b.Fatal(err)
		}
		if _, err := p.Wait(); err != nil {
			b.Fatal(err)
		}
		times = append(times, time.Since(begin))
		if err := p.Delete(); err != nil {
			b.Fatal(err)
		}
		netns.Close()
	}
	times.report(b)
}

// BenchmarkOwnedNet is the making of a network namespace together with its user namespace.
func BenchmarkOwnedNet(b *testing.B) {
	kerneltest.Root(b)
	var times spans
	for b.Loop() {
		begin := time.Now()
		netns, err := namespace.NewOwnedNet(idsFrom(300000), idsFrom(300000))
		if err != nil {
			b.Fatal(err)
		}
		times = append(times, time.Since(begin))
		netns.Close()
	}
	times.report(b)
}

// BenchmarkExec is one more process in a running container: request to reaped.
func BenchmarkExec(b *testing.B) {
	kerneltest.Root(b)
	bundle := newBundle(b, newRoot(b), "/bin/sleep", "1000")
	p, err := Create(context.Background(), bundle, Stdio{}, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { p.Signal(9); p.Wait(); p.Delete() }()
	if err := p.Start(); err != nil {
		b.Fatal(err)
	}
	spec := ExecSpec{Process: specs.Process{Args: []string{"/bin/true"}, Cwd: "/", Env: []string{"PATH=/bin"}}}
	var times spans
	for b.Loop() {
		begin := time.Now()
		x, err := Exec(context.Background(), p.Pid(), bundle, spec, Stdio{})
		if err != nil {
			b.Fatal(err)
		}
		if e, err := x.Wait(); err != nil || e.Code != 0 {
			b.Fatal(e, err)
		}
		times = append(times, time.Since(begin))
	}
	times.report(b)
}
