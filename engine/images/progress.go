package images

import (
	"berth/image"

	"github.com/moby/moby/api/types/jsonstream"
)

// showProgress turns a layer's steps into the wire's messages.
func showProgress(out func(jsonstream.Message)) image.Progress {
	return func(e image.Event) {
		m := jsonstream.Message{ID: e.ID, Status: e.Status, Progress: &jsonstream.Progress{}}
		if e.Total > 0 || e.Current > 0 {
			m.Progress.Current, m.Progress.Total = e.Current, e.Total
		}
		out(m)
	}
}
