package names

import (
	"bytes"
	"encoding/json"
	"os"

	"berth/fault"
	"berth/kernel"
)

// Conn is one end of the talk. One goroutine uses it at a time.
type Conn struct {
	sock *os.File
	rest []byte
}

// NewConn talks over a socket, which it takes over.
func NewConn(sock *os.File) *Conn { return &Conn{sock: sock} }

// Close closes the socket.
func (c *Conn) Close() error { return c.sock.Close() }

// Send sends a message; files stay the caller's.
func (c *Conn) Send(message any, files ...*os.File) error {
	data, err := json.Marshal(message)
	if err != nil {
		return err
	}
	if len(data) >= MessageLimit {
		return fault.New(fault.Invalid, "a message of %d bytes is too long", len(data))
	}
	return kernel.SendFiles(c.sock, append(data, '\n'), files)
}

// Receive waits for a message and the files that come with it, which are the caller's to close. io.EOF: the other end is gone.
func (c *Conn) Receive(message any) (files []*os.File, err error) {
	defer func() {
		if err != nil {
			kernel.CloseAll(files)
			files = nil
		}
	}()
	for {
		if k := bytes.IndexByte(c.rest, '\n'); k >= 0 {
			err := json.Unmarshal(c.rest[:k], message)
			if c.rest = c.rest[k+1:]; len(c.rest) == 0 {
				c.rest = nil // an idle connection holds no memory
			}
			return files, fault.Wrap(fault.Invalid, err)
		}
		if len(c.rest) > MessageLimit || len(files) > 2 {
			return files, fault.New(fault.Invalid, "a message without end")
		}
		if err := kernel.AwaitReadable(c.sock); err != nil {
			return files, err
		}
		buf := make([]byte, 16<<10)
		n, more, err := kernel.ReceiveFiles(c.sock, buf)
		files = append(files, more...)
		if err != nil {
			return files, err
		}
		c.rest = append(c.rest, buf[:n]...)
	}
}
