// Command agent asks the ssh agent at SSH_AUTH_SOCK which keys it has, and prints their comments.
package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
)

// The messages of an agent (draft-miller-ssh-agent, section 5).
const (
	requestIdentities = 11
	identitiesAnswer  = 12
)

func main() {
	if err := list(os.Getenv("SSH_AUTH_SOCK")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func list(socket string) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte{0, 0, 0, 1, requestIdentities}); err != nil {
		return err
	}
	body, err := text(conn)
	if err != nil {
		return err
	}
	if len(body) < 5 || body[0] != identitiesAnswer {
		return fmt.Errorf("the agent answered %v", body)
	}
	rest := &rest{body[5:]}
	for range binary.BigEndian.Uint32(body[1:]) {
		if _, err := text(rest); err != nil { // the key
			return err
		}
		comment, err := text(rest)
		if err != nil {
			return err
		}
		fmt.Printf("key %s\n", comment)
	}
	return nil
}

type rest struct{ left []byte }

func (r *rest) Read(p []byte) (int, error) {
	n := copy(p, r.left)
	if r.left = r.left[n:]; n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// text reads bytes after their count.
func text(r io.Reader) ([]byte, error) {
	var n uint32
	if err := binary.Read(r, binary.BigEndian, &n); err != nil {
		return nil, err
	}
	if n > 1<<20 {
		return nil, fmt.Errorf("%d bytes", n)
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return b, err
}
