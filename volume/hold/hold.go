// Package hold keeps a file system mounted in a mount namespace of its own, where one process per mount, the holder, does nothing but live.
//
// It is not a mount table and counts no users: who needs a mount, and how long, is decided above. Invariant: the mount is where its holder is and
// nowhere else, so the end of that process, however it comes, is the whole of unmounting; and a holder whose existence nobody has recorded ends by itself.
//
// A process for each mount, and not one for all: mount(2) of a server that does not answer waits in the kernel, and only a process can be
// killed out of that.
package hold

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"sync"
	"syscall"
	"time"

	"berth/fault"
	"berth/kernel"
	"berth/kernel/namespace"
)

// Mounting is what is to be mounted.
type Mounting struct {
	Type, Device string
	Options      []string // as behind -o of mount(8): the mount's and the file system's own
}

// Held is a mount and its holder. It can be recorded: pid, start and boot name the process for good.
type Held struct {
	Pid   int
	Start uint64 // in clock ticks since boot
	Boot  string
	Place string // the top of the mount, in the holder's mount namespace
}

// Path is the top of the mount for who may look into the holder; it can be cloned from there only, not bound (open_tree(2)).
func (h Held) Path() string { return fmt.Sprintf("/proc/%d/root%s", h.Pid, h.Place) }

// Alive tells whether the mount is there.
func (h Held) Alive() bool {
	boot, err := kernel.BootID()
	if err != nil || boot != h.Boot {
		return false
	}
	start, err := kernel.StartTime(h.Pid)
	return err == nil && start == h.Start
}

// End unmounts; who has the mount elsewhere keeps it there. It returns when the holder is gone.
func (h Held) End() error {
	pidfd, err := kernel.OpenPid(h.Pid)
	if err != nil {
		if !h.Alive() {
			return nil
		}
		return err
	}
	defer pidfd.Close()
	if !h.Alive() { // looked at behind the descriptor: the number is not another's
		return nil
	}
	if err := kernel.SignalPid(pidfd, killSignal); err != nil && !kernel.IsGone(err) {
		return err
	}
	return kernel.AwaitEnd(pidfd, patience)
}

const (
	killSignal = 9
	patience   = 20 * time.Second // for the end of a killed process
)

// Keeper starts holders. Its methods may be called concurrently.
type Keeper struct {
	Program string        // that calls Main when its first argument is Arg
	Limit   time.Duration // of one mount; 0: a minute

	end     chan struct{}
	once    sync.Once
	watched sync.WaitGroup
	mu      sync.Mutex
}

// Arg is the first argument of a holder's program.
const Arg = "hold"

// answer is what a holder says of its mount.
type answer struct {
	Place string
	Error string
	Errno int // of the system call that failed; 0: none did
}

// Start mounts. The holder goes on when commit, which records it, has returned without an error; it ends when this process does so before.
// fault.Unavailable: it took too long.
func (k *Keeper) Start(ctx context.Context, m Mounting, commit func(Held) error) (h Held, err error) {
	request, err := json.Marshal(m)
	if err != nil {
		return h, err
	}
	in, orders, err := os.Pipe()
	if err != nil {
		return h, err
	}
	defer orders.Close()
	answers, out, err := os.Pipe()
	if err != nil {
		in.Close()
		return h, err
	}
	defer answers.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return h, errors.Join(err, in.Close(), out.Close())
	}
	process, err := os.StartProcess(k.Program, []string{path.Base(k.Program), Arg}, &os.ProcAttr{
		Dir: "/", Env: []string{"GOGC=20", "GOMAXPROCS=1"}, Files: []*os.File{in, out, null},
		Sys: &syscall.SysProcAttr{Setsid: true, Unshareflags: namespace.Mount},
	})
	if err = errors.Join(err, in.Close(), out.Close(), null.Close()); err != nil {
		return h, fmt.Errorf("start the holder of a mount: %w", err)
	}
	defer func() {
		if err != nil { // also out of mount(2)
			process.Kill()
		}
		err = errors.Join(err, k.reap(process))
	}()
	if h.Boot, err = kernel.BootID(); err != nil {
		return h, err
	}
	h.Pid = process.Pid
	if h.Start, err = kernel.StartTime(h.Pid); err != nil {
		return h, err
	}
	a, err := k.ask(ctx, orders, answers, request)
	if err != nil {
		return h, err
	}
	h.Place = a.Place
	if err := commit(h); err != nil {
		return h, err
	}
	if _, err := orders.Write([]byte{'\n'}); err != nil {
		return h, fmt.Errorf("the holder of a mount has ended: %w", err)
	}
	// It has heard of it when it closes its side.
	_, err = io.Copy(io.Discard, answers)
	return h, err
}

// ask has the mount made, and waits for it.
func (k *Keeper) ask(ctx context.Context, orders, answers *os.File, request []byte) (a answer, err error) {
	limit := k.Limit
	if limit == 0 {
		limit = time.Minute
	}
	if _, err := orders.Write(append(request, '\n')); err != nil {
		return a, fmt.Errorf("the holder of a mount has ended: %w", err)
	}
	if err := answers.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return a, err
	}
	stop := context.AfterFunc(ctx, func() { answers.SetReadDeadline(time.Unix(1, 0)) })
	err = json.NewDecoder(answers).Decode(&a)
	stop()
	switch {
	case ctx.Err() != nil:
		return a, fault.Wrap(fault.Canceled, ctx.Err())
	case errors.Is(err, os.ErrDeadlineExceeded):
		return a, fault.New(fault.Unavailable, "no answer within %s", limit)
	case err != nil:
		return a, fmt.Errorf("the holder of a mount has ended: %w", err)
	case a.Error != "" && a.Errno != 0:
		return a, &failure{a.Error, syscall.Errno(a.Errno)}
	case a.Error != "":
		return a, errors.New(a.Error)
	}
	return a, answers.SetReadDeadline(time.Now().Add(patience))
}

// failure is an error that happened in the holder.
type failure struct {
	text  string
	errno syscall.Errno
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.errno }

// reap takes the status of a holder that ends before us; else that goes to the next above.
func (k *Keeper) reap(process *os.Process) error {
	k.mu.Lock()
	if k.end == nil {
		k.end = make(chan struct{})
	}
	k.mu.Unlock()
	pidfd, err := kernel.OpenPid(process.Pid)
	if err != nil {
		return err
	}
	over := make(chan struct{})
	k.watched.Go(func() {
		defer close(over)
		if kernel.AwaitEnd(pidfd, 0) == nil {
			kernel.Reap(pidfd)
		}
	})
	k.watched.Go(func() {
		select {
		case <-over:
		case <-k.end:
		}
		pidfd.Close()
	})
	return process.Release()
}

// Close lets go of the holders, which live on.
func (k *Keeper) Close() error {
	k.mu.Lock()
	if k.end == nil {
		k.end = make(chan struct{})
	}
	k.mu.Unlock()
	k.once.Do(func() { close(k.end) })
	k.watched.Wait()
	return nil
}
