package shim

import (
	"os"

	"berth/kernel"
)

// Pair returns a connection within this process: theirs goes into an Attachment, and a process's output comes
// out of mine, which the caller closes. Reads of it obey deadlines.
func Pair() (mine, theirs *os.File, err error) { return kernel.SocketPair("attachment") }
