package image

import (
	"io"
	"sync"
)

// chunkSize balances the cost of handing a buffer over against the memory that a layer takes on its way:
// each pipe holds up to depth+2 of them.
const (
	chunkSize = 64 << 10
	depth     = 4
)

type chunk struct {
	data *[chunkSize]byte
	n    int
}

// chunks are the buffers of all pipes.
var chunks = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// pipe hands buffers from a goroutine that fills them to one that reads them, without copying. Unlike io.Pipe it
// has room, so that both work at the same time.
type pipe struct {
	full chan chunk
	gone chan struct{} // closed when the reader reads no more
	once sync.Once
	end  error // of the writer, set before full is closed
	cur  chunk
	off  int
}

func newPipe() *pipe {
	return &pipe{full: make(chan chunk, depth), gone: make(chan struct{})}
}

// send passes c on; false: the reader is gone, and the chunk with it.
func (p *pipe) send(c chunk) bool {
	select {
	case p.full <- c:
		return true
	case <-p.gone:
		chunks.Put(c.data)
		return false
	}
}

// finish ends the stream with err, io.EOF when it is complete.
func (p *pipe) finish(err error) {
	p.end = err
	close(p.full)
}

// next returns the next chunk, which now belongs to the caller; false: the stream has ended.
func (p *pipe) next() (chunk, bool) {
	c, ok := <-p.full
	return c, ok
}

// Read takes from the chunks in turn.
func (p *pipe) Read(b []byte) (int, error) {
	for p.off == p.cur.n {
		p.drop()
		c, ok := p.next()
		if !ok {
			return 0, p.end
		}
		p.cur, p.off = c, 0
	}
	n := copy(b, p.cur.data[p.off:p.cur.n])
	p.off += n
	return n, nil
}

// leave tells the writer that nobody reads any more, and gives the buffers back. It
// returns after the writer has finished.
func (p *pipe) leave() {
	p.once.Do(func() { close(p.gone) })
	p.drop()
	for c := range p.full {
		chunks.Put(c.data)
	}
}

func (p *pipe) drop() {
	if p.cur.data != nil {
		chunks.Put(p.cur.data)
	}
	p.cur, p.off = chunk{}, 0
}

// fill reads a chunk from r into a new buffer.
func fill(r io.Reader) (chunk, error) {
	c := chunk{data: chunks.Get().(*[chunkSize]byte)}
	err := c.fill(r)
	return c, err
}

// fill reads from r: not less than half a chunk unless r ends. r's error comes back as it is, so that an end and
// a cut stay apart.
func (c *chunk) fill(r io.Reader) error {
	for c.n = 0; c.n < chunkSize/2; {
		n, err := r.Read(c.data[c.n:])
		c.n += n
		if err != nil {
			return err
		}
	}
	return nil
}
