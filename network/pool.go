package network

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"berth/fault"
	"berth/kernel"
	"berth/kernel/namespace"
	"berth/kernel/netlink"
)

const (
	linkPrefix = "berthv" // every veth of ours on the host
	inside     = "eth0"   // its end in the container
	loopback   = 1        // index of lo in every namespace
)

// wired is a namespace with a veth that is up at both ends but belongs to no
// bridge yet, or (without a link) one with lo alone. It ends with its files.
type wired struct {
	ns, spare *os.File      // the same namespace twice: one is handed out
	conn      *netlink.Conn // inside
	link      string        // the host's end
	host      int           // its index
	peer      int           // index of eth0
}

func (w *wired) close() error { return errors.Join(w.ns.Close(), w.drop()) }

// drop closes all but the file that was handed out.
func (w *wired) drop() error {
	err := w.conn.Close()
	if w.spare != nil {
		err = errors.Join(err, w.spare.Close())
	}
	return err
}

// pool keeps namespaces ready. One goroutine fills it.
type pool struct {
	mtu   int
	host  *netlink.Conn // its own, so that filling never makes an Attach wait for the socket
	wires chan *wired
	plain chan *os.File
	wake  chan struct{}
	stop  context.CancelFunc
	done  sync.WaitGroup
	warn  func(string)
}

// calm is how long a pool that is more than half full waits before it is filled up.
const calm = 20 * time.Millisecond

// plainReady is how many namespaces without a link are kept.
const plainReady = 2

// newPool starts to fill; wires is how many namespaces with a veth are kept, 0 = none.
func newPool(wires, plain, mtu int, warn func(string)) (*pool, error) {
	host, err := netlink.Open()
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	p := &pool{mtu: mtu, host: host, stop: stop, warn: warn, wake: make(chan struct{}, 1),
		wires: make(chan *wired, wires), plain: make(chan *os.File, plain)}
	p.done.Go(func() { p.fill(ctx) })
	p.more()
	return p, nil
}

func (p *pool) more() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *pool) fill(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		}
		// A start is under way; unless many are, it gets the processors first.
		if 2*len(p.wires) > cap(p.wires) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(calm):
			}
		}
		for ctx.Err() == nil && (len(p.wires) < cap(p.wires) || len(p.plain) < cap(p.plain)) {
			if err := p.fillOne(); err != nil {
				p.warn(fmt.Sprintf("prepare a network namespace: %v", err))
				break // the next taker meets the error itself
			}
		}
	}
}

// fillOne adds what is missing most. It alone sends to the channels, so that it never blocks.
func (p *pool) fillOne() error {
	if len(p.wires) < cap(p.wires) {
		w, err := p.makeWired(Owner{})
		if err == nil {
			p.wires <- w
		}
		return err
	}
	ns, err := makePlain(Owner{})
	if err == nil {
		p.plain <- ns
	}
	return err
}

// takeWired gives a namespace from the pool, or makes one. The caller says more when it is done: making links
// takes the lock that its own changes need.
func (p *pool) takeWired(owner Owner) (*wired, error) {
	if !owner.host() {
		return p.makeWired(owner)
	}
	select {
	case w := <-p.wires:
		return w, nil
	default:
		return p.makeWired(owner)
	}
}

func (p *pool) takePlain(owner Owner) (*os.File, error) {
	if !owner.host() {
		return makePlain(owner)
	}
	select {
	case ns := <-p.plain:
		p.more()
		return ns, nil
	default:
		p.more()
		return makePlain(owner)
	}
}

// close ends the pool; its namespaces die with their files.
func (p *pool) close() (err error) {
	p.stop()
	p.done.Wait()
	for len(p.wires) > 0 {
		err = errors.Join(err, (<-p.wires).close())
	}
	for len(p.plain) > 0 {
		err = errors.Join(err, (<-p.plain).Close())
	}
	return errors.Join(err, p.host.Close())
}

// setSysctl writes a value below /proc/sys as the calling thread's namespace
// has it. Where the kernel lacks the switch (IPv6 left out), there is nothing to set.
func setSysctl(name, value string) error {
	err := os.WriteFile("/proc/sys/"+name, []byte(value), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// unprivileged are the switches that let a container's programs ping and
// listen below port 1024 without a capability, as current Docker sets them.
func unprivileged() error {
	return errors.Join(
		setSysctl("net/ipv4/ping_group_range", "0 2147483647"),
		setSysctl("net/ipv4/ip_unprivileged_port_start", "0"),
	)
}

// newNet makes a network namespace for the owner.
func newNet(owner Owner) (*os.File, error) {
	if owner.host() {
		return namespace.NewNet()
	}
	return namespace.NewOwnedNet(owner.UIDs, owner.GIDs)
}

func makePlain(owner Owner) (*os.File, error) {
	ns, err := newNet(owner)
	if err != nil {
		return nil, fmt.Errorf("make network namespace: %w", err)
	}
	err = namespace.Do(ns, func() (err error) {
		conn, err := netlink.Open()
		if err != nil {
			return err
		}
		defer fault.Close(conn, &err)
		return errors.Join(unprivileged(), conn.Apply(netlink.SetUp(loopback)))
	})
	if err != nil {
		ns.Close()
		return nil, fmt.Errorf("set network namespace up: %w", err)
	}
	return ns, nil
}

// makeWired makes a namespace with a veth. What a kill leaves of it dies with the process's files.
func (p *pool) makeWired(owner Owner) (w *wired, err error) {
	w = &wired{link: linkPrefix + randomHex(4)}
	if w.ns, err = newNet(owner); err != nil {
		return nil, fmt.Errorf("make network namespace: %w", err)
	}
	if err = namespace.Do(w.ns, func() error { return p.wire(w) }); err == nil {
		err = p.bringUp(w)
	}
	if err == nil {
		w.spare, err = os.Open(fmt.Sprintf("/proc/self/fd/%d", kernel.FD(w.ns)))
	}
	if err != nil {
		err = errors.Join(fmt.Errorf("set network namespace up: %w", err), w.ns.Close())
		if w.conn != nil {
			err = errors.Join(err, w.conn.Close())
		}
		return nil, err
	}
	return w, nil
}

// wire runs on a thread inside the namespace; the host's socket stays in the host's.
func (p *pool) wire(w *wired) (err error) {
	if w.conn, err = netlink.Open(); err != nil {
		return err
	}
	// eth0 is born without IPv6, as the default bridge has none; lo keeps ::1.
	const born = "net/ipv6/conf/default/disable_ipv6"
	if err := errors.Join(unprivileged(), setSysctl(born, "1")); err != nil {
		return err
	}
	if err := p.host.Apply(netlink.NewVeth(w.link, inside, w.ns, p.mtu)); err != nil {
		return err
	}
	if err := setSysctl(born, "0"); err != nil {
		return err
	}
	peer, err := w.conn.Link(inside)
	if err != nil {
		return err
	}
	w.peer = peer.Index
	if err := w.conn.Apply(netlink.SetUp(loopback), netlink.SetUp(w.peer)); err != nil {
		return err
	}
	host, err := p.host.Link(w.link)
	w.host = host.Index
	return err
}

// bringUp switches the host's end on: without IPv6, so that a bridge port has no address of its own. It runs
// outside the namespace, where /proc/sys is the host's.
func (p *pool) bringUp(w *wired) error {
	if err := setSysctl("net/ipv6/conf/"+w.link+"/disable_ipv6", "1"); err != nil {
		return err
	}
	return p.host.Apply(netlink.SetUp(w.host))
}

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	rand.Read(b) // never fails (Go 1.24)
	return hex.EncodeToString(b)
}
