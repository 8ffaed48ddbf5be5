package archive

import "io"

// ahead reads a stream on a goroutine of its own, a bounded way ahead: the
// stream is inflated and hashed on one processor while files are made on another.
type ahead struct {
	full chan chunk
	free chan []byte
	stop chan struct{}
	done chan struct{}
	cur  chunk
	left []byte // of cur
}

type chunk struct {
	data []byte
	err  error // after data
}

const (
	aheadChunks = 4
	aheadSize   = 128 << 10
)

// newAhead reads from r until close, which the caller owes.
func newAhead(r io.Reader) *ahead {
	a := &ahead{full: make(chan chunk, aheadChunks), free: make(chan []byte, aheadChunks), stop: make(chan struct{}), done: make(chan struct{})}
	for range aheadChunks {
		a.free <- nil // made when first used: most streams are small
	}
	go a.fill(r)
	return a
}

func (a *ahead) fill(r io.Reader) {
	defer close(a.done)
	for {
		var buf []byte
		select {
		case <-a.stop:
			return
		case buf = <-a.free:
		}
		if buf == nil {
			buf = make([]byte, aheadSize)
		}
		n, err := 0, error(nil)
		for n < len(buf) && err == nil {
			var m int
			m, err = r.Read(buf[n:])
			n += m
		}
		a.full <- chunk{buf[:n], err} // never waits: there are no more chunks than places
		if err != nil {
			return
		}
	}
}

func (a *ahead) Read(p []byte) (int, error) {
	for len(a.left) == 0 {
		if a.cur.err != nil {
			return 0, a.cur.err
		}
		if a.cur.data != nil {
			a.free <- a.cur.data[:cap(a.cur.data)]
		}
		a.cur = <-a.full
		a.left = a.cur.data
	}
	n := copy(p, a.left)
	a.left = a.left[n:]
	return n, nil
}

// close waits for a Read that is under way; nobody touches the stream afterwards.
func (a *ahead) close() {
	close(a.stop)
	<-a.done
}
