package shim

import (
	"os"
	"time"

	"berth/kernel"
)

// reading is how long a client may take to read its answer before it gets output, too.
const reading = 50 * time.Millisecond

// Greet writes the answer to an attaching client and waits, a moment at most, until it was read. Docker's library for
// Python reads the header through a buffer that it then throws away, with any output that came as early.
func Greet(conn *os.File, answer []byte) error {
	if len(answer) == 0 {
		return nil
	}
	if _, err := conn.Write(answer); err != nil {
		return err
	}
	kernel.AwaitTaken(conn, reading)
	return nil
}
