// Package foreign has a container made by another OCI runtime, and stands between that and the supervisor.
//
// It is not a runtime: it writes the bundle's config.json, calls the program's verbs and reads its log. The
// container's first process, and those of exec, become children of the calling process, which is made their
// reaper. Invariant: what a runtime makes is found again by the control group that the bundle names, whatever
// the runtime says or forgets.
package foreign

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"berth/fault"
	"berth/kernel"
	"berth/oci"
)

// Keeper makes the containers of one process. The zero value is ready.
type Keeper struct {
	once  sync.Once
	err   error
	ended chan os.Signal

	making sync.RWMutex // held for reading while a process is made whose number is not known yet
	mu     sync.Mutex
	known  map[int]bool // children that somebody waits for
	number int          // of the last exec
}

// begin makes this process the one that orphans come to, and buries those that nobody knows: of a container in the
// host's pid namespace all are ours.
func (k *Keeper) begin() error {
	k.once.Do(func() {
		k.known = map[int]bool{}
		if k.err = kernel.Subreaper(); k.err != nil {
			return
		}
		k.ended = make(chan os.Signal, 1)
		signal.Notify(k.ended, syscall.SIGCHLD)
		go func() {
			for range k.ended {
				k.bury()
			}
		}()
	})
	return k.err
}

// Close ends the burying. A supervisor does it until its own end.
func (k *Keeper) Close() {
	if k.ended != nil {
		signal.Stop(k.ended)
		close(k.ended)
	}
}

// bury reaps the children that nobody waits for. One that somebody waits for may hide others until it is reaped.
func (k *Keeper) bury() {
	if !k.making.TryLock() {
		return // whoever makes a process comes here afterwards
	}
	defer k.making.Unlock()
	for {
		pid, err := kernel.Zombie()
		k.mu.Lock()
		mine := k.known[pid]
		k.mu.Unlock()
		if err != nil || pid == 0 || mine || kernel.ReapPid(pid) != nil {
			return
		}
	}
}

func (k *Keeper) expect(pid int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.known[pid] = true
}

func (k *Keeper) forget(pid int) {
	k.mu.Lock()
	delete(k.known, pid)
	k.mu.Unlock()
	k.bury()
}

// call is one execution of the runtime's program.
type call struct {
	k      *Keeper
	bundle *oci.Bundle
	stdio  [3]*os.File // its own and the container's; none: what it says is kept for the error
}

// log is where the runtime writes why it failed.
func (c *call) log() string { return filepath.Join(c.bundle.Dir, "runtime.log") }

// run executes the runtime with a verb and its arguments, and waits. A failure is told in the runtime's own words.
func (c *call) run(verb string, args ...string) (string, error) {
	r := c.bundle.Foreign
	os.Remove(c.log()) // of the last call
	all := append(append([]string{}, r.Args...), "--root", filepath.Join(c.bundle.Dir, "state"), "--log", c.log(), "--log-format", "json", verb)
	cmd := exec.Command(r.Path, append(all, args...)...)
	cmd.Dir, cmd.Env = c.bundle.Dir, []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if c.stdio != [3]*os.File{} {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = c.stdio[0], c.stdio[1], c.stdio[2]
	}
	c.k.making.RLock()
	err := cmd.Start()
	if err == nil {
		c.k.expect(cmd.Process.Pid)
	}
	c.k.making.RUnlock()
	if err != nil {
		return "", fault.New(fault.Invalid, "OCI runtime %s: %w: install it, or tell the daemon where it is (--add-runtime)", r.Name, err)
	}
	err = cmd.Wait()
	c.k.forget(cmd.Process.Pid)
	if err == nil {
		return out.String(), nil
	}
	text := c.reason(said.String())
	if text == "" {
		text = err.Error()
	}
	return out.String(), &failure{r.Name, verb, text}
}

// failure is what a runtime says why a verb failed.
type failure struct{ runtime, verb, text string }

func (f *failure) Error() string {
	if strings.HasPrefix(f.text, f.runtime+" ") { // runc says who it is
		return f.text
	}
	return f.runtime + " " + f.verb + ": " + f.text
}

// reason is what the runtime gave as the cause: the last error in its log, else what it said.
func (c *call) reason(said string) string {
	text, err := os.ReadFile(c.log())
	if err == nil {
		if found := lastError(text); found != "" {
			return found
		}
	}
	return strings.TrimSpace(said)
}

// lastError reads a runtime's log, lines of JSON objects.
func lastError(log []byte) string {
	var last string
	for _, line := range bytes.Split(log, []byte("\n")) {
		var e struct{ Level, Msg string }
		if json.Unmarshal(line, &e) == nil && (e.Level == "error" || e.Level == "fatal") && e.Msg != "" {
			last = e.Msg
		}
	}
	return strings.TrimSpace(last)
}

// startError gives a runtime's words the exit code that a shell would, where it could not execute the program.
func startError(program string, err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	if f := (*failure)(nil); errors.As(err, &f) && f.verb == "exec" { // the caller's words, and runc's, are the same
		text = strings.TrimPrefix(f.text, "exec failed: unable to start container process: ")
		err = errors.New(text)
	}
	switch {
	case !strings.Contains(text, program):
	case strings.Contains(text, "executable file"), strings.Contains(text, "no such file or directory"), strings.Contains(text, "system cannot find the file"):
		return &oci.StartError{Code: 127, Err: err}
	case strings.Contains(text, "permission denied"), strings.Contains(text, "is a directory"), strings.Contains(text, "not a directory"):
		return &oci.StartError{Code: 126, Err: err}
	}
	return err
}

// number reads the pid file that a runtime wrote.
func number(path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 1 {
		return 0, fault.New(fault.Corrupt, "%s holds no process number: %q", path, text)
	}
	return pid, nil
}

// console listens where a runtime is to send the terminal's master.
type console struct {
	dir, listen *os.File
	path        string // as another process can reach it: short, however long the directory's name is
	name        string
}

func newConsole(dir, name string) (*console, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	l, err := kernel.ListenUnix(d, name)
	if err != nil {
		d.Close()
		return nil, err
	}
	return &console{dir: d, listen: l, path: fmt.Sprintf("/proc/%d/fd/%d/%s", os.Getpid(), kernel.FD(d), name), name: name}, nil
}

func (c *console) close() {
	c.listen.Close()
	os.Remove(filepath.Join(c.dir.Name(), c.name))
	c.dir.Close()
}

// master takes the terminal; the runtime has ended, so it was sent already.
func (c *console) master() (*os.File, error) {
	if err := c.listen.SetReadDeadline(patience()); err != nil {
		return nil, err
	}
	conn, err := kernel.Accept(c.listen)
	if err != nil {
		return nil, fmt.Errorf("the runtime sent no terminal: %w", err)
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(patience()); err != nil {
		return nil, err
	}
	var name [4096]byte
	_, files, err := kernel.ReceiveFiles(conn, name[:])
	if err != nil {
		return nil, fmt.Errorf("the runtime sent no terminal: %w", err)
	}
	if len(files) == 0 {
		return nil, fault.New(fault.Corrupt, "the runtime sent no terminal")
	}
	kernel.CloseAll(files[1:])
	return files[0], nil
}

// Create makes the container; it waits for Start. netns is as in oci.Create. b.Dir is a directory of the caller's that
// this package may use, and it stays until the runtime's Delete; it is best on a tmpfs. On failure nothing is left of the container.
func (k *Keeper) Create(ctx context.Context, b *oci.Bundle, stdio oci.Stdio, netns *os.File) (p *Process, err error) {
	if err := errors.Join(ctx.Err(), k.begin()); err != nil {
		return nil, err
	}
	p = &Process{call: call{k: k, bundle: b}, first: true}
	p.program = programOf(b.Spec.Process)
	if err := p.create(stdio, netns); err != nil {
		return nil, errors.Join(startError(p.program, err), p.Delete())
	}
	return p, nil
}
