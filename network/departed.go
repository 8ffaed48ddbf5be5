package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"berth/kernel/netlink"
)

// departed is an attachment that was released: its links go when its namespace does, which the kernel does at its leisure.
type departed struct {
	ns        *os.File // ours; the namespace ends when nobody else has it either. nil: after a restart
	links     []string
	addresses []netip.Addr
	free      func() // gives the addresses back: kept taken until the links are gone, so that no frame for them goes astray. nil: none
	flows     bool   // UDP conversations may still lead to the addresses
	stale     bool   // found at a restart, nobody's
	since     time.Time
	closed    bool
}

// departures buries endpoints: in batches, as the kernel takes links down
// under one lock that every start of a container needs too, and as long for one namespace as for fifty.
type departures struct {
	host *netlink.Conn // its own: a deletion takes long
	warn func(string)

	mu    sync.Mutex
	queue []*departed
	wake  chan struct{}
	stop  chan struct{}
	done  sync.WaitGroup
}

const (
	quiet   = 200 * time.Millisecond // without a release before the batch is closed
	batch   = 64                     // closed at once when as many wait
	patient = 3 * time.Second        // for a namespace that somebody else keeps; then the link is deleted
)

func newDepartures(warn func(string)) (*departures, error) {
	host, err := netlink.Open()
	if err != nil {
		return nil, err
	}
	d := &departures{host: host, warn: warn, wake: make(chan struct{}, 1), stop: make(chan struct{})}
	d.done.Go(d.work)
	return d, nil
}

func (d *departures) add(x *departed) {
	x.since = time.Now()
	d.mu.Lock()
	d.queue = append(d.queue, x)
	d.mu.Unlock()
	d.hurry()
}

func (d *departures) hurry() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

func (d *departures) work() {
	pause := quiet
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-d.stop:
			return
		case <-d.wake:
			pause = quiet
			if d.waiting() < batch {
				timer.Reset(pause)
				continue
			}
		case <-timer.C:
		}
		if d.bury(time.Now()) > 0 {
			timer.Reset(pause)
			pause = min(2*pause, time.Second)
		}
	}
}

func (d *departures) waiting() (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, x := range d.queue {
		if !x.closed {
			n++
		}
	}
	return n
}

// bury gives up the namespaces, frees the addresses of links that are gone, and tells how many are left.
func (d *departures) bury(now time.Time) int {
	d.flush()
	d.mu.Lock()
	queue := append([]*departed(nil), d.queue...)
	d.mu.Unlock()
	gone := map[*departed]bool{}
	forget := map[netip.Addr]bool{}
	for _, x := range queue {
		gone[x] = d.isGone(x, now)
		if gone[x] && x.flows {
			for _, a := range x.addresses {
				forget[a] = true
			}
		}
	}
	if len(forget) > 0 {
		// Or they would find the next container with that address, on a port that it does not publish.
		if err := netlink.ForgetFlows(func(f netlink.Flow) bool { return forget[f.Server] }); err != nil {
			d.warn(fmt.Sprintf("forget UDP conversations with containers that are gone: %v", err))
		}
	}
	var mine []*departed // that nobody else buried meanwhile
	d.mu.Lock()
	d.queue = slices.DeleteFunc(d.queue, func(x *departed) bool {
		if gone[x] {
			mine = append(mine, x)
		}
		return gone[x]
	})
	left := len(d.queue)
	d.mu.Unlock()
	for _, x := range mine { // without the lock: add is called with the host's held, and free takes that
		if x.free != nil {
			x.free()
		}
	}
	return left
}

func (d *departures) isGone(x *departed, now time.Time) bool {
	overdue := x.stale || now.Sub(x.since) > patient
	gone := true
	for _, link := range x.links {
		l, err := d.host.Link(link)
		if err == nil && overdue {
			if err = d.host.Apply(netlink.Delete(l.Index)); err == nil {
				gone = false // until the next look
				continue
			}
		}
		if errors.Is(err, netlink.ErrNoLink) {
			continue
		}
		if err != nil {
			d.warn(fmt.Sprintf("remove link %s of a container that is gone: %v", link, err))
		}
		gone = false
	}
	return gone
}

// flush closes the batch at once and tells whether links may go by that.
func (d *departures) flush() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, x := range d.queue {
		if !x.closed && x.ns != nil {
			x.ns.Close()
		}
		x.closed = true
	}
	return len(d.queue) > 0
}

// await returns when none of the addresses belongs to one that was released, or when it is not to be expected soon. Those that are
// not valid are none. Only the context's end is an error.
func (d *departures) await(ctx context.Context, addresses ...netip.Addr) error {
	addresses = slices.DeleteFunc(addresses, func(a netip.Addr) bool { return !a.IsValid() })
	if len(addresses) == 0 { // nearly always: who asks for no address gets a free one
		return nil
	}
	deadline := time.Now().Add(patient + time.Second)
	for d.has(addresses) && time.Now().Before(deadline) {
		d.bury(time.Now())
		if !d.has(addresses) {
			break
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// pause lets some time pass, unless the context ends.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return ctx.Err()
	}
}

func (d *departures) has(addresses []netip.Addr) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.ContainsFunc(d.queue, func(x *departed) bool {
		return slices.ContainsFunc(addresses, func(a netip.Addr) bool { return slices.Contains(x.addresses, a) })
	})
}

// close gives everything up that still waits; the kernel does the rest.
func (d *departures) close() error {
	close(d.stop)
	d.done.Wait()
	for _, x := range d.queue {
		if x.ns != nil && !x.closed {
			x.ns.Close()
		}
	}
	d.queue = nil
	return d.host.Close()
}
