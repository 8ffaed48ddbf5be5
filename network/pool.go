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
	inside0    = "eth0"   // its end in the container, unless it is renamed
	loopback   = 1        // index of lo in every namespace
)

// readyName is the link's name in a namespace of the pool.
const readyName = inside0

// wire is a veth that is up at both ends but belongs to no bridge yet.
type wire struct {
	link string // the host's end
	host int    // its index
	peer int    // index of the other end, in its namespace
	mtu  int
}

// wired is a namespace that is ready to be connected; with a wire, or (nil) with lo alone. It ends with its files.
type wired struct {
	inside
	spare *os.File // the same namespace again: the other one is handed out
	wire  *wire
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

// take gives a namespace to be connected, from the pool if it has one: with a wire, or without. The caller says more when it is
// done: making links takes the lock that its own changes need.
func (p *pool) take(owner Owner, wired bool) (*wired, error) {
	if !wired {
		return p.takeBare(owner)
	}
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

// takeBare gives a namespace without a wire, with a socket in it.
func (p *pool) takeBare(owner Owner) (*wired, error) {
	ns, err := p.takePlain(owner)
	if err != nil {
		return nil, err
	}
	in, err := insideOf(ns)
	if err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	w := &wired{inside: *in}
	if w.spare, err = os.Open(fmt.Sprintf("/proc/self/fd/%d", kernel.FD(ns))); err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
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
	w = &wired{}
	if w.ns, err = newNet(owner); err != nil {
		return nil, fmt.Errorf("make network namespace: %w", err)
	}
	err = namespace.Do(w.ns, func() (err error) {
		if w.conn, err = netlink.Open(); err != nil {
			return err
		}
		return errors.Join(unprivileged(), w.conn.Apply(netlink.SetUp(loopback)))
	})
	if err == nil {
		w.wire, err = p.addWire(&w.inside, inside0, p.mtu)
	}
	if err == nil {
		err = w.conn.Apply(netlink.SetUp(w.wire.peer))
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

// addWire makes a veth into a namespace; the host's end is up. mtu 0 is the usual one.
func (p *pool) addWire(in *inside, name string, mtu int) (*wire, error) {
	if mtu == 0 {
		mtu = p.mtu
	}
	w := &wire{link: linkPrefix + randomHex(4), mtu: mtu}
	// The link is born without IPv6, as most networks have none; lo keeps ::1.
	const born = "net/ipv6/conf/default/disable_ipv6"
	if err := namespace.Do(in.ns, func() error { return setSysctl(born, "1") }); err != nil {
		return nil, err
	}
	err := p.host.Apply(netlink.NewVeth(w.link, name, in.ns, mtu))
	// Whatever came of it: the namespace may be that of a container that runs and makes links of its own.
	if err := errors.Join(err, namespace.Do(in.ns, func() error { return setSysctl(born, "0") })); err != nil {
		return nil, err
	}
	peer, err := in.conn.Link(name)
	if err != nil {
		return nil, err
	}
	host, err := p.host.Link(w.link)
	if err != nil {
		return nil, err
	}
	w.peer, w.host = peer.Index, host.Index
	// Without IPv6, so that a bridge port has no address of its own.
	if err := setSysctl("net/ipv6/conf/"+w.link+"/disable_ipv6", "1"); err != nil {
		return nil, err
	}
	return w, p.host.Apply(netlink.SetUp(w.host))
}

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	rand.Read(b) // never fails (Go 1.24)
	return hex.EncodeToString(b)
}
