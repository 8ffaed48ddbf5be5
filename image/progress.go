package image

import (
	"io"
	"sync"
	"time"
)

// The words of an Event's Status, which clients match on.
const (
	StatusWaiting    = "Waiting"
	StatusPulling    = "Pulling fs layer"
	StatusDownload   = "Downloading"
	StatusVerifying  = "Verifying Checksum"
	StatusDownloaded = "Download complete"
	StatusExtracting = "Extracting"
	StatusComplete   = "Pull complete"
	StatusExists     = "Already exists"
	StatusLoading    = "Loading layer"
	StatusPreparing  = "Preparing"
	StatusPushing    = "Pushing"
	StatusPushed     = "Pushed"
	StatusThere      = "Layer already exists"
	StatusMounted    = "Mounted from " // and the path of a repository
)

// Event is one step of a layer on its way into the store.
type Event struct {
	ID             string // the layer's short id: 12 digits of its blob's digest
	Status         string // one of the Status words
	Current, Total int64  // bytes; both 0 where the status has no measure
}

// Progress takes events. Calls come one at a time, and none after the operation has returned; a nil Progress takes none.
type Progress func(Event)

// reporter keeps Progress's promises, whatever goroutine an event comes from.
type reporter struct {
	mu sync.Mutex
	to Progress // nil: nobody listens, or no more
}

func (r *reporter) tell(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.to != nil {
		r.to(e)
	}
}

func (r *reporter) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.to = nil
}

// meter reports how much of a stream has passed, ten times a second at most.
type meter struct {
	event Event
	to    func(Event)
	last  time.Time
}

func (m *meter) add(n int) {
	m.event.Current += int64(n)
	if now := time.Now(); now.Sub(m.last) >= 100*time.Millisecond {
		m.last = now
		m.to(m.event)
	}
}

// metered is a reader that reports to a meter.
type metered struct {
	io.Reader
	m *meter
}

// Read passes bytes on and counts them.
func (r metered) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.m.add(n)
	return n, err
}
