package daemon

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"

	"berth/engine"
	"github.com/moby/moby/api/types"
	"github.com/moby/moby/api/types/events"
)

// events streams what happens. Below API 1.52 an event carries the fields of the first releases too.
func (s *Server) events(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	filters, err := parseFilters(q.Get("filters"))
	if err != nil {
		return err
	}
	since, err := parseTime("since", q.Get("since"))
	if err != nil {
		return err
	}
	until, err := parseTime("until", q.Get("until"))
	if err != nil {
		return err
	}
	past, sub, err := s.engine.Events.Subscribe(engine.EventsRequest{Since: since, Until: until, Filters: filters})
	if err != nil {
		return err
	}
	defer sub.Close()
	kind := eventType(r)
	if err := begin(w, kind); err != nil {
		return err
	}
	send := eventWriter(flushing{w}, kind, versionOf(r))
	for m := range past {
		if err := send(m); err != nil {
			return err
		}
	}
	for {
		select {
		case m, ok := <-sub.C:
			if !ok {
				return nil
			}
			if err := send(m); err != nil {
				return err
			}
		case <-r.Context().Done():
			return nil
		}
	}
}

// recordSeparator begins each text of a JSON sequence (RFC 7464).
const recordSeparator = '\x1e'

// eventWriter gives a function that writes one event, whole, in the form that the media type says.
func eventWriter(w io.Writer, kind types.MediaType, v apiVersion) func(events.Message) error {
	return func(m events.Message) error {
		var b strings.Builder
		if kind == types.MediaTypeJSONSequence {
			b.WriteByte(recordSeparator)
		}
		enc := json.NewEncoder(&b) // ends each document with a line feed
		enc.SetEscapeHTML(false)
		var err error
		if v < 52 {
			err = enc.Encode(oldEvent{m, string(m.Action), m.Actor.ID, m.Actor.Attributes["image"]})
		} else {
			err = enc.Encode(m)
		}
		if err == nil {
			_, err = io.WriteString(w, b.String())
		}
		return err
	}
}

// oldEvent is an event as clients below API 1.52 read it.
type oldEvent struct {
	events.Message
	Status string `json:"status,omitempty"`
	ID     string `json:"id,omitempty"`
	From   string `json:"from,omitempty"`
}

// eventType is the media type that the client likes best among those the stream fits; it is asked since API 1.52. One that takes
// anything, or nothing that we have, gets what all clients before got.
func eventType(r *http.Request) types.MediaType {
	best, weight := types.MediaTypeJSON, 0.0
	if versionOf(r) < 52 {
		return best
	}
	for _, header := range r.Header.Values("Accept") {
		for _, accepted := range strings.Split(header, ",") {
			kind, parameters, _ := strings.Cut(accepted, ";")
			kind = strings.ToLower(strings.TrimSpace(kind))
			switch kind {
			case "*/*", "application/*":
				kind = types.MediaTypeJSON
			case types.MediaTypeJSON, types.MediaTypeNDJSON, types.MediaTypeJSONLines, types.MediaTypeJSONSequence:
			default:
				continue
			}
			if q := quality(parameters); q > weight { // of equals the first one
				best, weight = kind, q
			}
		}
	}
	return best
}

// quality reads the weight of an accepted type (RFC 9110, section 12.4.2); 1 when it has none that can be read.
func quality(parameters string) float64 {
	for _, p := range strings.Split(parameters, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(p), "=")
		if strings.EqualFold(name, "q") {
			if q, err := strconv.ParseFloat(value, 64); err == nil && q >= 0 && q <= 1 {
				return q
			}
		}
	}
	return 1
}
