package netlink

import (
	"errors"
	"os"
	"sync/atomic"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Watch tells when the IPv4 addresses of a namespace or its forwarding switches change.
type Watch struct {
	socket *nl.NetlinkSocket
	closed atomic.Bool
}

// AllLinks is the index of the switch that rules all links (net.ipv4.ip_forward; NETCONFA_IFINDEX_ALL).
const AllLinks = -1

// Event is what changed.
type Event struct {
	Forwarding bool // a forwarding switch, not an address
	Link       int  // index, or AllLinks
	Lost       bool // the kernel dropped events; anything may have changed
}

// OpenWatch subscribes in the calling thread's namespace. The caller closes it.
func OpenWatch() (*Watch, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_NETCONF)
	if err != nil {
		return nil, os.NewSyscallError("subscribe to rtnetlink", err)
	}
	return &Watch{socket: s}, nil
}

// Close ends the watch; a waiting Next returns os.ErrClosed.
func (w *Watch) Close() {
	w.closed.Store(true)
	w.socket.Close()
}

// Next waits for the next events.
func (w *Watch) Next() ([]Event, error) {
	messages, _, err := w.socket.Receive()
	if errors.Is(err, unix.ENOBUFS) {
		return []Event{{Link: AllLinks, Lost: true}}, nil
	}
	if err != nil && w.closed.Load() { // the error is another one, by the moment that the library was in
		return nil, os.ErrClosed
	}
	if err != nil {
		return nil, err
	}
	var events []Event
	for _, m := range messages {
		if e, ok := event(m); ok {
			events = append(events, e)
		}
	}
	return events, nil
}

func event(m syscall.NetlinkMessage) (Event, bool) {
	order := nl.NativeEndian()
	switch m.Header.Type {
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		if len(m.Data) < unix.SizeofIfAddrmsg {
			return Event{}, false
		}
		return Event{Link: int(order.Uint32(m.Data[4:]))}, true // ifa_index of struct ifaddrmsg
	case unix.RTM_NEWNETCONF:
		const header, index, forwarding = 4, 1, 2 // struct netconfmsg, padded; NETCONFA_IFINDEX, NETCONFA_FORWARDING
		if len(m.Data) < header {
			return Event{}, false
		}
		attrs, err := nl.ParseRouteAttr(m.Data[header:])
		if err != nil {
			return Event{}, false
		}
		e, ok := Event{Forwarding: true}, false
		for _, a := range attrs {
			switch {
			case len(a.Value) < 4:
			case a.Attr.Type == index:
				e.Link = int(int32(order.Uint32(a.Value)))
			case a.Attr.Type == forwarding:
				ok = true
			}
		}
		return e, ok
	}
	return Event{}, false
}
