package shim

import (
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"berth/fault"
	"berth/kernel"
)

const (
	// detachPatience is how long a client that leaves is given to take the output that was on its way to it.
	detachPatience = time.Second
	// linger is how long a client's last input is waited for before its connection is closed: closing a TCP
	// socket with unread input resets it, and the client would lose output that it has not read yet.
	linger = 500 * time.Millisecond
)

// client is one attached connection.
type client struct {
	Attachment
	s       *stdio
	writing sync.Mutex  // held over a write, and over the replay of the log
	gone    bool        // under writing: nothing more is written
	silent  atomic.Bool // its input has ended
}

// attach begins to serve a. Its connection is closed in the end, or now on an error.
func (s *stdio) attach(a Attachment) error {
	conn, err := kernel.Pollable(a.Conn)
	if err != nil {
		return err
	}
	a.Conn = conn
	c := &client{Attachment: a, s: s}
	c.writing.Lock() // copiers wait until the replay is done, so there is no gap and no double
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		conn.Close()
		return fault.New(fault.Conflict, "attach: the process has ended")
	}
	var files []io.Closer
	var parts []io.Reader
	rest := make(map[byte][]byte) // unfinished lines, which the log has not
	if a.Logs {
		files, parts = s.log.snapshot()
		for _, st := range s.streams {
			rest[st.number] = slices.Clone(st.split.pending)
		}
	}
	over := s.over
	if !over && !a.NoStream {
		s.clients = append(slices.Clone(s.clients), c)
	}
	s.serving.Add(1)
	s.served++
	s.mu.Unlock()
	go func() {
		defer s.serving.Done()
		defer s.sup.memory.used(wholeRound)
		defer func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.served--
		}()
		defer conn.Close()
		c.replay(io.MultiReader(parts...), rest)
		for _, f := range files {
			f.Close()
		}
		c.writing.Unlock()
		if over || a.NoStream {
			c.finish()
		}
		c.input()
		c.drop()
	}()
	return nil
}

// wants tells whether the client asked for a stream.
func (c *client) wants(stream byte) bool {
	return stream == streamOut && c.Stdout || stream == streamErr && c.Stderr
}

// write passes output on, after room for the frame's header. It waits as long as the client does not read.
func (c *client) write(stream byte, frame []byte) {
	if !c.wants(stream) {
		return
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	c.put(frame)
}

// put writes under the lock.
func (c *client) put(frame []byte) {
	if c.gone {
		return
	}
	if !c.Frames {
		frame = frame[frameHeader:]
	}
	if _, err := c.Conn.Write(frame); err != nil {
		c.broken()
	}
}

// broken drops a client that can't be written to, under the lock.
func (c *client) broken() {
	c.gone = true
	c.forget()
	c.Conn.Close() // ends input
}

// forget takes the client off the list.
func (c *client) forget() {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if i := slices.Index(c.s.clients, c); i >= 0 {
		c.s.clients = slices.Delete(slices.Clone(c.s.clients), i, i+1)
	}
}

// drop ends a client that is not worth waiting for any more.
func (c *client) drop() {
	c.forget()
	c.Conn.Close() // a writer that waits gives up
	c.writing.Lock()
	defer c.writing.Unlock()
	c.gone = true
}

// finish ends the client in good order: what is being written goes out whole, the client
// reads to the end, and its input gets a moment to end too.
func (c *client) finish() {
	c.forget()
	c.writing.Lock()
	defer c.writing.Unlock()
	if !c.gone {
		c.gone = true
		kernel.CloseWrite(c.Conn)
		patience := time.Duration(linger)
		if c.silent.Load() {
			patience = 0
		}
		c.Conn.SetReadDeadline(time.Now().Add(patience))
	}
}

// detach is finish for a client that leaves on its own while the process goes on.
func (c *client) detach() {
	c.Conn.SetWriteDeadline(time.Now().Add(detachPatience))
	c.finish()
}

// input takes what the client sends until it hangs up.
func (c *client) input() {
	keys := newDetector(c.DetachKeys)
	c.take(keys, c.Buffered)
	c.Buffered = nil
	for {
		if err := kernel.AwaitReadable(c.Conn); err != nil {
			c.endOfInput(keys, err)
			return
		}
		if err := c.read(keys); err != nil && err != kernel.ErrWouldBlock {
			c.endOfInput(keys, err)
			return
		}
	}
}

func (c *client) read(keys *detector) error {
	buf := c.s.sup.chunks.Get().(*chunk)
	defer c.s.sup.chunks.Put(buf)
	n, err := kernel.TryRead(c.Conn, buf[:])
	if err == nil {
		c.take(keys, buf[:n])
	}
	return err
}

// take passes input on. After the detach keys the rest of it is dropped.
func (c *client) take(keys *detector, in []byte) {
	if !c.Stdin {
		return
	}
	if len(c.DetachKeys) == 0 {
		c.s.feed(in)
		return
	}
	pass, detached := keys.feed(nil, in)
	c.s.feed(pass)
	if detached {
		c.Stdin, c.HangUp = false, false
		c.detach()
		c.s.sup.tellLeft(c.s.exec)
	}
}

// endOfInput decides what the end of the client's input means: the end of the process's input with
// StdinOnce, else that the client leaves. One that only listens has ended its input at the beginning as a rule.
func (c *client) endOfInput(keys *detector, err error) {
	c.silent.Store(true)
	if c.Stdin {
		c.s.feed(keys.held())
		if !c.s.once && !c.HangUp {
			c.detach()
			return
		}
		c.s.closeStdin()
	}
	if err == io.EOF {
		kernel.AwaitHangup(c.Conn)
	}
	if c.HangUp {
		c.s.hangUpProcess()
	}
}
