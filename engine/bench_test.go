package engine

import (
	"testing"

	api "github.com/moby/moby/api/types/container"
)

// BenchmarkRun is docker run --rm without its client: create, attach, wait, start, end.
func BenchmarkRun(b *testing.B) {
	for _, mode := range []string{"none", "bridge"} {
		b.Run(mode, func(b *testing.B) {
			w := newWorldWith(b, func(c *Config) { c.Network.Pool, c.Spares = 0, 2 })
			b.ResetTimer()
			for b.Loop() {
				got := w.run(func(r *CreateRequest) { r.HostConfig.NetworkMode = api.NetworkMode(mode) }, "true")
				if got.code != 0 {
					b.Fatalf("%+v", got)
				}
			}
		})
	}
}

// BenchmarkCreate is the engine's share before a start.
func BenchmarkCreate(b *testing.B) {
	w := newWorld(b)
	for b.Loop() {
		id := w.create(func(r *CreateRequest) { r.HostConfig.AutoRemove = true }, "true")
		if err := w.Containers.Remove(b.Context(), id, RemoveOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}
