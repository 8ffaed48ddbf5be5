package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"berth/kernel"
	"berth/kernel/cgroup"
	"berth/oci"
	"berth/oci/foreign"
)

// requestFD is where a spare finds its socket.
const requestFD = 3

// Main is the supervisor's own program. A main function calls it with what follows its "shim" argument,
// after oci.InitMain, and ends with the code that it returns. The argument is the directory of all run directories.
func Main(args []string) int {
	m := maker{others: new(foreign.Keeper)}
	return mainWith(args, builder{m.create, m.exec, adopt})
}

// maker makes processes, ours or another runtime's.
type maker struct{ others *foreign.Keeper }

func (m maker) create(ctx context.Context, b *oci.Bundle, io oci.Stdio, netns *os.File) (container, error) {
	if b.Foreign != nil {
		return m.others.Create(ctx, b, io, netns)
	}
	return oci.Create(ctx, b, io, netns)
}

func (m maker) exec(ctx context.Context, pid int, b *oci.Bundle, e oci.ExecSpec, io oci.Stdio) (container, error) {
	if b.Foreign != nil {
		return m.others.Exec(ctx, pid, b, e, io)
	}
	return oci.Exec(ctx, pid, b, e, io)
}

func adopt(h oci.Hold) container { return oci.Adopt(h) }

func mainWith(args []string, b builder) int {
	var err error
	switch len(args) {
	case 1:
		prepare()
		err = serve(os.NewFile(requestFD, "engine"), args[0], b)
	case 2:
		err = resume(args[0], args[1], b)
	default:
		fmt.Fprintln(os.Stderr, "shim: this is started by the engine, with a socket as file 3 and its directory as the argument")
		return 2
	}
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
	settle()
	warmUp()
}

// settle is what executing a program undoes.
func settle() {
	// That these stay ignored in what is executed (signal(7)) is known to oci, which sets them right. Catching them takes two threads.
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	os.WriteFile("/proc/self/comm", []byte("berth-shim"), 0)
}

// warmUp has the code of the first request in memory, and what this machine has looked up, before that comes.
func warmUp() {
	decode([]byte(`{"op":"start","start":{"bundle":{"spec":{"process":{"args":["x"]}}},"attach":[{}]}}`), new(call))
	encode(&answer{State: new(State), Exit: new(oci.Exit)})
	cgroup.Detect()
}
