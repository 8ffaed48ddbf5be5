package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"golang.org/x/term"

	"berth/kernel"
	"berth/oci"
)

// making are the flags of create, run and exec.
type making struct {
	bundle, consoleSocket, pidFile string
	noPivot, detach                bool
	preserve                       int
}

func (m *making) files(f *flag.FlagSet) {
	f.StringVar(&m.consoleSocket, "console-socket", "", "unix socket that gets the terminal's master")
	f.StringVar(&m.pidFile, "pid-file", "", "file that gets the process's number")
	f.IntVar(&m.preserve, "preserve-fds", 0, "how many files after stdio the program inherits")
}

func (m *making) declare(f *flag.FlagSet) {
	m.files(f)
	f.StringVar(&m.bundle, "bundle", ".", "directory with config.json")
	f.StringVar(&m.bundle, "b", ".", "directory with config.json")
	f.BoolVar(&m.noPivot, "no-pivot", false, "move the root instead of pivoting, for hosts that run from an initramfs")
	f.Bool("no-new-keyring", false, "accepted for other runtimes' sake")
}

func (m *making) options(terminal bool) oci.CreateOptions {
	return oci.CreateOptions{
		Stdio:   oci.Stdio{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Console: terminal},
		NoPivot: m.noPivot, PreserveFDs: m.preserve,
	}
}

// deliver hands the terminal on, and writes the pid file last: it says that all is ready.
func (m *making) deliver(p *oci.Process) error {
	for _, w := range p.Warnings() {
		fmt.Fprintln(os.Stderr, "berth-oci: warning:", w)
	}
	if c := p.Console(); c != nil && m.consoleSocket != "" {
		err := kernel.SendFile(m.consoleSocket, c.Name(), c)
		if err = errors.Join(err, c.Close()); err != nil {
			return fmt.Errorf("console socket: %w", err)
		}
	}
	if m.pidFile == "" {
		return nil
	}
	return os.WriteFile(m.pidFile, []byte(strconv.Itoa(p.Pid())), 0o644)
}

func createCommand(f *flag.FlagSet) func(*oci.Runtime, []string) (int, error) {
	m := &making{}
	m.declare(f)
	return func(r *oci.Runtime, args []string) (int, error) {
		id, err := one(args)
		if err != nil {
			return 1, err
		}
		b, err := r.Load(id, m.bundle)
		if err != nil {
			return 1, err
		}
		terminal := b.Spec.Process != nil && b.Spec.Process.Terminal
		if terminal && m.consoleSocket == "" {
			return 1, errors.New("the container wants a terminal: give --console-socket")
		}
		p, err := r.Create(context.Background(), b, m.options(terminal))
		if err != nil {
			return 1, err
		}
		if err := m.deliver(p); err != nil {
			return 1, errors.Join(err, remove(r, id))
		}
		return 0, nil
	}
}

func startCommand(f *flag.FlagSet) func(*oci.Runtime, []string) (int, error) {
	return func(r *oci.Runtime, args []string) (int, error) {
		c, err := open(r, args)
		if err != nil {
			return 1, err
		}
		return 0, c.Start()
	}
}

// open finds the container that the only argument names.
func open(r *oci.Runtime, args []string) (*oci.Container, error) {
	id, err := one(args)
	if err != nil {
		return nil, err
	}
	return r.Open(id)
}

func remove(r *oci.Runtime, id string) error {
	c, err := r.Open(id)
	if err != nil {
		return err
	}
	return c.Delete(true)
}

func runCommand(f *flag.FlagSet) func(*oci.Runtime, []string) (int, error) {
	m := &making{}
	m.declare(f)
	f.BoolVar(&m.detach, "detach", false, "don't wait for the container")
	f.BoolVar(&m.detach, "d", false, "don't wait for the container")
	keep := f.Bool("keep", false, "don't delete the container when it has ended")
	return func(r *oci.Runtime, args []string) (int, error) {
		id, err := one(args)
		if err != nil {
			return 1, err
		}
		b, err := r.Load(id, m.bundle)
		if err != nil {
			return 1, err
		}
		p, err := r.Run(context.Background(), b, m.options(b.Spec.Process != nil && b.Spec.Process.Terminal))
		if err != nil {
			return codeOf(err), err
		}
		code, err := m.stay(p)
		if err != nil || !m.detach && !*keep {
			err = errors.Join(err, remove(r, id))
		}
		return code, err
	}
}

// stay is with a process until it ends, unless it is detached: it passes signals on and serves its terminal.
func (m *making) stay(p *oci.Process) (int, error) {
	if err := m.deliver(p); err != nil {
		return 1, err
	}
	if m.detach {
		return 0, nil
	}
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	defer signal.Stop(signals)
	done := make(chan struct{})
	console := p.Console()
	if m.consoleSocket != "" {
		console = nil
	}
	go func() {
		for s := range signals {
			if n, ok := s.(syscall.Signal); ok && passed(n) {
				p.Signal(int(n))
			} else if n == syscall.SIGWINCH && console != nil {
				resize(console)
			}
		}
	}()
	if console != nil {
		restore, err := serve(console, done)
		if err != nil {
			return 1, err
		}
		defer restore()
	} else {
		close(done)
	}
	e, err := p.Wait()
	<-done
	return e.Code, err
}

// passed tells whether a signal is meant for the container: not those about our own children, terminal and runtime.
func passed(n syscall.Signal) bool {
	return n != syscall.SIGCHLD && n != syscall.SIGURG && n != syscall.SIGWINCH && n != syscall.SIGPIPE
}

// serve connects our terminal with the container's; done closes when all output is through.
func serve(console *os.File, done chan struct{}) (restore func(), err error) {
	restore = func() {}
	if fd := int(os.Stdin.Fd()); term.IsTerminal(fd) {
		state, err := term.MakeRaw(fd)
		if err != nil {
			return restore, err
		}
		restore = func() { term.Restore(fd, state) }
		resize(console)
	}
	go copyInput(console)
	go func() {
		defer close(done)
		copyOutput(console)
	}()
	return restore, nil
}

func copyInput(console *os.File) {
	buf := make([]byte, 4096)
	for {
		n, err := os.Stdin.Read(buf)
		if n > 0 {
			console.Write(buf[:n])
		}
		if err != nil {
			return
		}
	}
}

// copyOutput ends with EIO, when the last user of the terminal's other side is gone.
func copyOutput(console *os.File) {
	buf := make([]byte, 32<<10)
	for {
		n, err := console.Read(buf)
		if n > 0 {
			os.Stdout.Write(buf[:n])
		}
		if err != nil {
			return
		}
	}
}

func resize(console *os.File) {
	if w, h, err := term.GetSize(int(os.Stdin.Fd())); err == nil {
		kernel.SetSize(console, uint16(h), uint16(w))
	}
}
