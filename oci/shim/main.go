package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"berth/kernel"
	"berth/oci"
)

// requestFD is where a spare finds its socket.
const requestFD = 3

// Main is the supervisor's own program. A main function calls it with what follows its "shim" argument,
// after oci.InitMain, and ends with the code that it returns. The argument is the directory of all run directories.
func Main(args []string) int { return mainWith(args, builder{create, exec}) }

func create(ctx context.Context, b *oci.Bundle, io oci.Stdio, netns *os.File) (container, error) {
	return oci.Create(ctx, b, io, netns)
}

func exec(ctx context.Context, pid int, b *oci.Bundle, e oci.ExecSpec, io oci.Stdio) (container, error) {
	return oci.Exec(ctx, pid, b, e, io)
}

func mainWith(args []string, b builder) int {
	if len(args) != 1 {
		fmt.Fprintln(os.Stderr, "shim: this is started by the engine, with a socket as file 3 and its directory as the argument")
		return 2
	}
	prepare()
	err := serve(os.NewFile(requestFD, "engine"), args[0], b)
	if err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprintln(os.Stderr, "shim:", err)
		return 1
	}
	return 0
}

// prepare makes this process one that nobody's end can take along, and a small one. A spare
// does it before it is needed.
func prepare() {
	kernel.Setsid()
	kernel.CloseInherited(requestFD + 1) // whatever came down from the daemon's own parent
	// Caught rather than ignored: what is ignored stays so in the programs that the container runs (signal(7)).
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	os.WriteFile("/proc/self/comm", []byte("berth-shim"), 0)
	debug.SetGCPercent(10)
	warmUp()
}

// warmUp fills the JSON package's tables for the types of a request.
func warmUp() {
	a, b, err := kernel.SocketPair("warm up")
	if err != nil {
		return
	}
	defer b.Close()
	defer a.Close()
	if send(a, &message{Op: opStart, Start: &Request{}}) == nil {
		receive(b)
	}
}
