package daemon

import (
	"net/http"

	"berth/engine"
	"berth/fault"

	"github.com/moby/moby/api/types/container"
)

// stats sends its header at once, as clients of a stream wait for it.
func (s containers) stats(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	o := engine.StatsRequest{Stream: q.Get("stream") == "" || flag(q, "stream"), OneShot: flag(q, "one-shot")}
	if o.Stream && o.OneShot {
		return fault.New(fault.Invalid, "cannot have stream=true and one-shot=true")
	}
	out := newLines(w)
	return s.engine.Stats(r.Context(), r.PathValue("id"), o, func() error { return begin(w, "application/json") },
		func(sample *container.StatsResponse) error { return out.write(sample) })
}
