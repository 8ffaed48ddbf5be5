package names

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"berth/fault"
	"berth/kernel"
	"berth/kernel/namespace"
)

// Config says how the one who answers is reached.
type Config struct {
	Program string       // berth-dns
	Dir     string       // of the socket dns.sock and the log dns.log; best on a tmpfs
	Warn    func(string) // told when it was lost and what can't be had; nil: silent
}

const (
	socketFile = "dns.sock"
	logFile    = "dns.log"
	patience   = 10 * time.Second // for an answer
)

// Client tells what containers are called. Its methods may be called from any goroutine.
type Client struct {
	cfg Config

	end     chan struct{} // closed by Close
	once    sync.Once
	watched sync.WaitGroup

	mu       sync.Mutex
	link     *link // nil: there is none now
	known    map[string]*known
	closed   bool
	restored bool
	launched time.Time
}

// known is a member and where it lives.
type known struct {
	member Member
	pid    int         // 0: it has not started yet
	ns     os.FileInfo // its network namespace, so that another process of that number is not taken for it; nil: not looked at yet
}

// New returns a Client that starts nothing before there is something to tell. Close it.
func New(c Config) *Client {
	if c.Warn == nil {
		c.Warn = func(string) {}
	}
	return &Client{cfg: c, known: map[string]*known{}, end: make(chan struct{})}
}

// Serve has m served in its network namespace, before its program starts. Settle or Drop is next. ns stays the caller's.
func (c *Client) Serve(m Member, ns *os.File) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	info, err := ns.Stat()
	if err != nil {
		return err
	}
	c.known[m.ID] = &known{member: m, ns: info}
	err = c.tell(&Request{Op: OpPut, Member: &m, Namespace: true}, ns)
	if err != nil {
		delete(c.known, m.ID)
		return fmt.Errorf("serve names to container %s: %w", short(m.ID), err)
	}
	return nil
}

// Settle says that the container's first process is pid, with whose end the names go. ns is as for Serve. A process that has ended
// is no error.
func (c *Client) Settle(id string, pid int, ns *os.File) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.known[id]
	if k == nil {
		return nil
	}
	process, err := openProcess(pid, ns)
	if err != nil {
		return errors.Join(ended(err), c.drop(id))
	}
	defer process.Close()
	k.pid = pid
	err = c.tell(&Request{Op: OpSettle, ID: id}, process)
	if errors.Is(err, fault.NotFound) { // the one who was told of it has ended since
		return c.put(k, c.tell)
	}
	return err
}

// ended passes over what a process that is gone makes of calls.
func ended(err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrProcessDone) || errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}

// openProcess opens a descriptor of pid, which is in the network namespace ns. os.ErrProcessDone: that has ended, and the number is another's.
func openProcess(pid int, ns *os.File) (*os.File, error) {
	process, err := kernel.OpenPid(pid)
	if err != nil {
		return nil, err
	}
	its, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		process.Close()
		return nil, err
	}
	defer its.Close()
	same, err := namespace.Same(its, ns)
	if err == nil && !same {
		err = os.ErrProcessDone
	}
	if err != nil {
		process.Close()
		return nil, err
	}
	return process, nil
}

// Put changes what is known of a container that runs as pid, and has it served where it isn't yet.
func (c *Client) Put(m Member, pid int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.known[m.ID]
	if k == nil {
		k = &known{}
		c.known[m.ID] = k
	}
	k.member, k.pid = m, pid
	if !c.restored && c.link == nil {
		return nil
	}
	return c.put(k, c.tell)
}

// put tells of one that runs, by tell or send. The caller holds mu.
func (c *Client) put(k *known, say func(*Request, ...*os.File) error) error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", k.pid))
	if err != nil {
		return errors.Join(ended(err), c.drop(k.member.ID))
	}
	defer ns.Close()
	process, err := openProcess(k.pid, ns)
	if err == nil {
		err = k.settle(ns)
	}
	if err != nil {
		return errors.Join(ended(err), c.drop(k.member.ID))
	}
	defer process.Close()
	if err := say(&Request{Op: OpPut, Member: &k.member, Namespace: true, Process: true}, ns, process); err != nil {
		return fmt.Errorf("serve names to container %s: %w", short(k.member.ID), err)
	}
	return nil
}

// settle notes where a container lives. os.ErrProcessDone: that is another place than before, or our own.
func (k *known) settle(ns *os.File) error {
	info, err := ns.Stat()
	if err != nil {
		return err
	}
	own, err := os.Stat("/proc/self/ns/net")
	if err != nil {
		return err
	}
	if os.SameFile(info, own) || k.ns != nil && !os.SameFile(info, k.ns) {
		return os.ErrProcessDone
	}
	k.ns = info
	return nil
}

// Drop says that a container is gone, or has no names any more; one that is not known is no error.
func (c *Client) Drop(id string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.drop(id)
}

func (c *Client) drop(id string) error {
	if c.known[id] == nil {
		return nil
	}
	delete(c.known, id)
	if c.link == nil {
		return nil // who comes next is not told of it
	}
	return c.tell(&Request{Op: OpDrop, ID: id})
}

// Restore tells of the containers that run, by their first processes, and takes away all others. Call it once, first.
func (c *Client) Restore(members map[int]Member) (err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.restored = true
	for pid, m := range members {
		c.known[m.ID] = &known{member: m, pid: pid}
	}
	if len(members) > 0 {
		return c.connect()
	}
	if conn, _, dialErr := c.dial(); dialErr == nil { // nobody is to be served any more
		c.begin(conn)
		err = c.send(&Request{Op: OpKeep})
	}
	return err
}

// Trace looks a name up as a container would, and tells how.
func (c *Client) Trace(ctx context.Context, id, name, kind string) (*Trace, error) {
	c.mu.Lock()
	if c.known[id] == nil {
		c.mu.Unlock()
		return nil, fault.New(fault.NotFound, "container %s is served no names: it does not run, or is on no user-defined network", short(id))
	}
	c.mu.Unlock()
	// It may take long, and others don't wait for it.
	conn, _, err := c.dial()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	a, err := ask(conn, &Request{Op: OpTrace, ID: id, Name: name, Type: kind})
	if err == nil && a.Trace == nil {
		err = fault.New(fault.Corrupt, "look up %s: no trace came", name)
	}
	if err != nil {
		return nil, errors.Join(ctx.Err(), err)
	}
	return a.Trace, nil
}

// Known are the members that are told of.
func (c *Client) Known() (all []Member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.known {
		all = append(all, k.member)
	}
	slices.SortFunc(all, func(a, b Member) int { return strings.Compare(a.ID, b.ID) })
	return all
}

// Quit ends the one who answers, if there is one. No other is started after it.
func (c *Client) Quit() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	conn, _, err := c.dial()
	if err != nil {
		return nil // nobody there
	}
	return errors.Join(quit(conn), conn.Close())
}

// Close lets go; names are served on.
func (c *Client) Close() error {
	c.mu.Lock()
	c.once.Do(func() { close(c.end) })
	c.closed = true
	if c.link != nil {
		c.link.conn.Close()
	}
	c.mu.Unlock()
	c.watched.Wait()
	return nil
}

func short(id string) string { return id[:min(12, len(id))] }

// link is a connection in use. One goroutine reads it, and so sees its end.
type link struct {
	conn    *Conn
	answers chan *Answer
	done    chan struct{}
}

// begin takes a connection into use: somebody has to be there as long as containers are served. The caller holds mu.
func (c *Client) begin(conn *Conn) {
	l := &link{conn, make(chan *Answer, 1), make(chan struct{})}
	c.link = l
	c.watched.Go(func() {
		for {
			a := &Answer{}
			if _, err := conn.Receive(a); err != nil {
				break
			}
			select {
			case l.answers <- a:
			default: // nobody has asked
			}
		}
		close(l.done)
		conn.Close()
		c.lost(l)
	})
}

// rest is between two starts of one who answers, so that one who can't live takes no more than a little. It doubles up to longestRest.
const (
	rest        = time.Second
	longestRest = time.Minute
)

// lost has somebody else answer where that is needed.
func (c *Client) lost(l *link) {
	c.mu.Lock()
	needed := c.link == l && !c.closed && len(c.known) > 0
	if c.link == l {
		c.link = nil
	}
	wait := rest - time.Since(c.launched)
	c.mu.Unlock()
	if !needed {
		return
	}
	c.cfg.Warn("the name server of the containers has ended; it is started again")
	for pause := rest; c.wait(wait); pause = min(2*pause, longestRest) {
		if err := c.replace(); err == nil {
			return
		} else {
			c.cfg.Warn(err.Error())
		}
		wait = pause
	}
}

// wait lets some time pass; false: it is over.
func (c *Client) wait(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.end:
		return false
	}
}

// replace makes sure that somebody answers, if there is anything to tell.
func (c *Client) replace() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.known) == 0 {
		return nil
	}
	return c.connect()
}

// send sends a request over the connection there is and waits for the answer. When none comes, the connection is given up. The caller holds mu.
func (c *Client) send(r *Request, files ...*os.File) error {
	l := c.link
	if l == nil {
		return fault.New(fault.Unavailable, "the name server of the containers is not there")
	}
	l.conn.sock.SetWriteDeadline(time.Now().Add(patience))
	err := l.conn.Send(r, files...)
	timer := time.NewTimer(patience)
	defer timer.Stop()
	if err == nil {
		select {
		case a := <-l.answers:
			return a.err()
		case <-l.done:
			err = io.ErrUnexpectedEOF
		case <-timer.C:
			err = os.ErrDeadlineExceeded
		}
	}
	l.conn.Close()
	c.link = nil
	return fault.New(fault.Unavailable, "the name server of the containers does not answer: %w", err)
}

func (a *Answer) err() error {
	if a.Error == "" {
		return nil
	}
	if a.Kind == "" {
		return errors.New(a.Error)
	}
	return fault.New(fault.Kind(a.Kind), "%s", a.Error)
}

// tell is send to whoever can be had; a second try is for one who has just ended. The caller holds mu.
func (c *Client) tell(r *Request, files ...*os.File) error {
	for try := 0; ; try++ {
		fresh := c.link == nil
		if err := c.connect(); err != nil {
			return err
		}
		err := c.send(r, files...)
		if err == nil || c.link != nil || fresh || try > 0 {
			return err
		}
	}
}

// ask talks over a connection of one's own.
func ask(conn *Conn, r *Request) (*Answer, error) {
	if err := conn.Send(r); err != nil {
		return nil, err
	}
	a := &Answer{}
	if _, err := conn.Receive(a); err != nil {
		return nil, fmt.Errorf("wait for the name server's answer: %w", err)
	}
	return a, a.err()
}

// dial reaches the one who answers. Its greeting is read.
func (c *Client) dial() (*Conn, *Hello, error) {
	dir, err := os.Open(c.cfg.Dir)
	if err != nil {
		return nil, nil, err
	}
	defer dir.Close()
	sock, err := kernel.DialUnix(dir, socketFile)
	if err != nil {
		return nil, nil, err
	}
	conn := NewConn(sock)
	sock.SetDeadline(time.Now().Add(patience))
	hello := &Hello{}
	if _, err := conn.Receive(hello); err != nil {
		conn.Close()
		return nil, nil, fmt.Errorf("greet the name server: %w", err)
	}
	return conn, hello, sock.SetDeadline(time.Time{})
}

// connect reaches the one who answers, or starts one, and tells it everything. The caller holds mu.
func (c *Client) connect() error {
	if c.link != nil {
		return nil
	}
	if c.closed {
		return fault.New(fault.Unavailable, "names: closed")
	}
	conn, hello, err := c.dial()
	if err == nil && hello.Version != Version { // of another release
		err = errors.Join(quit(conn), conn.Close(), os.ErrClosed)
	}
	if err != nil {
		if err = c.launch(); err == nil {
			conn, _, err = c.dial()
		}
	}
	if err != nil {
		return fmt.Errorf("reach the name server of the containers: %w", err)
	}
	c.begin(conn)
	return c.retell()
}

// retell tells all that is known, and that nothing else is there.
func (c *Client) retell() error {
	ids := []string{}
	for id, k := range c.known {
		if k.pid != 0 { // else its start tells
			if err := c.put(k, c.send); err != nil {
				if c.link == nil {
					return err
				}
				c.cfg.Warn(err.Error())
			}
		}
		if c.known[id] != nil {
			ids = append(ids, id)
		}
	}
	return c.send(&Request{Op: OpKeep, IDs: ids})
}

// quit ends the one who answers, and waits until it has.
func quit(conn *Conn) error {
	conn.sock.SetDeadline(time.Now().Add(patience))
	if _, err := ask(conn, &Request{Op: OpQuit}); err != nil {
		return err
	}
	if _, err := conn.Receive(&Hello{}); errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil
}

// launch starts one who answers. It gets its socket, a log for its last words, and a session of its own.
func (c *Client) launch() (err error) {
	dir, err := os.Open(c.cfg.Dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	path := filepath.Join(c.cfg.Dir, socketFile)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	socket, err := kernel.ListenUnix(dir, socketFile)
	if err != nil {
		return err
	}
	defer socket.Close()
	if err := os.Chmod(path, 0o600); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(c.cfg.Dir, logFile), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	process, err := os.StartProcess(c.cfg.Program, []string{filepath.Base(c.cfg.Program)}, &os.ProcAttr{
		Dir: "/", Env: []string{"GOGC=50"}, Files: []*os.File{null, null, log, socket}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("%w; berth-dns must stand beside berthd", err)
	}
	c.launched = time.Now()
	return c.reapLater(process)
}

// reapLater takes the status of a child that ends before us; else it goes to the next above.
func (c *Client) reapLater(process *os.Process) error {
	pidfd, err := kernel.OpenPid(process.Pid)
	if err != nil {
		return err
	}
	over := make(chan struct{})
	c.watched.Go(func() {
		defer close(over)
		if kernel.AwaitEnd(pidfd, 0) == nil {
			kernel.Reap(pidfd)
		}
	})
	c.watched.Go(func() {
		select {
		case <-over:
		case <-c.end:
		}
		pidfd.Close()
	})
	return process.Release()
}
